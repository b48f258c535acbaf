"""Why an attempt failed, sorted by a provider's status, headers and error object.

What a provider says about the client's request is told to the client; what it says about its own state or about an
account goes to the log and the ledger (``UpstreamFailure.said``), all of it cleaned.
"""

import re
from collections.abc import Mapping

import msgspec

from tollway.domain.failures import OF_THE_REQUEST, OWN_WORDS, FailureKind, Said, UpstreamFailure
from tollway.providers.problem import MAX_BODY, Problem, is_problem, read_problem, request_id_of
from tollway.providers.retry_after import retry_after_s
from tollway.providers.verdicts import is_about_the_key, is_too_long, is_unpaid, speaks_of_an_account
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, is_null

__all__ = [
    "GAVE_UP",
    "NO_ANSWER",
    "Problem",
    "classify",
    "failure",
    "is_problem",
    "no_answer",
    "read_problem",
    "told_alone",
]

NO_ANSWER = UpstreamFailure(FailureKind.INVALID, OWN_WORDS[FailureKind.INVALID], 200)

GAVE_UP = UpstreamFailure(FailureKind.INVALID, "The provider gave up in the middle of its answer.", 200)
"""What the reason to end ``error`` means, which is none of OpenAI's."""


def classify(status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
    """The failure that an answer with an error status means."""
    problem = read_problem(body, failed=True)
    problem = problem._replace(request_id=request_id_of(headers) or problem.request_id)
    told = retry_after_s({}, problem.words, body)
    wait_s = retry_after_s(headers)
    return failure(status, problem, told if wait_s is None else wait_s, in_words=told is not None)


def gave_up(data: bytes) -> UpstreamFailure:
    """What an answer means, or a chunk, where a choice ends with ``error``; some have the error itself beside it."""
    try:
        raw = next(choice.error for choice in _as_choices(data).choices if is_problem(choice.error))
    except (*UNREADABLE, StopIteration):
        return GAVE_UP
    assert isinstance(raw, Raw)
    problem = read_problem(raw, failed=True)
    return failure(200, problem) if problem.message else GAVE_UP


class _Top(msgspec.Struct, gc=False):
    error: Raw | Unset = UNSET


class _Choices(msgspec.Struct, gc=False):
    choices: list[_Top]


_as_top = decoder(_Top)
_as_tops = decoder(list[_Top])
_as_choices = decoder(_Choices)


def no_answer(body: bytes) -> UpstreamFailure:
    """What an answer means that has a good status and is none: an error object, an error in plain words, or junk."""
    try:
        marked = is_problem(_as_top(body).error)
    except UNREADABLE:
        return in_words(body) or NO_ANSWER
    problem = told_alone(body) or read_problem(body)
    return failure(200, problem) if marked or problem.message else NO_ANSWER


class _Verdict(msgspec.Struct, gc=False):
    """What an object without an answer says of itself, beside its message."""

    choices: Raw | Unset = UNSET
    success: Raw | Unset = UNSET
    status: Raw | Unset = UNSET
    type: Raw | Unset = UNSET
    exception: Raw | Unset = UNSET
    code: Raw | Unset = UNSET
    error_code: Raw | Unset = UNSET
    err_msg: Raw | Unset = UNSET
    details: Raw | Unset = UNSET


_as_verdict = decoder(_Verdict)
_BAD_STATUS = re.compile(rb'"?[45]\d\d"?|"(?:error|err|fail|failed|failure)"', re.IGNORECASE)
_WELL = re.compile(rb'"?(?:0|2\d\d|ok|true|success|succeeded|completed|done)"?', re.IGNORECASE)
_FALSE = re.compile(rb'"?(?:0|false)"?', re.IGNORECASE)


def told_alone(data: bytes, *, expected: bool = False) -> Problem | None:
    """The failure that an object without an answer tells, if that is what it does.

    One that only has a message is an error, unless it says that all is well, or has a place for choices, or is
    ``expected``: then nothing is missing. One that says that it failed is an error in any case.
    """
    try:
        said = _as_verdict(data)
    except UNREADABLE:
        return None
    if (
        _is(_FALSE, said.success)
        or _is(_BAD_STATUS, said.status)
        or _is(_BAD_STATUS, said.type)
        or is_problem(said.exception)
    ):
        return _in_other_words(read_problem(data, failed=True), said)
    if any(_is(_WELL, raw) for raw in (said.success, said.status, said.code, said.error_code)):
        return None
    if _is_there(said.code) or _is_there(said.error_code):
        problem = _in_other_words(read_problem(data, failed=True), said)
    else:
        problem = Problem() if expected or _is_there(said.choices) else read_problem(data)
    return problem if problem.message else None


def _is(kind: re.Pattern[bytes], raw: Raw | Unset) -> bool:
    return isinstance(raw, Raw) and kind.fullmatch(bytes(raw)) is not None


def _is_there(raw: Raw | Unset) -> bool:
    return isinstance(raw, Raw) and not is_null(raw)


def _in_other_words(problem: Problem, said: _Verdict) -> Problem:
    """The problem with a message that stands where only few servers put it."""
    for raw in () if problem.message else (said.err_msg, said.details, said.exception):
        if isinstance(raw, Raw) and (other := read_problem(raw, failed=True)).message:
            return problem._replace(message=other.message, words=problem.words + other.words)
    return problem


_MAX_PLAIN = 2_000
"""Bytes of a plain text that is taken for an error; pages are longer."""


def in_words(data: bytes) -> UpstreamFailure | None:
    """The failure where an error is a text of at least two words, a list of them or a page, or stands in a list, as
    Google's do; None for everything else."""
    text = data.lstrip()
    if len(data) > MAX_BODY or text.startswith(b"{"):
        return None
    try:
        marked = any(is_problem(top.error) for top in _as_tops(data)[:1])
    except UNREADABLE:  # no list of objects
        if len(data) > _MAX_PLAIN and not text.startswith(b"<"):
            return None
        problem = read_problem(data)
        if " " not in problem.message or problem.message.startswith(("{", "[")):
            return None
        failed = failure(200, problem)
        is_sorted = failed.kind is not FailureKind.SERVER
        return failed if is_sorted else msgspec.structs.replace(NO_ANSWER, said=failed.said)
    return failure(200, read_problem(data)) if marked else None


def failure(status: int, problem: Problem, wait_s: float | None = None, *, in_words: bool = False) -> UpstreamFailure:
    """The failure that an error object means; status 200 for one that came inside a good answer or a stream.

    ``in_words``: the error itself says when to come back, and not just a header, which some put on every 429.
    """
    within = status == 200
    if within:
        status = int(problem.code) if _STATUS.fullmatch(problem.code) else problem.status
        wait_s = retry_after_s({}, problem.words)
        in_words = wait_s is not None
    kind = _kind(status, problem, within=within, waits=in_words)
    of_an_account = speaks_of_an_account(problem.words)
    said = Said(problem.message, problem.code, problem.type, problem.request_id, of_an_account)
    if kind is FailureKind.QUOTA:  # waiting brings no money
        code = problem.code if problem.code in _SPENT_CODES else None
        return UpstreamFailure(kind, OWN_WORDS[kind], status=status, code=code, said=said)
    if kind not in OF_THE_REQUEST:
        return UpstreamFailure(kind, OWN_WORDS[kind], status=status, retry_after_s=wait_s, said=said)
    refused, param = problem.code or None, problem.param
    if kind is FailureKind.CONTEXT:
        refused, param = "context_length_exceeded", param or "messages"
    elif kind is FailureKind.CONTENT:
        refused = "content_filter"
    elif refused == str(status):  # which says nothing that the status does not say
        refused = None
    if status == 413 and kind is FailureKind.REQUEST:
        refused = refused or "request_too_large"
    message = problem.message or OWN_WORDS[kind]
    return UpstreamFailure(kind, message, status=status, code=refused, param=param, said=said)


# --- sorting ------------------------------------------------------------------------------------------------

_STATUS = re.compile(r"[45]\d\d")
_OF_THE_KEYS_OWN_ACCOUNT = {
    FailureKind.BUSY: "The rate limit of the API key's own account at {} is reached.",
    FailureKind.QUOTA: "The API key's own account at {} has no money or no quota left.",
    FailureKind.CREDENTIAL: "The provider refused the API key's own provider key for {}.",
}


def with_own_key(failed: UpstreamFailure, provider: str) -> UpstreamFailure:
    """The failure of a call that was made with the virtual key's own provider key: said so, where it matters."""
    words = _OF_THE_KEYS_OWN_ACCOUNT.get(failed.kind)
    message = failed.message if words is None else words.format(provider)
    return msgspec.structs.replace(failed, message=message, own_key_at=provider)


_SPENT_CODES = frozenset(
    {
        "insufficient_quota",
        "credit_balance_exhausted",
        "billing_hard_limit_reached",
        "billing_not_active",
        "spend_limit_reached",
    }
)
"""OpenAI's own words for it, which clients know: they are told on. All others become ``insufficient_quota``."""

_SPEND_LIMIT = ("spend_limit_reached", "spend_limit_exceeded")  # of an organisation, a workspace, a month …

# Words that stand in `type` or `code`; they mean the same whatever the status. In order: the first match decides.
_BY_WORD: tuple[tuple[FailureKind, frozenset[str]], ...] = (
    (
        FailureKind.QUOTA,
        _SPENT_CODES
        | {
            *("billing_error", "payment_required", "arrearage", "exceeded_current_quota_error", "insufficient_balance"),
            *(
                "insufficient_credits",
                "insufficient_funds",
                "insufficient_user_quota",
                "credit_balance_too_low",
                "1113",
            ),
        },
    ),
    (
        FailureKind.CONTEXT,
        frozenset(
            {
                *("context_length_exceeded", "exceed_context_size_error", "model_context_window_exceeded"),
                *("context_window_exceeded", "prompt_too_long", "tokens_limit_reached"),
            }
        ),
    ),
    (FailureKind.CONTENT, frozenset({"content_filter", "content_policy_violation", "moderation_blocked"})),
    (FailureKind.MODEL, frozenset({"model_not_found", "invalid_model", "unknown_model", "1500"})),
)

_RATE_WORDS = frozenset({"rate_limit_exceeded", "rate_limit_error", "rate_limited", "slow_down"})

# Words that decide only within a good answer or a stream, where there is no status or one that is told second-hand.
_BY_WORD_WITHIN: tuple[tuple[FailureKind, frozenset[str]], ...] = (
    (
        FailureKind.BUSY,
        _RATE_WORDS | {"requests", "tokens", "1300", "resource_exhausted", "throttlingexception", "too_many_requests"},
    ),
    (
        FailureKind.CREDENTIAL,
        frozenset(
            {"invalid_api_key", "authentication_error", "permission_error", "unauthenticated", "permission_denied"}
        ),
    ),
    (FailureKind.TIMEOUT, frozenset({"timeout", "timeout_error", "deadline_exceeded"})),
    (FailureKind.REQUEST, frozenset({"invalid_request_error", "invalid_argument", "validationexception"})),
)

_BY_STATUS = {
    400: FailureKind.REQUEST,
    401: FailureKind.CREDENTIAL,
    402: FailureKind.QUOTA,
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

_ABOUT_LENGTH = frozenset({0, 400, 413, 422, 500, 502, 503})
"""Statuses with which servers say that a prompt is too long; some call it a failure of their own."""

_ABOUT_MONEY = frozenset({0, 400, 401, 403, 412, 422, 429})

_GUARDRAIL = re.compile(r"blocked by guardrail|content management policy|content policy", re.IGNORECASE)


def _kind(status: int, problem: Problem, *, within: bool, waits: bool) -> FailureKind:
    words = {problem.type.lower(), problem.code.lower()}
    if status < 500:
        for kind, of_kind in _BY_WORD:
            if words & of_kind:
                return kind
        if any(word.endswith(_SPEND_LIMIT) for word in words):
            return FailureKind.QUOTA
    if status == 413 and words & _RATE_WORDS:
        return FailureKind.BUSY  # more than the account may ever send in a minute: another target may take it
    if status in _ABOUT_LENGTH and is_too_long(problem.words):
        return FailureKind.CONTEXT
    if status in _ABOUT_MONEY and is_unpaid(problem.words, waits=waits):
        return FailureKind.QUOTA
    if status in (0, 400, 403, 422) and _GUARDRAIL.search(problem.message):
        return FailureKind.CONTENT
    if status in (0, 400) and is_about_the_key(problem.words):
        return FailureKind.CREDENTIAL
    if within:
        for kind, of_kind in _BY_WORD_WITHIN:
            if words & of_kind and not (status and kind is FailureKind.REQUEST):
                return kind
    if 200 <= status < 400:
        return FailureKind.INVALID  # redirects are not followed
    return _BY_STATUS.get(status, FailureKind.SERVER)
