"""How credentials look in a stranger's text. Every expression is linear in the length of the text.

1. **Announced**: what stands behind a name that says so, whatever that name begins with (``OPENAI_API_KEY=…``,
   ``"x-api-key": "…"``), together with the scheme before it (``Authorization: Bearer …``). A name that only ends in
   ``tokens`` counts something, and ``eos_token`` is a token of a model.
2. **Marked**: what begins as the keys of a provider or of a code host do, be there a digit in it or not. OpenAI's
   (``sk-…``) are not among them: how much of those is shown differs.
"""

import re

_NAMES = (
    r"(?:api|access|secret|private|subscription|account|auth|master|signing|encryption|shared|functions|openai)"
    r"[_ -]?keys?",
    r"passwords?",
    r"passwd",
    r"passphrase",
    r"pwd",
    r"secrets?",
    r"(?<!(?:max|eos|bos|pad|unk|sep|cls|end|new)[_-])(?<!(?:mask|stop|next)[_-])token",
    r"authorization",
    r"cookie",
)
_BETWEEN = r"""[\\"'`]{0,4}\s{0,4}[=:][=:>]?\s{0,4}"""
_SCHEME = r"(?:bearer|basic|token|digest|negotiate|api-?key|key|bot)\s{1,4}"
_VALUE = rf"""(?:"[^"]{{1,256}}"|'[^']{{1,256}}'|[\\"'`\[(]{{0,4}}(?:{_SCHEME}){{0,2}}[^\s\\"',;&)\]}}]+)"""

ANNOUNCED = re.compile(rf"((?:{'|'.join(_NAMES)}){_BETWEEN}){_VALUE}", re.IGNORECASE)
"""Its group is the name with what stands between it and the value."""

MARKED = re.compile(
    r"(?<![a-z0-9])(?:(?:hf|gsk|gh[a-z]|github_pat|glpat|r8|fw|csk|pplx|xai|nvapi|tgp_v1|xox[a-z])[_-](?=[a-z0-9]{12})"
    r"|(?-i:AIza)(?=[\w-]{12})|a[ks]ia(?=[0-9a-z]{12}))[\w*.-]+",
    re.IGNORECASE,
)
