"""Why an attempt failed, read from a provider's status, headers and error object.

The shapes are those of OpenAI, of servers that copy it, and of Mistral with its several front ends:

    {"error": {"message", "type", "param", "code"}}      {"error": "text"}
    {"object": "error", "message", "type", "code"}       {"message": "text"}        {"detail": "text"}
    {"message": {"detail": [item, …]}}                   {"detail": [item, …]}      with item = {"loc", "msg", "input"}

What a provider says about its own state is never shown, only sorted. What it says about the client's request is shown
after :func:`clean`; the ``input`` of an item, which echoes what the client sent, never is.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple, TypeVar

import msgspec

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.providers.retry_after import retry_after_s
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder

T = TypeVar("T")

NO_ANSWER = UpstreamFailure(FailureKind.INVALID, "The provider answered with something that is no answer.", 200)

GAVE_UP = UpstreamFailure(FailureKind.INVALID, "The provider gave up in the middle of its answer.", 200)
"""What the reason to end ``error`` means, which is none of OpenAI's."""


class Problem(NamedTuple):
    """A provider's error object, its members cleaned; empty texts where it said nothing."""

    message: str = ""
    type: str = ""
    code: str = ""
    param: str | None = None
    status: int = 0
    """As the object says it; 0 where it does not."""


def classify(status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
    """The failure that an answer with an error status means."""
    problem = read_problem(body) if len(body) <= _MAX_BODY else Problem()
    return failure(status, problem, retry_after_s(headers, problem.message))


def no_answer(body: bytes) -> UpstreamFailure:
    """What an answer means that has a good status and is none: an error object, or junk."""
    top = _try(_as_members, body)
    if top is None:
        return NO_ANSWER
    problem = read_problem(body)
    return failure(200, problem) if is_problem(top.error) or problem.message else NO_ANSWER


def failure(status: int, problem: Problem, wait_s: float | None = None) -> UpstreamFailure:
    """The failure that an error object means; status 200 for one that came inside a good answer or a stream."""
    within = status == 200
    if within:
        status = int(problem.code) if _STATUS.fullmatch(problem.code) else problem.status
    kind = _kind(status, problem, within=within)
    if kind is FailureKind.QUOTA:  # waiting brings no money
        code = problem.code if problem.code in _SPENT_CODES else None
        return UpstreamFailure(kind, _OWN_WORDS[kind], status=status, code=code)
    if kind not in _OF_THE_REQUEST:
        return UpstreamFailure(kind, _OWN_WORDS[kind], status=status, retry_after_s=wait_s)
    refused, param = problem.code or None, problem.param
    if kind is FailureKind.CONTEXT:
        refused, param = "context_length_exceeded", param or "messages"
    elif kind is FailureKind.CONTENT:
        refused = "content_filter"
    elif status == 413:
        refused = refused or "request_too_large"
    message = problem.message or _OWN_WORDS[kind]
    return UpstreamFailure(kind, message, status=status, code=refused, type="invalid_request_error", param=param)


# --- sorting ------------------------------------------------------------------------------------------------

_STATUS = re.compile(r"[45]\d\d")
_OF_THE_REQUEST = frozenset({FailureKind.REQUEST, FailureKind.CONTEXT, FailureKind.CONTENT})

_OWN_WORDS = {
    FailureKind.INVALID: "The provider answered with something that is no answer.",
    FailureKind.TIMEOUT: "The provider took too long.",
    FailureKind.BUSY: "The provider's rate limit is reached.",
    FailureKind.QUOTA: "The quota at the provider is used up.",
    FailureKind.CREDENTIAL: "The provider refused the gateway's credential.",
    FailureKind.MODEL: "The provider does not know the model.",
    FailureKind.SERVER: "The provider failed.",
    FailureKind.CONTEXT: "The prompt is longer than the model's context.",
    FailureKind.CONTENT: "The provider's content filter refused the request.",
    FailureKind.REQUEST: "The provider refused the request.",
}

_SPENT_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "billing_not_active",
        "spend_limit_reached",
    }
)
_SPEND_LIMIT = "spend_limit_reached"  # of an organisation, a workspace, a month …

