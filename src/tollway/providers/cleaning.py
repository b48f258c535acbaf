"""A provider's words as a log, the ledger or a client may see them.

1. What looks like a secret, an address, a name inside somebody's network or the name of an account is masked, whoever
   reads it: those who run the gateway find the rest of the sentence, and the provider's own id of the request, enough.
2. What the provider merely repeats is masked where it is known: the credential that it was sent, in whatever spelling
   (:func:`without_secret`), and the client's prompt (:func:`without_shared`).
3. Every expression is linear in the length of the text, and no more than ``MAX_READ`` characters are looked at.
"""

import base64
import re
from urllib.parse import quote

from tollway.domain.credentials import ANNOUNCED, MARKED

MASK = "***"

MAX_READ = 4_000
"""Characters of a provider's text that are looked at."""

MAX_SHOWN = 500
"""… and that are shown."""

MAX_WORD = 100
"""Characters of a code or a type: the longest in use have some fifty."""

MAX_ID = 128
"""Characters of a provider's id of a request: the longest in use have some sixty."""

_LABEL = r"[a-z0-9_-]{1,63}"  # of a host's name
_HEX = r"[0-9a-f]{1,4}"  # of an IPv6 address

_FOLDERS = (
    "home|root|usr|opt|var|etc|srv|mnt|tmp|app|workspace|users|private|proc|run|models?|data|dev|code|lib|cache|weights"
    "|checkpoints?|volumes?|storage|scratch|shared|nfs|content|media"
)

_HIDDEN = re.compile(
    rf"""
    # addresses, with all that hangs on them
      \b[a-z][a-z0-9+.-]{{1,15}}://[^\s"'<>`\\]*[^\s"'<>`\\.,;:!?)\]}}]
    | (?<![\w.+-])[\w.+-]{{1,64}}@{_LABEL}(?:\.{_LABEL}){{1,8}}
    | \b\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?::\d+)?
    | \b(?:ip|ec2)(?:-\d{{1,3}}){{4}}(?:\.{_LABEL}){{0,8}}
    | (?<![\w:.])\[?
      (?:(?:{_HEX}:){{4,7}}{_HEX}|(?:(?:{_HEX}:){{1,7}}:{_HEX}|(?:{_HEX}:){{1,7}}:|::{_HEX})(?::{_HEX}){{0,6}})
      (?:\.\d{{1,3}}){{0,3}}(?:%\w{{1,16}})?\]?(?::\d{{1,5}})?(?!\w)
    # names inside a network, and hosts with their ports
    | (?<![\w.-])(?:{_LABEL}\.){{1,8}}(?:local|internal|lan|corp|intranet|localdomain|arpa|svc|consul)
      (?::\d{{1,5}})?(?![\w-])
    | (?<![\w.-])(?:{_LABEL}\.){{1,8}}{_LABEL}:\d{{2,5}}(?!\w)
    | (?<![\w.-])(?=[a-z_]*[\d-])[a-z][a-z0-9_-]{{1,63}}:\d{{2,5}}(?!\w)
    | \blocalhost(?::\d{{1,5}})?
    | (?<![\w.-])(?!(?:www|docs|help|support|status|platform|console|api)\.)(?:{_LABEL}\.){{2,8}}
      (?:com|net|org|io|ai|dev|cloud|app|tech|eu|de|fr|uk|cn|jp)(?![\w/-]|\.\w)
    # what stands where only a host can
    | \bhost(?:name)?["']?\s{{0,4}}[=:]\s{{0,4}}["']?[^\s"',;)\]}}]+
    | \b(?:ENOTFOUND|EAI_AGAIN|E(?:CONN|HOST|NET)[A-Z]{{5,7}}|ETIMEDOUT)\s{{1,4}}["']?[\w.:\[\]-]+
    | \b(?:(?:to|unknown|resolve)\ host(?:name)?:?\s{{1,4}}["']?(?=[a-z])
      |(?:lookup|resolve|connect(?:ing|ion)?\ to):?\s{{1,4}}["']?(?=[a-z]+(?:\d|[._-]\w|:\d)))
      {_LABEL}(?:\.{_LABEL}){{0,8}}(?::\d{{1,5}})?
    # where something lies on somebody's disk
    | (?<![\w./-])(?:~|unix:)?/(?:{_FOLDERS})/[^\s"'`,;:)\]}}]+
    | \bunix:[^\s"'`,;)\]}}]+
    | \b[a-z]:\\[^\s"'`,;:)\]}}]+
    # accounts
    | \b(?:org|organization|proj|project|team|tenant|acct|account|workspace|wrkspc|user|ak|pk|sess)
      [-_](?=[a-z]*\d)[a-z0-9]{{6,}}
    | \borg[-_][a-z0-9]{{6,}}
    | \barn:aws[^\s"',]*
    | \bprojects/[\w-]+
    | \bsubscriptions/[\w-]+(?:/[\w.-]+){{0,12}}
    | (?<!\d)\d{{12}}(?!\d)
    # keys (others: ``domain/credentials.py``), also those that somebody has masked already
    | (?<![a-z0-9])sk-[\w*.-]+
    | \beyj[\w-]+(?:\.[\w-]+){{0,2}}
    | \bbearer\s+\S+
    | \bbasic\s+(?=(?-i:[A-Za-z]*?(?:[a-z][A-Z]|[0-9+/=])))[a-z0-9+/=]{{8,}}
    | (?<![\w*-])[\w-]{{1,64}}\*{{3,}}[\w*-]{{0,64}}
    | (?<![\w*-])\*{{3,}}[\w-]{{1,64}}
    """,
    re.IGNORECASE | re.VERBOSE,
)
_RANDOM = re.compile(
    r"(?<![\w-])(?=[a-z_-]*\d)[\w-]{28,}", re.IGNORECASE
)  # long runs with digits: keys without a prefix
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")

