"""Settlements as lines of PostgreSQL's text format for COPY: no value is turned into one of Python's on the way.

A field that is empty is NULL. That no text breaks the format is checked for all lines at once; only where one does are
they written again, text by text. A number that does not fit its column is left to PostgreSQL to refuse.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace

from tollway.accounting.records import Settlement

COLUMNS = (
    "call_id",
    "attempt",
    "key_id",
    "model",
    "provider",
    "upstream_model",
    "operation",
    "stream",
    "started_at",
    "duration_ms",
    "first_byte_ms",
    "status",
    "outcome",
    "state",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "others",
    "service_tier",
    "cost",
    "priced",
    "charged",
    "price_id",
    "doubt",
    "revision",
    "cause",
)
"""Of ``tollway.ledger``, in the order of a line's fields."""

_MAX_INT = 2**31 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\ufffd"})
_BREAKS = ("\\", "\r", "\0")
_TABS = len(COLUMNS) - 1

_to_json = msgspec.json.Encoder().encode


def lines_of(settlements: Sequence[Settlement]) -> bytes:
    """A line for each. Raises ValueError or OverflowError for a time that is none."""
    seconds: dict[int, str] = {}
    lines = [_line(one, seconds) for one in settlements]
    text = "".join(lines)
    count = len(lines)
    if text.count("\t") != count * _TABS or text.count("\n") != count or any(map(text.__contains__, _BREAKS)):
        text = "".join([_line(_escaped(one), seconds) for one in settlements])
    return text.encode()


def months_of(settlements: Sequence[Settlement]) -> set[tuple[int, int]]:
    """The years and months (UTC) that they began in."""
    days = {int(one.started_unix // 86_400) for one in settlements}
    return {(day.year, day.month) for day in (_EPOCH + timedelta(days=number) for number in days)}


def _line(one: Settlement, seconds: dict[int, str]) -> str:
    second, microsecond = divmod(round(one.started_unix * 1_000_000), 1_000_000)
    moment = seconds.get(second)
    if moment is None:
        moment = seconds[second] = _moment(second)
    input_tokens, cached, output_tokens, others = (
        one.input + one.cache_read,
        one.cache_read,
        one.output + one.reasoning,
        "",
    )
    if one.others:
        usage = one.usage
        input_tokens, cached, output_tokens = usage.input_tokens, usage.cached_input_tokens, usage.output_tokens
        others = _to_json(one.others).decode().translate(_ESCAPES)
    model = one.model
    upstream_model = one.upstream_model if one.upstream_model != model else ""
    duration_ms = min(round(one.duration_ms), _MAX_INT)
    first_byte_ms = "" if one.first_byte_ms is None else min(round(one.first_byte_ms), _MAX_INT)
    return (
        f"{one.call_id}\t{one.attempt}\t{one.key_id}\t{model}\t{one.provider}\t{upstream_model}\t{one.operation}"
        f"\t{'t' if one.stream else 'f'}\t{moment}.{microsecond:06}+00\t{duration_ms}\t{first_byte_ms}\t{one.status}"
        f"\t{one.outcome}\t{one.state}\t{input_tokens}\t{cached}\t{output_tokens}\t{one.reasoning}\t{others}"
        f"\t{one.service_tier}\t{one.cost}e-{one.scale}\t{'t' if one.priced else 'f'}\t{'t' if one.charged else 'f'}"
        f"\t{one.price_id or ''}\t{one.doubt}\t{one.revision}\t{one.cause}\n"
    )


def _moment(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat(" ")[:19]


def _escaped(one: Settlement) -> Settlement:
    return replace(one, **{name: getattr(one, name).translate(_ESCAPES) for name in _TEXTS})


_TEXTS = tuple(field.name for field in msgspec.structs.fields(Settlement) if field.type is str)