# Words that stand in `type` or `code`; they mean the same whatever the status. In order: the first match decides.
_BY_WORD: tuple[tuple[FailureKind, frozenset[str]], ...] = (
    (FailureKind.QUOTA, _SPENT_CODES),
    (FailureKind.CONTEXT, frozenset({"context_length_exceeded"})),
    (FailureKind.CONTENT, frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})),
    (FailureKind.MODEL, frozenset({"model_not_found", "invalid_model", "unknown_model", "1500"})),
)

# Words that decide only within a good answer or a stream, where there is no status or one that is told second-hand.
_BY_WORD_WITHIN: tuple[tuple[FailureKind, frozenset[str]], ...] = (
    (
        FailureKind.BUSY,
        frozenset(
            {"rate_limit_exceeded", "rate_limit_error", "rate_limited", "requests", "tokens", "slow_down", "1300"}
        ),
    ),
    (FailureKind.CREDENTIAL, frozenset({"invalid_api_key", "authentication_error", "permission_error"})),
    (FailureKind.TIMEOUT, frozenset({"timeout", "timeout_error"})),
    (FailureKind.REQUEST, frozenset({"invalid_request_error"})),
)

_BY_STATUS = {
    400: FailureKind.REQUEST,
    401: FailureKind.CREDENTIAL,
    402: FailureKind.CREDENTIAL,
    403: FailureKind.CREDENTIAL,
    404: FailureKind.MODEL,
    405: FailureKind.MODEL,  # a wrong base address answers so
    408: FailureKind.TIMEOUT,
    410: FailureKind.MODEL,
    413: FailureKind.REQUEST,
    422: FailureKind.REQUEST,
    429: FailureKind.BUSY,
    504: FailureKind.TIMEOUT,
}

_TOO_LONG = re.compile(
    r"too large for model with|maximum context length|context length exceeded|exceeds? the (?:model's )?context"
    r"|context window|prompt is too long",
    re.IGNORECASE,
)
_GUARDRAIL = re.compile(r"blocked by guardrail|content management policy|content policy", re.IGNORECASE)


def _kind(status: int, problem: Problem, *, within: bool) -> FailureKind:
    words = {problem.type, problem.code}
    if status < 500:
        for kind, of_kind in _BY_WORD:
            if words & of_kind:
                return kind
        if any(word.endswith(_SPEND_LIMIT) for word in words):
            return FailureKind.QUOTA
        if status in (0, 400, 413, 422) and _TOO_LONG.search(problem.message):
            return FailureKind.CONTEXT
        if status in (0, 400, 403, 422) and _GUARDRAIL.search(problem.message):
            return FailureKind.CONTENT
    if within:
        for kind, of_kind in _BY_WORD_WITHIN:
            if words & of_kind and not (status and kind is FailureKind.REQUEST):
                return kind
    if 200 <= status < 400:
        return FailureKind.INVALID  # redirects are not followed
    return _BY_STATUS.get(status, FailureKind.SERVER)


# --- reading ------------------------------------------------------------------------------------------------

_MAX_BODY = 1024 * 1024  # no error object is longer; HTML pages and echoes are
_MAX_ITEMS = 4  # of a list of validation errors: the first ones tell what is wrong


class _Members(msgspec.Struct, gc=False):
    error: Raw | Unset = UNSET
    message: Raw | Unset = UNSET
    detail: Raw | Unset = UNSET
    type: Raw | Unset = UNSET
    code: Raw | Unset = UNSET
    param: Raw | Unset = UNSET
    status: Raw | Unset = UNSET
    raw_status_code: Raw | Unset = UNSET


