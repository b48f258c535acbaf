"""What may stand in a log line: no secret, no control character, no endless text.

Secrets are known three ways: by type (:class:`~tollway.domain.keys.Secret` masks itself), by value (those of the
settings are registered at start) and by pattern (for what strangers put into texts).
"""

import functools
import re
from collections.abc import Iterable

from tollway.domain.credentials import ANNOUNCED, MARKED
from tollway.domain.keys import Secret

MASK = "***"

_MIN_KNOWN = 6  # characters; masking a shorter registered secret would eat ordinary words
_LOOK_AHEAD = 1024  # characters read past the cut, so that a secret that straddles it is still recognised whole

# Linear, all of them: each begins with a literal or at the start of a run, and nothing repeated is repeated again.
_PATTERNS = (
    (ANNOUNCED, rf"\1{MASK}"),
    (re.compile(r"(?<![A-Za-z0-9])(sk-[A-Za-z0-9]{0,4})[A-Za-z0-9_-]{4,}"), rf"\1{MASK}"),
    (MARKED, MASK),
    (re.compile(r"\b(bearer|basic)[ \t]+[^\s\"',;]+", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"://[^\s/@\"']+@"), f"://{MASK}@"),
    # Providers' keys without a prefix, hashes, ciphertexts: long runs that hold both digits and letters.
    (re.compile(r"(?<![A-Za-z0-9])(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{32,}"), MASK),
)
# What most values are, ids, names, kinds: no pattern but MARKED can match in them, so no other is tried.
_HARMLESS = re.compile(r"(?!.{0,31}sk-)[A-Za-z0-9_./-]{0,31}")

# Nearly all that lines of calls hold is the same again and again: names, kinds, the message.
_SHORT = 64
_MAX_REMEMBERED = 1024

_MAX_ID = 128
_ID = re.compile(r"(?!sk-)[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,127}")


class Redactor:
    """Cleans text for the log; ``known`` are values that are masked wherever they appear."""

    def __init__(self, known: Iterable[Secret] = ()) -> None:
        texts = {secret.reveal() for secret in known}
        alternatives = sorted((re.escape(text) for text in texts if len(text) >= _MIN_KNOWN), key=len, reverse=True)
        self._known = re.compile("|".join(alternatives)) if alternatives else None
        self._clean_short = functools.lru_cache(_MAX_REMEMBERED)(self._clean)

    def clean(self, text: str, limit: int) -> str:
        """The text without secrets, on one line, unprintable characters escaped, ``limit`` characters at most.

        What was cut off shows as one more character, an ellipsis.
        """
        return self._clean_short(text, limit) if len(text) <= _SHORT else self._clean(text, limit)

    def _clean(self, text: str, limit: int) -> str:
        if len(text) <= limit and _HARMLESS.fullmatch(text) and not self._is_secret(text):
            return text
        window = text[: limit + _LOOK_AHEAD]
        whole = len(window) == len(text)
        if self._known is not None:
            window = self._known.sub(MASK, window)
        for pattern, replacement in _PATTERNS:
            window = pattern.sub(replacement, window)
        if not whole:  # what stands at the very end may be the beginning of a secret
            window = window[:-_LOOK_AHEAD]
        if not window.isprintable():
            window = "".join(letter if letter.isprintable() else _escaped(letter) for letter in window)
        return window if whole and len(window) <= limit else window[:limit] + "…"

    def clean_id(self, text: str) -> str:
        """An identifier as it is, though it looks as random as a secret; of everything else, what may be shown."""
        return text if _ID.fullmatch(text) and not self._is_secret(text) else self.clean(text, _MAX_ID)

    def _is_secret(self, text: str) -> bool:
        known = self._known is not None and self._known.search(text)
        return bool(known or MARKED.search(text))


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
