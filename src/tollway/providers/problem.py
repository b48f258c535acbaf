"""What a provider's error says, read from whatever shape it has.

    {"error": {"message", "type", "param", "code"}}      {"error": "text"}         {"error": {"error": {…}}}
    {"object": "error", "message", "type", "code"}       {"message": "text"}       {"errors": [{…}, …]}
    {"message": {"detail": [item, …]}}                   {"detail": [item, …]}     with item = {"loc", "msg", "input"}
    [{"error": {…}}]                                     {"error": {"message": "{\\"error\\": …}"}}
    {"error": "Bad Request", "message": "text"}          {"result": {"error": {…}}}    {"errors": {"prompt": ["text"]}}
    <Error><Code>…</Code><Message>…</Message></Error>    a page of HTML            plain text

1. The innermost message counts; what the objects around it say besides is kept where the inner ones say nothing.
2. Of a list of validation errors the paths and the messages are read. Its ``input``, which echoes what the client sent,
   never is.
3. What is no strict JSON is mended (``wire/loose_json.py``). Of what cannot be, as it is cut short or Python's own
   writing, the texts behind the names of a message are read.
4. Whatever comes, the work is bounded and nothing is raised.
"""

import html
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec

from tollway.providers.cleaning import MAX_READ, as_said, clean, clean_id, clean_word, without_echo
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, in_utf8
from tollway.wire.loose_json import of_a_body

T = TypeVar("T")

MAX_BODY = 1024 * 1024
"""Bytes: no error object is longer; pages and echoes are."""

MAX_COMMAS = 20_000
"""In a body: more members than any error has, and than may be looked at in a few milliseconds."""

_MAX_ITEMS = 4  # of a list of errors: the first ones tell what is wrong
_MAX_DEPTH = 12  # of values within values: three or four errors within errors


class Problem(NamedTuple):
    """What an error says, its members cleaned; empty texts where it says nothing."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str | None = None
    status: int = 0
    """As the object says it; 0 where it does not."""
    request_id: str = ""
    words: str = ""
    """Everything that was said, as it was said: to be sorted by, never to be shown."""


def read_problem(body: bytes | Raw, *, failed: bool = False) -> Problem:
    """The error in any of the known shapes. Junk gives an empty one.

    ``failed`` says that it is one; else an object has to show that it is, before a ``title`` is taken for a message.
    """
    text = bytes(body)
    if len(text) > MAX_BODY or text.count(b",") > MAX_COMMAS:
        return Problem()
    found = _read(body, _MAX_DEPTH, failed=failed)
    if found is None or not found.message:
        mended = of_a_body(in_utf8(text))
        found = (_read(mended, _MAX_DEPTH, failed=failed) if mended != text else None) or found
    found = found or _read_text(text, failed=failed)
    return Problem(
        clean(found.message),
        clean_word(found.type),
        clean_word(found.code),
        clean(found.param or "") or None,
        found.status,
        clean_id(found.request_id),
        f"{found.type}. {found.code}. {found.message[:MAX_READ]}",
    )


def is_problem(raw: Raw | Unset) -> bool:
    """Whether the ``error`` member of an answer holds an error; some servers send an empty one with each answer."""
    return type(raw) is Raw and _NOTHING.fullmatch(bytes(raw)) is None


_NOTHING = re.compile(rb'null|false|"\s*+"|\{\s*+\}|\[\s*+\]|-?0(?:\.0++)?(?:[eE][+-]?[0-9]++)?')


# --- JSON ---------------------------------------------------------------------------------------------------


class _Found(NamedTuple):
    """As in :class:`Problem`, but as it came."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str | None = None
    status: int = 0
    request_id: str = ""


def _named(name: str) -> Unset:
    return msgspec.field(name=name, default=UNSET)


