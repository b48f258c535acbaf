"""Answers that pass as they are: what a refusal among them means, and what is known of a stream before it goes on."""

import json

import pytest
from msgspec.structs import replace

from fakes.usages import told
from tollway.domain.failures import FailureKind
from tollway.domain.usage import Usage
from tollway.providers.passage import MAX_CLEANED, MAX_TEXTS, ErrorCleaner, PassageStream, judge

EVENTS = b"text/event-stream"
COMPLETED = b'data: {"type":"response.completed","response":{"usage":{"input_tokens":3,"output_tokens":4}}}\n\n'
CREATED = b'data: {"type":"response.created"}\n\n'
ERROR = b'data: {"type":"error","code":"rate_limit_exceeded","message":"slow down"}\n\n'


def body(**error: object) -> bytes:
    return json.dumps({"error": {"message": "no", **error}}).encode()


@pytest.mark.parametrize(
    ("status", "own_key", "names_object", "kind"),
    [
        (400, False, False, FailureKind.REQUEST),
        (405, False, False, FailureKind.REQUEST),
        (410, False, False, FailureKind.REQUEST),
        (413, False, False, FailureKind.REQUEST),
        (422, False, False, FailureKind.REQUEST),
        (401, True, True, FailureKind.CREDENTIAL),
        (402, True, True, FailureKind.QUOTA),
        (403, False, True, FailureKind.CREDENTIAL),
        (403, True, False, FailureKind.REQUEST),
        (404, True, False, FailureKind.MODEL),
        (404, True, True, FailureKind.REQUEST),
        (409, True, False, FailureKind.SERVER),
        (409, True, True, FailureKind.REQUEST),
        (408, True, True, FailureKind.TIMEOUT),
        (429, True, True, FailureKind.BUSY),
        (500, True, True, FailureKind.SERVER),
    ],
)
def test_whose_fault_a_refusal_is(status: int, own_key: bool, names_object: bool, kind: FailureKind) -> None:
    failure = judge(status, {}, body(), own_key=own_key, names_object=names_object)
    assert (failure.kind, failure.status) == (kind, status)


def test_the_clients_own_mistake_is_told_in_the_providers_words() -> None:
    said = body(message="No such file, sk-abc123", code="missing", param="id")
    failure = judge(404, {}, said, own_key=True, names_object=True)
    assert (failure.message, failure.code, failure.param) == ("No such file, ***", "missing", "id")
    failure = judge(404, {}, b"", own_key=True, names_object=True)
    assert (failure.message, failure.code, failure.param) == ("The provider refused the request.", None, None)


def test_words_that_say_more_than_the_status_count_first() -> None:
    assert judge(400, {}, body(code="insufficient_quota"), own_key=True, names_object=True).kind is FailureKind.QUOTA
    too_long = judge(400, {}, body(code="context_length_exceeded"), own_key=True, names_object=True)
    assert (too_long.kind, too_long.code) == (FailureKind.CONTEXT, "context_length_exceeded")


def test_what_a_stream_cost_is_known_when_its_last_event_passes() -> None:
    stream = PassageStream(EVENTS)
    assert stream.feed(CREATED + COMPLETED[:-1]) == CREATED
    assert (stream.started, stream.settled, stream.done) == (True, False, False)
    assert stream.feed(COMPLETED[-1:] + b": x") == COMPLETED
    assert (stream.settled, stream.done, stream.usage) == (True, True, told(3, 4))
    assert (stream.close(), stream.failure) == (b": x", None)


def test_an_error_that_comes_first_leaves_the_way_to_another_provider_open() -> None:
    stream = PassageStream(EVENTS)
    stream.feed(ERROR)
    assert stream.failure is not None
    assert (stream.started, stream.failure.kind) == (False, FailureKind.BUSY)


def test_an_error_that_comes_later_passes_and_is_remembered() -> None:
    stream = PassageStream(EVENTS)
    assert stream.feed(CREATED) + stream.feed(ERROR) == CREATED + ERROR
    assert stream.failure is not None
    assert (stream.started, stream.settled, stream.done) == (True, True, False)


def test_an_object_that_holds_an_error_is_an_answer() -> None:
    """A response that failed is fetched like any other."""
    stream = PassageStream(b"application/json")
    answer = b'{"status":"failed","error":{"code":"server_error"},"usage":null}'
    assert stream.feed(answer) + stream.close() == answer
    assert (stream.failure, stream.finished, stream.usage) == (None, True, None)


