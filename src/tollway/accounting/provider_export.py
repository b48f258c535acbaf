"""What providers export of their usage, read into one shape: a row for each day, model and credential.

OpenAI: pages of its Usage API (``/v1/organization/usage/completions`` and its siblings), one, a list of them, or one in
each line; or a table. Mistral: the answer of its Admin API (``/api/admin/usage``), or a table. A table is CSV with a
head; its columns are known by any of the names that the two use.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Annotated, NamedTuple, TypeAlias

import msgspec

MAX_ROWS = 1_000_000
MAX_COUNT = 10**15
"""Of tokens or requests in one row."""
MAX_NAME = 300
"""Characters of a model's or a credential's name."""

_LAST_UNIX = 253_402_300_799  # the last second that has a date

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
_Name: TypeAlias = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]


class ExportError(ValueError):
    """A file that is no export; its text is for the person who has it."""


class Exported(NamedTuple):
    """What a provider says of one day, model and credential."""

    day: date
    """In UTC."""
    model: str
    """The provider's name of it."""
    key: str
    """The provider's id of its credential; empty where the export does not tell them apart."""
    requests: int | None
    """None, here and below: it does not say."""
    input_tokens: int | None
    """With the cached ones."""
    cached_input_tokens: int | None
    output_tokens: int | None
    kind: str = ""
    """Of usage, as OpenAI's API has them: ``completions``, ``embeddings`` …; empty where it does not say."""


def read_openai(data: bytes) -> list[Exported]:
    """Rows of an export of OpenAI's. Raises ExportError."""
    return _rows(data, _openai_json)


def read_mistral(data: bytes) -> list[Exported]:
    """Rows of an export of Mistral's. Raises ExportError."""
    return _rows(data, _mistral_json)


def _rows(data: bytes, read_json: Callable[[bytes], Iterable[Exported]]) -> list[Exported]:
    is_json = data.lstrip()[:1] in (b"{", b"[")
    found: list[Exported] = []
    try:
        for row in read_json(data) if is_json else _table(data):
            if row.day == date.max:
                raise ExportError(f"{row.day} is no day of usage")
            found.append(row)
            if len(found) > MAX_ROWS:
                raise ExportError(f"it has more than {MAX_ROWS} rows; export fewer days")
    except (msgspec.DecodeError, UnicodeDecodeError, csv.Error, OverflowError, RecursionError) as error:
        raise ExportError(f"it cannot be read: {error}") from None
    if not found:
        raise ExportError("it has no row of usage")
    return found


# --- OpenAI ----------------------------------------------------------------------------------------------------------


_KIND = re.compile(r"organization\.usage\.([a-z_]+)\.result")


class _Result(msgspec.Struct):
    object: _Name | None = None
    input_tokens: Count | None = None
    output_tokens: Count | None = None
    input_cached_tokens: Count | None = None
    num_model_requests: Count | None = None
    model: _Name | None = None
    api_key_id: _Name | None = None


class _Bucket(msgspec.Struct):
    start_time: Annotated[int, msgspec.Meta(ge=0, le=_LAST_UNIX)]
    results: list[_Result]


class _Page(msgspec.Struct):
    data: list[_Bucket]


_pages = msgspec.json.Decoder(_Page | list[_Page]).decode
_page_lines = msgspec.json.Decoder(_Page).decode_lines


def _openai_json(data: bytes) -> Iterator[Exported]:
    try:
        pages = _pages(data)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:  # more than one value
        pages = _page_lines(data)
    for page in [pages] if isinstance(pages, _Page) else pages:
        for bucket in page.data:
            day = datetime.fromtimestamp(bucket.start_time, UTC).date()
            for one in bucket.results:
                if one.model is None:
                    raise ExportError("its usage is not told apart by model; ask for group_by=model")
                counts = (one.num_model_requests, one.input_tokens, one.input_cached_tokens, one.output_tokens)
                kind = _KIND.fullmatch(one.object or "")
                yield Exported(day, one.model, one.api_key_id or "", *counts, kind[1] if kind else "")


# --- Mistral ---------------------------------------------------------------------------------------------------------


class _Metered(msgspec.Struct):
    timestamp: datetime
    value: Count


class _Model(msgspec.Struct):
    input: list[_Metered] = []
    output: list[_Metered] = []
    cached: list[_Metered] = []


class _Category(msgspec.Struct):
    models: dict[_Name, _Model] = {}


_categories = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_category = msgspec.json.Decoder(_Category, strict=False).decode


def _mistral_json(data: bytes) -> Iterator[Exported]:
    for raw in _categories(data).values():
        if bytes(raw).lstrip()[:1] != b"{":
            continue  # the period, the currency
        for name, model in _category(raw).models.items():
            called = name.partition("::")[0]
            for one in model.input:
                yield Exported(_day(one.timestamp), called, "", None, one.value, None, 0)
            for one in model.cached:
                yield Exported(_day(one.timestamp), called, "", None, one.value, one.value, 0)
            for one in model.output:
                yield Exported(_day(one.timestamp), called, "", None, 0, None, one.value)


# --- tables ----------------------------------------------------------------------------------------------------------

_DAY = ("start_time_iso", "start_time", "date", "day", "timestamp", "usage_date")
_MODEL = ("model", "model_name", "snapshot_id")
_KEY = ("api_key_id", "api_key", "api_key_name")
_REQUESTS = ("num_model_requests", "requests", "n_requests", "num_requests")
_INPUT = ("input_tokens", "prompt_tokens", "n_context_tokens_total")
_CACHED = ("input_cached_tokens", "cached_tokens", "cached_input_tokens")
_OUTPUT = ("output_tokens", "completion_tokens", "n_generated_tokens_total")


def _table(data: bytes) -> Iterator[Exported]:
    rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), restval="")
    names = {name.strip().lower().replace(" ", "_"): name for name in rows.fieldnames or () if name}
    day, model = _column(names, _DAY), _column(names, _MODEL)
    counted = [_column(names, one) for one in (_REQUESTS, _INPUT, _CACHED, _OUTPUT)]
    if day is None or model is None or counted[1] is None or counted[3] is None:
        raise ExportError(
            "it is neither JSON nor a table with columns such as start_time, model, input_tokens and output_tokens"
        )
    key = _column(names, _KEY)
    for row in rows:
        requests, inputs, cached, outputs = (
            None if name is None else _count(row[name], rows.line_num) for name in counted
        )
        found = _moment(row[day], rows.line_num)
        yield Exported(
            _day(found), row[model][:MAX_NAME], row[key][:MAX_NAME] if key else "", requests, inputs, cached, outputs
        )


def _column(names: Mapping[str, str], known: Iterable[str]) -> str | None:
    return next((names[one] for one in known if one in names), None)


def _count(text: str, line: int) -> int:
    text = text.strip() or "0"
    if not text.isdecimal() or len(text) > len(str(MAX_COUNT)):
        raise ExportError(f"line {line}: {text[:40]!a} is no number of tokens or requests")
    return int(text)


def _moment(text: str, line: int) -> datetime:
    text = text.strip()
    try:
        if text.isdecimal() and len(text) > 8:
            return datetime.fromtimestamp(int(text), UTC)
        return datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise ExportError(f"line {line}: {text[:40]!a} is no date") from None


def _day(moment: datetime) -> date:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).date()