class _Members(msgspec.Struct, gc=False):
    error: Raw | Unset = UNSET
    errors: Raw | Unset = UNSET
    fault: Raw | Unset = UNSET
    err: Raw | Unset = UNSET
    capital_error: Raw | Unset = _named("Error")
    header: Raw | Unset = UNSET
    data: Raw | Unset = UNSET
    result: Raw | Unset = UNSET
    response: Raw | Unset = UNSET
    message: Raw | Unset = UNSET
    detail: Raw | Unset = UNSET
    metadata: Raw | Unset = UNSET
    raw: Raw | Unset = UNSET
    base_resp: Raw | Unset = UNSET
    # other names of a message
    msg: Raw | Unset = UNSET
    error_message: Raw | Unset = UNSET
    error_msg: Raw | Unset = UNSET
    error_description: Raw | Unset = UNSET
    error_camel: Raw | Unset = _named("errorMessage")
    capital: Raw | Unset = _named("Message")
    faultstring: Raw | Unset = UNSET
    status_msg: Raw | Unset = UNSET
    description: Raw | Unset = UNSET
    reason: Raw | Unset = UNSET
    title: Raw | Unset = UNSET
    err_msg: Raw | Unset = UNSET
    details: Raw | Unset = UNSET
    info: Raw | Unset = UNSET
    cause: Raw | Unset = UNSET
    innererror: Raw | Unset = UNSET
    # kinds
    type: Raw | Unset = UNSET
    aws_type: Raw | Unset = _named("__type")
    error_type: Raw | Unset = UNSET
    code: Raw | Unset = UNSET
    capital_code: Raw | Unset = _named("Code")
    error_code: Raw | Unset = UNSET
    error_code_camel: Raw | Unset = _named("errorCode")
    status_code: Raw | Unset = UNSET
    status_code_camel: Raw | Unset = _named("statusCode")
    http_status_code: Raw | Unset = UNSET
    raw_status_code: Raw | Unset = UNSET
    status: Raw | Unset = UNSET
    param: Raw | Unset = UNSET
    # the provider's name of the request
    request_id: Raw | Unset = UNSET
    request_id_camel: Raw | Unset = _named("requestId")
    request_id_capital: Raw | Unset = _named("RequestId")


class _Item(msgspec.Struct, gc=False):
    msg: str
    loc: list[str | int] = []


class _Wrapped(msgspec.Struct, gc=False):
    text: str


_as_members = decoder(_Members)
_as_wrapped = decoder(_Wrapped)
_as_items = decoder(list[_Item])
_as_list = decoder(list[Raw])
_as_fields = decoder(dict[str, list[str]])
_as_text = decoder(str)
_as_status: Callable[[bytes | Raw], int] = decoder(Annotated[int, msgspec.Meta(ge=400, le=599)])  # type: ignore[arg-type]
_as_code: Callable[[bytes | Raw], str | int] = decoder(str | int)  # type: ignore[arg-type]  # a union is no class


def _read(raw: bytes | Raw | Unset, depth: int, *, failed: bool = True) -> _Found | None:
    """What a value says: an object, a text (which may hold an object), a list; None where it says nothing."""
    if depth == 0 or isinstance(raw, Unset):
        return None
    if (text := _try(_as_text, raw)) is not None:
        return _read_nested_text(text, depth)
    if (members := _try(_as_members, raw)) is not None:
        return _read_object(members, depth, failed=failed)
    return _read_list(raw, depth)


def _read_nested_text(text: str, depth: int) -> _Found | None:
    """A text, or the error that somebody put into one; some put words before it."""
    stripped = text.lstrip()
    start = stripped.find("{")
    inner = _read(stripped[start:].strip().encode("utf-8", "replace"), depth - 1) if 0 <= start <= _MAX_LEAD else None
    if inner is None or not inner.message:
        return _Found(message=text) if text.strip() else None
    return inner._replace(message=stripped[:start] + inner.message)


_MAX_LEAD = 200  # characters before the object in a text


def _read_object(top: _Members, depth: int, *, failed: bool) -> _Found | None:
    inner = None
    for raw in (top.error, top.errors, top.fault, top.err, top.capital_error, _unless_well(top.base_resp)):
        inner = inner or _read(raw, depth - 1)
    inner = inner or _read_fields(top.errors) or _read_wrapped(top, depth)
    own = _message(top, depth, failed=failed or inner is not None or _shows_failure(top)) or _Found()
    within = inner if inner is not None and inner.message else own._replace(**_said(inner)) if inner else own
    message = within.message
    if within is inner and own.message and _try(_as_text, top.error) == message:
        within, message = _beside(message, own)
    further = _read(top.metadata, depth - 1) or _read(top.raw, depth - 1)
    if further is not None and further.message and further.message not in message:
        message = f"{message}: {further.message}" if message else further.message
    kind = _first_text(top.type, top.aws_type, top.error_type) or _first_text(top.status)
    found = _Found(
        message,
        within.type or ("" if kind == "error" else kind),
        within.code or _code(top.code, top.error_code, top.error_code_camel, top.capital_code, top.status_code),
        within.param or own.param or _first_text(top.param) or None,
        within.status
        or _status(top.raw_status_code, top.http_status_code, top.status_code, top.status_code_camel, top.status),
        within.request_id or _first_text(top.request_id, top.request_id_camel, top.request_id_capital),
    )
    return found if any(found) else None


