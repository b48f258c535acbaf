"""When a provider wants to be asked again, in all the forms in which providers say so."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

_MAX_WAIT_S = 86_400.0  # a day; who says more means "never"

_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d{1,9})?")
_IN_TEXT = re.compile(r"(?:try again|retry) in (?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)(ms|s))?")


def retry_after_s(headers: Mapping[bytes, bytes], message: str = "") -> float | None:
    """Seconds to wait as the provider said it: in ``retry-after-ms``, ``retry-after`` or its text; None if nowhere.

    A date is read against the answer's own ``date``, as the provider's clock may not be ours.
    """
    wait_s = _milliseconds(headers.get(b"retry-after-ms", b""))
    if wait_s is None:
        wait_s = _seconds(headers.get(b"retry-after", b""), headers.get(b"date", b""))
    if wait_s is None and (match := _IN_TEXT.search(message)) and any(match.groups()):
        hours, minutes, count, unit = match.groups()
        wait_s = int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(count or 0) / (1000 if unit == "ms" else 1)
    return None if wait_s is None else min(max(wait_s, 0.0), _MAX_WAIT_S)


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