RESPONSE = {"model": "gpt-x", "service_tier": "priority", "usage": {"input_tokens": 3, "output_tokens": 4}}


@pytest.mark.parametrize("content_type", [EVENTS, b"application/json"])
def test_the_tier_and_the_model_that_an_answer_names_are_read(content_type: bytes) -> None:
    stream = PassageStream(content_type)
    if content_type == EVENTS:
        created = {"type": "response.created", "response": {**RESPONSE, "service_tier": "auto", "usage": None}}
        completed = {"type": "response.completed", "response": RESPONSE}
        stream.feed(b"data: %b\n\n" % json.dumps(created).encode())
        assert (stream.usage, stream.answered_model) == (None, "gpt-x")
        stream.feed(b"data: %b\n\n" % json.dumps(completed).encode())
    else:
        stream.feed(json.dumps(RESPONSE).encode())
    assert stream.usage == replace(told(3, 4), service_tier="priority")
    assert stream.answered_model == "gpt-x"


SEARCHED = {**RESPONSE, "output": [{"type": "web_search_call", "action": {"type": "search"}}] * 20}


@pytest.mark.parametrize("usage", [RESPONSE["usage"], None])
def test_what_was_searched_for_a_response_in_a_stream_is_used(usage: object) -> None:
    stream = PassageStream(EVENTS)
    response = {**SEARCHED, "service_tier": None, "usage": usage}
    stream.feed(b"data: %b\n\n" % json.dumps({"type": "response.completed", "response": response}).encode())
    tokens = Usage(0, 0) if usage is None else told(3, 4)
    assert stream.usage == replace(tokens, others={"web_searches": 20})


def test_searches_that_a_usage_tells_itself_are_not_counted_again() -> None:
    stream = PassageStream(b"application/json")
    stream.feed(b'{"usage":{"input_tokens":3,"output_tokens":4,"server_tool_use":{"web_search_requests":2}}}')
    stream.add({"web_searches": 3, "storage_searches": 1})
    assert stream.usage == replace(told(3, 4), others={"web_searches": 2, "storage_searches": 1})


@pytest.mark.parametrize("name", [None, 3, "", "x" * 257, "a\nb", {}])
def test_a_model_that_is_not_fit_to_be_written_down_is_none(name: object) -> None:
    stream = PassageStream(b"application/json")
    stream.feed(json.dumps({**RESPONSE, "model": name}).encode())
    assert stream.answered_model == ""


def test_what_is_fetched_again_was_used_before() -> None:
    stream = PassageStream(b"application/json", metered=False)
    stream.feed(b'{"usage":{"input_tokens":3,"output_tokens":4}}')
    assert (stream.settled, stream.usage) == (True, None)


def hide(text: str) -> str:
    return text.replace("hush", "***")


def cleaned(events: bytes) -> bytes:
    return ErrorCleaner(hide).clean(events)


FAILED = {
    "type": "response.failed",
    "response": {"id": "r", "output": ["hush"], "error": {"code": "c", "message": "{}"}},
}


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (
            {"type": "error", "code": "c", "message": "hush at 10.0.0.7"},
            {"type": "error", "code": "c", "message": "*** at ***"},
        ),
        (
            {"error": {"message": "see http://x.y", "at": [["hush"]]}},
            {"error": {"message": "see ***", "at": [["***"]]}},
        ),
        ({"error": "sk-abc123"}, {"error": "***"}),
    ],
)
def test_an_error_event_that_passes_is_cleaned(event: object, shown: object) -> None:
    for name in (b"", b"event: error\n"):
        out = cleaned(b"%bdata: %b\n\n" % (name, json.dumps(event).encode()))
        assert out.startswith(name + b"data: ") and out.endswith(b"\n\n")
        assert json.loads(out.removeprefix(name)[6:]) == shown


def test_of_a_failed_response_only_the_error_is_touched() -> None:
    text = json.dumps(FAILED).replace("{}", "hush at 10.0.0.7")
    out = cleaned(b": x\nevent: response.failed\ndata: " + text.encode() + b"\n\n")
    assert json.loads(out.partition(b"data: ")[2]) == {
        **FAILED,
        "response": {"id": "r", "output": ["hush"], "error": {"code": "c", "message": "*** at ***"}},
    }