def _beside(error: str, own: _Found) -> tuple[_Found, str]:
    """A text as ``error`` names the error, by its status or by a code, where a message stands beside it."""
    if error in own.message:
        return own, own.message
    if _CODE.fullmatch(error):
        return own._replace(code=own.code or error), own.message
    return own, f"{error}: {own.message}"


_CODE = re.compile(r"[a-z0-9]{1,40}(?:[_.-][a-z0-9]{1,40}){1,8}", re.IGNORECASE)


def _read_wrapped(top: _Members, depth: int) -> _Found | None:
    """An error in the envelope that a good answer comes in."""
    head = _try(_as_members, top.header)
    found = _read_object(head, depth - 1, failed=True) if head is not None and _shows_failure(head) else None
    for raw in (top.data, top.result, top.response):
        members = None if found else _try(_as_members, raw)
        if members is not None and is_problem(members.error):
            found = _read_object(members, depth - 1, failed=True)
    return found


def _read_fields(raw: Raw | Unset) -> _Found | None:
    """What is wrong with each member of a request, as a list under the member's name."""
    fields = list((_try(_as_fields, raw) or {}).items())[:_MAX_ITEMS]
    lines = [f"{name}: {'; '.join(texts[:_MAX_ITEMS])}" for name, texts in fields]
    return _Found("; ".join(lines), param=fields[0][0]) if lines else None


def _read_list(raw: bytes | Raw, depth: int) -> _Found | None:
    """The first errors of a list; texts are joined, of objects the first one that says something counts."""
    if items := _try(_as_items, raw):
        lines = [f"{path}: {item.msg}" if (path := _path(item.loc)) else item.msg for item in items[:_MAX_ITEMS]]
        return _Found("; ".join(lines), param=_path(items[0].loc) or None)
    entries = (_try(_as_list, raw) or [])[:_MAX_ITEMS]
    texts = [text for entry in entries if (text := _try(_as_text, entry))]
    if texts:
        return _Found("; ".join(texts))
    return next((found for entry in entries if (found := _read(entry, depth - 1)) is not None), None)


def _said(found: _Found) -> dict[str, Any]:
    """What an error that has no message says nevertheless."""
    return {name: value for name, value in found._asdict().items() if value}


class _Result(msgspec.Struct, gc=False):
    status_code: int = 0


_as_result = decoder(_Result)


def _unless_well(raw: Raw | Unset) -> Raw | Unset:
    """MiniMax's verdict, which stands in good answers too."""
    result = _try(_as_result, raw)
    return raw if result is not None and result.status_code else UNSET


def _shows_failure(top: _Members) -> bool:
    code = _code(top.code)
    return (code not in ("", "0", "200") or _status(top.status, top.status_code, top.status_code_camel) > 0) or any(
        isinstance(raw, Raw)
        for raw in (
            top.error_code,
            top.error_code_camel,
            top.aws_type,
            top.err_msg,
            top.error_msg,
            top.error_message,
            top.error_camel,
        )
    )


def _message(source: _Members, depth: int, *, failed: bool) -> _Found | None:
    """What an object says itself; of a list of validation errors, the path of the wrong member too."""
    is_list = isinstance(source.message, Raw) and memoryview(source.message)[0] == _BRACKET
    in_order = (source.detail, source.message) if is_list else (source.message, source.detail)
    others = (
        *(source.msg, source.error_message, source.error_msg, source.error_description, source.error_camel),
        *(source.capital, source.faultstring, source.status_msg, source.description, source.reason, source.title),
        *(source.err_msg, source.details, source.info, source.cause, source.innererror),
    )
    for raw in (*in_order, *others) if failed else in_order:
        if (found := _read(raw, depth - 1, failed=failed)) is not None and found.message:
            return found
    wrapped = _try(_as_wrapped, source.message) if failed else None
    return _Found(wrapped.text) if wrapped is not None else None


_BRACKET = ord("[")
_ROLES = frozenset({"system", "user", "assistant", "tool"})


def _path(loc: list[str | int]) -> str:
    """``["body", "messages", 0, "user", "name"]`` as ``messages[0].name``: the role only says which type was tried."""
    path = ""
    for before, step in zip([None, *loc], loc, strict=False):
        if isinstance(step, int):
            path += f"[{step}]"
        elif not (step == "body" and not path) and not (isinstance(before, int) and step in _ROLES):
            path += f".{step}" if path else step
    return path