# What validators repeat of what they were given: pydantic's ``input_value=…``, and lists of its errors as Python or
# JSON writes them. What follows may be the whole body, so nothing of it is kept.
_ECHO = re.compile(r"""(?:["']input["']|\binput_value)\s{0,4}[:=]""")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{3,127}")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/ -]{0,99}")


def clean(text: str, limit: int = MAX_SHOWN) -> str:
    """The text on one line, at most ``limit`` characters long, what rule 1 names masked."""
    text = without_echo(text[:MAX_READ])
    text = _CONTROL.sub(" ", _masked(text)).strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def without_echo(text: str) -> str:
    """The text up to where a validator repeats what it was given."""
    echo = _ECHO.search(text)
    return text[: echo.start()].rstrip(" ,;:[{(") + " …" if echo else text


def _masked(text: str) -> str:
    """What is announced comes first, so that nothing that hides its name shows its value."""
    for hidden in (ANNOUNCED, MARKED, _HIDDEN, _RANDOM):
        text = hidden.sub(MASK, text)
    return text


def clean_word(text: str) -> str:
    """A code or a type; nothing of what is no word at all."""
    word = clean(text, MAX_WORD)
    return word if _WORD.fullmatch(word) else ""


def clean_id(text: str) -> str:
    """A provider's id of a request, which is random by nature; nothing of what cannot be one."""
    text = text.strip()
    return (
        text if _ID.fullmatch(text) and not any(hidden.search(text) for hidden in (ANNOUNCED, MARKED, _HIDDEN)) else ""
    )


# --- what is repeated ---------------------------------------------------------------------------------------

_LEAST_OF_A_SECRET = 8
"""Characters in a row of a credential that are masked: a provider may show its beginning or its end."""


def without_secret(text: str, secret: str) -> str:
    """The text without a known secret, in capitals or not, encoded or not, whole or in part."""
    if not text or not secret:
        return text
    spellings = {secret, quote(secret, safe="")}
    for plain in (secret, f"Bearer {secret}", f":{secret}"):
        encoded = base64.b64encode(plain.encode()).decode().rstrip("=")
        spellings |= {encoded, encoded.translate(_URL_SAFE)}
    for spelling in spellings:
        text = _without(text, text.casefold(), spelling.casefold(), min(_LEAST_OF_A_SECRET, len(spelling)))
    return text


_URL_SAFE = str.maketrans("+/", "-_")


def without_shared(text: str, source: str, least: int) -> str:
    """The text without the runs of at least ``least`` characters that stand in ``source`` too."""
    return _without(text, text, source, least)


_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": " ", "r": " ", "t": " ", "b": " ", "f": " "}


def as_said(body: bytes) -> str:
    """The text of a body in which an echo may be looked for: JSON's escapes undone, control characters as :func:`clean`
    makes them."""
    text = body.decode("utf-8", "replace")
    if "\\" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else _ESCAPED.get(match[2], match[2]), text)
    return _CONTROL.sub(" ", text)


def _without(text: str, sought: str, source: str, least: int) -> str:
    """Mask the runs; ``sought`` is the text in the spelling of ``source``.

    A run that is long enough holds a whole one of the windows of half its length that the text is cut into, so there
    are few to look for. How far a run reaches beyond its window is a binary search to either side.
    """
    if len(sought) != len(text):  # a letter that becomes two in lower case: then it is compared as it stands
        sought = text
    half = max(1, (least + 1) // 2)
    pieces: list[str] = []
    done = start = 0
    while start + half <= len(sought):
        if sought[start : start + half] in source:
            end = _end_of_run(sought, source, start, start + half)
            begin = _begin_of_run(sought, source, done, start, end)
            if end - begin >= least:
                run = text[begin:end]
                blanks = len(run) - len(run.lstrip())
                pieces += (text[done : begin + blanks], MASK, run[len(run.rstrip()) :])
                done = start = end
                continue
        start += half
    return "".join((*pieces, text[done:])) if pieces else text


def _end_of_run(sought: str, source: str, start: int, known: int) -> int:
    most = len(sought)
    while known < most:
        middle = (known + most + 1) // 2
        known, most = (middle, most) if sought[start:middle] in source else (known, middle - 1)
    return known


def _begin_of_run(sought: str, source: str, least: int, known: int, end: int) -> int:
    while least < known:
        middle = (least + known) // 2
        least, known = (least, middle) if sought[middle:end] in source else (middle + 1, known)
    return known
