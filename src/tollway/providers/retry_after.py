"""When a provider wants to be asked again, in all the forms in which providers say so."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_MAX_WAIT_S = 86_400.0  # a day; who says more means "never"

SOON_S = 1.0
"""What "now" and a time that is over mean: nobody wants to be asked again at once by all who were just refused."""

_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?")
_IN_TEXT = re.compile(
    r"(?:try again|retry)(?: again)? (?:in|after) "
    r"(?:(\d{1,6}) ?h(?:ours?)?(?![a-z]) ?)?(?:(\d{1,6}) ?m(?:in(?:utes?)?)?(?![a-z]) ?)?"
    r"(?:(\d{1,9}(?:\.\d{1,9})?) ?(ms|milliseconds?|s|sec(?:onds?)?)(?![a-z]))?",
    re.IGNORECASE,
)
_IN_DETAILS = re.compile(rb'"retryDelay" {0,4}: {0,4}"(\d{1,9}(?:\.\d{1,9})?)s"')  # of Google's RetryInfo


def retry_after_s(headers: Mapping[bytes, bytes], text: str = "", body: bytes = b"") -> float | None:
    """Seconds to wait as the provider said it: in ``retry-after-ms``, ``retry-after``, its text or the body's details.

    None where it says nothing that can be used. A date is read against the answer's own ``date``, as the provider's
    clock may not be ours. What is over, or not positive, is :data:`SOON_S`.
    """
    wait_s = _milliseconds(headers.get(b"retry-after-ms", b""))
    if wait_s is None:
        wait_s = _seconds(headers.get(b"retry-after", b""), headers.get(b"date", b""))
    if wait_s is None:
        wait_s = _from_words(text, body)
    if wait_s is None:
        return None
    return min(wait_s, _MAX_WAIT_S) if wait_s > 0 else SOON_S


def _milliseconds(value: bytes) -> float | None:
    text = value.decode("latin-1").strip()
    return float(text) / 1000 if _NUMBER.fullmatch(text) else None


def _seconds(value: bytes, date: bytes) -> float | None:
    text = value.decode("latin-1").strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    try:
        until, now = parsedate_to_datetime(text), parsedate_to_datetime(date.decode("latin-1"))
        return (until - now).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _from_words(text: str, body: bytes) -> float | None:
    match = _IN_TEXT.search(text)
    if match and any(match.groups()):
        hours, minutes, count, unit = match.groups()
        in_ms = (unit or "").lower().startswith("m")
        return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(count or 0) / (1000 if in_ms else 1)
    details = _IN_DETAILS.search(body)
    return float(details[1]) if details else None