def _first_text(*raws: Raw | Unset) -> str:
    return next((text for raw in raws if (text := _try(_as_text, raw))), "")


def _code(*raws: Raw | Unset) -> str:
    return next((str(code) for raw in raws if (code := _try(_as_code, raw)) not in (None, "")), "")


def _status(*raws: Raw | Unset) -> int:
    return next((status for raw in raws if (status := _try(_as_status, raw)) is not None), 0)


def _try(decode: Callable[[bytes | Raw], T], raw: bytes | Raw | Unset) -> T | None:
    if isinstance(raw, Unset):
        return None
    try:
        return decode(raw)
    except UNREADABLE:
        return None


# --- pages and plain text -----------------------------------------------------------------------------------

_UNSEEN = ("script", "style", "head")  # parts of a page that nobody reads
_TAG = re.compile(r"<[^<>]*>")
_XML = {
    name: re.compile(rf"<(?:\w{{1,20}}:)?{name}(?: [^<>]{{0,200}})?>([^<]{{1,2000}})</", re.IGNORECASE)
    for name in ("message", "code", "requestid", "title")
}


_QUOTED = r"""(?:"((?:[^"\\]|\\.){1,2000})|'((?:[^'\\]|\\.){1,2000}))"""
_BROKEN_MESSAGE = re.compile(
    rf"""(?i:["'](?:message|msg|detail|error|error_?msg|error_?message|error_description)["'])\s{{0,4}}:\s{{0,4}}{_QUOTED}""",
    re.DOTALL,
)
_BROKEN_WORD = {
    name: re.compile(rf"""["']{name}["']\s{{0,4}}:\s{{0,4}}["']?([\w.-]{{1,100}})""") for name in ("type", "code")
}


def _read_text(body: bytes, *, failed: bool) -> _Found:
    """A page or a plain text without its tags; of broken JSON, what stands behind a message's name."""
    text = body[:MAX_READ].decode("utf-8", "replace").strip("\ufeff \t\r\n")
    if text.startswith(("{", "[", '"')):
        return _read_broken(without_echo(text)) if failed else _Found()
    if not text.startswith("<"):
        return _Found(" ".join(text.split()))
    parts = {name: html.unescape(match[1].strip()) for name, find in _XML.items() if (match := find.search(text))}
    if message := parts.get("message"):
        return _Found(message, code=parts.get("code", ""), request_id=parts.get("requestid", ""))
    seen = text
    for name in _UNSEEN:
        seen = _without_element(seen, name)
    words = " ".join(html.unescape(_TAG.sub(" ", seen)).split())
    return _Found(words or parts.get("title", ""))


def _read_broken(text: str) -> _Found:
    messages = [match[1] or match[2] for match in _BROKEN_MESSAGE.finditer(text)][:2]
    message = "; ".join(dict.fromkeys(as_said(found.encode("utf-8", "replace")).strip() for found in messages))
    words = {name: match[1] for name, find in _BROKEN_WORD.items() if (match := find.search(text))}
    return _Found(message, words.get("type", ""), words.get("code", ""))


def _without_element(page: str, name: str) -> str:
    """The page without the elements of this name; one that never ends goes to the end of the page."""
    lower, kept, start = page.lower(), [], 0
    while (begin := lower.find(f"<{name}", start)) >= 0:
        kept.append(page[start:begin])
        if (end := lower.find(f"</{name}", begin)) < 0 or (start := lower.find(">", end) + 1) == 0:
            return "".join(kept)
    return "".join((*kept, page[start:]))


# --- heads --------------------------------------------------------------------------------------------------

_ID_HEADERS = (
    *(b"x-request-id", b"request-id", b"mistral-correlation-id", b"x-correlation-id", b"x-ms-request-id"),
    *(b"apim-request-id", b"x-amzn-requestid", b"x-amz-request-id", b"x-goog-request-id", b"x-ds-trace-id"),
    *(b"x-trace-id", b"x-kong-request-id", b"cf-ray", b"fly-request-id", b"x-vercel-id"),
)
"""Where providers, and the front doors that they stand behind, name a request; in the order of their worth."""


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The provider's own id of a request, by the head of its answer; empty where it has none."""
    for name in _ID_HEADERS:
        if (value := headers.get(name)) and (found := clean_id(value.decode("latin-1"))):
            return found
    return ""