class _Item(msgspec.Struct, gc=False):
    loc: list[str | int] = []
    msg: str = ""


_as_members = decoder(_Members)
_as_items = decoder(list[_Item])
_as_text = decoder(str)
_as_status: Callable[[bytes | Raw], int] = decoder(Annotated[int, msgspec.Meta(ge=400, le=599)])  # type: ignore[arg-type]
_as_code: Callable[[bytes | Raw], str | int] = decoder(str | int)  # type: ignore[arg-type]  # a union is no class


def read_problem(body: bytes | Raw) -> Problem:
    """The error object in any of the known shapes. Junk gives an empty one."""
    top = _try(_as_members, body)
    if top is None:
        return Problem(message=_raw_text(bytes(body)))
    inner = _try(_as_members, top.error)
    source = top if inner is None else inner
    message, param = _message(source)
    if not message and inner is None:
        message = _try(_as_text, top.error) or ""
    return Problem(
        clean(message),
        clean(_try(_as_text, source.type) or ""),
        clean(_text_of_code(source.code)),
        clean(param or _try(_as_text, source.param) or "") or None,
        _try(_as_status, source.raw_status_code) or _try(_as_status, source.status) or 0,
    )


def is_problem(raw: Raw | Unset) -> bool:
    """Whether the ``error`` member of an answer holds an error; some servers send an empty one with each answer."""
    return type(raw) is Raw and bytes(raw) not in (b"null", b'""', b"{}", b"false")


def _message(source: _Members) -> tuple[str, str | None]:
    """The text, and the path of the wrong member where the text came from a list of validation errors."""
    if text := _try(_as_text, source.message):
        return text, None
    nested = _try(_as_members, source.message)
    for raw in (UNSET if nested is None else nested.detail, source.detail, source.message):
        if text := _try(_as_text, raw):
            return text, None
        if items := _try(_as_items, raw):
            lines = [f"{path}: {item.msg}" if (path := _path(item.loc)) else item.msg for item in items[:_MAX_ITEMS]]
            return "; ".join(lines), _path(items[0].loc) or None
    return "", None


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


def _text_of_code(raw: Raw | Unset) -> str:
    code = _try(_as_code, raw)
    return "" if code is None else str(code)


# One that is never closed hides all that follows; so no text is looked at twice.
_HIDDEN = re.compile(rb"<(script|style|head)\b(?:[^<]++|<(?!/\1\s*+>))*+(?:</\1\s*+>)?+", re.IGNORECASE)
_TAG = re.compile(rb"<[^<>]*>")


def _raw_text(body: bytes) -> str:
    """A page or a plain text without its tags; broken JSON says nothing to a client."""
    start = body[:_MAX_READ].lstrip()
    if start.startswith((b"{", b"[")):
        return ""
    text = _TAG.sub(b" ", _HIDDEN.sub(b" ", start)) if start.startswith(b"<") else start
    return clean(" ".join(text.decode("utf-8", "replace").split()))


def _try(decode: Callable[[bytes | Raw], T], raw: bytes | Raw | Unset) -> T | None:
    if isinstance(raw, Unset):
        return None
    try:
        return decode(raw)
    except UNREADABLE:
        return None


# --- cleaning -----------------------------------------------------------------------------------------------

_MAX_READ = 4_000
_MAX_SHOWN = 500

_SECRET = re.compile(
    r"\bsk-[\w*.-]+"  # OpenAI's keys and ours
    r"|\bbearer\s+\S+"
    r"|(?<![\w-])(?=[a-z_-]*\d)[\w-]{28,}"  # Mistral's keys are 32 letters and digits, without a prefix
    r"|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?",  # addresses
    re.IGNORECASE,
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def clean(text: str) -> str:
    """A provider's text as a client or a log may see it: secrets and addresses masked, one line, at most 500 long."""
    text = _CONTROL.sub(" ", _SECRET.sub("***", text[:_MAX_READ])).strip()
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