@pytest.mark.parametrize(
    "events",
    [
        CREATED + ERROR,
        b"data: [DONE]\n\n",
        b'event:error\r\ndata:{"type": "error",  "message":"no"}\r\n\r\n',
        b"data: hush at 10.0.0.7\n\n",
        b'data: {"delta":"hush at 10.0.0.7"}\n\n',
        b"",
    ],
)
def test_where_nothing_is_to_be_hidden_events_pass_to_the_byte(events: bytes) -> None:
    assert cleaned(events) == events


def test_an_error_event_that_is_a_text_is_cleaned_too() -> None:
    assert cleaned(b"event: error\ndata: hush at 10.0.0.7\n\n") == b"event: error\ndata: *** at ***\n\n"


def error_of(value: object) -> bytes:
    return b"data: %b\n\n" % json.dumps({"error": value}).encode()


OTHER = b'data: {"a": "fine"}\n\n'


@pytest.mark.parametrize(
    "event",
    [
        error_of([""] * (MAX_TEXTS + 1)),
        error_of({"message": "hush " + "x" * MAX_CLEANED}),
        error_of([[[["hush"]]]] + [0] * MAX_CLEANED),
        b"event: error\n" + error_of({"hush": ["hush"] * 100_000}),
        b"event: error\ndata: " + json.dumps({f"m{number}": "hush" for number in range(100)}).encode() + b"\n\n",
        b'data: {"error": "hush", "a": [' + b"0," * 50_000 + b"0]}\n\n",
        b'data: {"error": "hush", "a": "' + b"x" * (1 << 20) + b'"}\n\n',
        b'data: {"error": ' + b"[" * 500 + b'"hush"' + b"]" * 500 + b"}\n\n",
        b'data: {"response": {"error": ' + b"[0, " * 300 + b'"hush"' + b"]" * 300 + b"}}\n\n",
        b"data: \n" * 10_001 + b'data: {"error": "hush"}\n\n',
        OTHER * 9000 + error_of("hush"),
    ],
    ids=range(11),
)
def test_more_errors_than_anybody_has_end_the_stream(event: bytes) -> None:
    asked: list[str] = []
    cleaner = ErrorCleaner(lambda text: asked.append(text) or hide(text))  # type: ignore[func-returns-value]
    out = cleaner.clean(OTHER + event + OTHER)
    assert b"hush" not in out
    assert len(asked) <= MAX_TEXTS
    assert cleaner.spent or json.loads(out.split(b"\n\n")[1][6:])


def test_what_is_cleaned_is_counted_over_the_whole_stream() -> None:
    cleaner = ErrorCleaner(hide)
    for _ in range(MAX_TEXTS):
        assert cleaner.clean(error_of("hush")) == b'data: {"error":"***"}\n\n'
        assert cleaner.clean(OTHER) == OTHER
        assert not cleaner.spent
    assert cleaner.clean(OTHER + error_of("hush")) == OTHER
    assert cleaner.spent


def test_a_large_event_without_an_error_passes_after_one() -> None:
    cleaner = ErrorCleaner(hide)
    large = b'data: {"response": {"error": null, "output": ["%b"]}}\n\n' % (b"x, " * (1 << 20))
    assert cleaner.clean(error_of("no") + large) == error_of("no") + large
    assert not cleaner.spent


def test_a_stream_cleans_from_its_first_error_on_and_ends_where_that_is_too_much() -> None:
    stream = PassageStream(EVENTS, hiding=lambda failure: hide)
    assert stream.feed(b'data: {"a": "hush"}\n\n') == b'data: {"a": "hush"}\n\n'
    assert stream.feed(error_of("hush")) == b'data: {"error":"***"}\n\n'
    assert not stream.cut
    assert stream.feed(OTHER + error_of(["hush"] * 100_000) + OTHER) == OTHER
    assert stream.cut
    assert stream.feed(OTHER) == stream.close() == b""


def test_an_error_that_is_too_long_to_be_read_is_one() -> None:
    stream = PassageStream(EVENTS)
    assert stream.feed(OTHER + error_of("hush " * 100_000)) == OTHER
    assert stream.failure is not None and stream.cut
