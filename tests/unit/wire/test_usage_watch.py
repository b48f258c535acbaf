"""What an answer that passes by says of its cost and its end, known before its last piece is passed on."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollway.wire.sse import MAX_EVENT_BYTES
from tollway.wire.top_members import MAX_MEMBER_BYTES
from tollway.wire.usage_watch import MAX_IMAGES, UsageWatch, watch

JSON = b"application/json; charset=utf-8"
EVENTS = b"text/event-stream"

USAGE = {"input_tokens": 3, "output_tokens": 4}
ERROR = {"code": "server_error", "message": "no"}


def event(data: object, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def seen(watching: UsageWatch) -> tuple[object, object, bool]:
    usage, error = (None if raw is None else json.loads(bytes(raw)) for raw in (watching.usage, watching.error))
    return usage, error, watching.terminal


def see(content_type: bytes, *pieces: bytes) -> tuple[object, object, bool]:
    watching = watch(content_type)
    for piece in pieces:
        watching.feed(piece)
    return seen(watching)


def test_the_usage_of_an_object_is_known_at_its_last_bracket() -> None:
    body = json.dumps({"id": "r", "error": None, "usage": USAGE, "output": [{"usage": 1}]}).encode()
    assert see(JSON, body[:-1]) == (None, None, False)
    assert see(JSON, body[:-1], body[-1:], b"\n") == (USAGE, None, True)


def test_an_object_may_be_an_error() -> None:
    assert see(b"application/problem+json", json.dumps({"error": ERROR}).encode()) == (None, ERROR, True)


def test_an_answer_names_its_model_and_its_tier() -> None:
    answer = {"model": "m", "service_tier": "flex", "usage": USAGE}
    created = event({"type": "response.created", "response": {"model": "m", "service_tier": "auto"}})
    completed = event({"type": "response.completed", "response": {**answer, "model": None}})
    chunk = event({"choices": [], **answer})
    for content_type, pieces in (
        (JSON, [json.dumps(answer).encode()]),
        (EVENTS, [created, completed]),
        (EVENTS, [chunk]),
    ):
        watching = watch(content_type)
        assert (watching.model, watching.service_tier) == (None, None)
        for piece in pieces:
            watching.feed(piece)
        assert watching.model is not None and watching.service_tier is not None
        assert (bytes(watching.model), bytes(watching.service_tier)) == (b'"m"', b'"flex"')


def test_what_is_no_object_never_ends_well() -> None:
    assert see(JSON, b"<html>") == (None, None, False)
    assert see(JSON, b'{"usage":{}} x') == ({}, None, False)


@pytest.mark.parametrize("kind", ["completed", "incomplete", "failed"])
@pytest.mark.parametrize("named", [True, False])
def test_a_stream_of_the_responses_api_ends_with_its_response(kind: str, named: bool) -> None:
    name = f"response.{kind}" if named else ""
    begun = event({"type": "response.created", "response": {"usage": None, "error": None}}, name and "response.created")
    delta = event({"type": "response.output_text.delta", "delta": '"usage":1'}, name and "response.output_text.delta")
    error = ERROR if kind == "failed" else None
    ended = event({"type": f"response.{kind}", "response": {"id": "r", "usage": USAGE, "error": error}}, name)
    assert see(EVENTS, begun, delta) == (None, None, False)
    assert see(EVENTS, begun, delta, ended[:-1]) == (None, None, False)
    assert see(EVENTS, begun, delta, ended) == (USAGE, error, True)


def test_a_stream_of_the_chat_kind_ends_with_done() -> None:
    chunk, last = event({"choices": [], "usage": None}), event({"choices": [], "usage": USAGE})
    assert see(EVENTS, chunk, last, chunk) == (USAGE, None, False)
    assert see(EVENTS, chunk, last, b"data: [DONE]\n\n") == (USAGE, None, True)


def test_the_run_of_a_thread_is_counted_whole() -> None:
    step = event({"object": "thread.run.step", "usage": {"prompt_tokens": 1}}, "thread.run.step.completed")
    run = event({"object": "thread.run", "usage": USAGE}, "thread.run.completed")
    assert see(EVENTS, step + run, b"event: done\ndata: [DONE]\n\n") == (USAGE, None, True)


@pytest.mark.parametrize(
    "kind", ["image_generation.completed", "image_edit.completed", "transcript.text.done", "speech.audio.done"]
)
def test_streams_of_images_and_sound_end_with_their_usage(kind: str) -> None:
    assert see(EVENTS, event({"type": kind, "b64_json": "A" * 100_000, "usage": USAGE})) == (USAGE, None, True)
    assert see(EVENTS, event({"type": kind})) == (None, None, True)


def test_several_pictures_end_with_the_last_one() -> None:
    done = event({"type": "image_generation.completed", "usage": USAGE})
    watching = watch(EVENTS, images=2)
    watching.feed(done)
    assert (watching.terminal, watching.earlier_images) == (False, [])
    watching.feed(done)
    assert (watching.terminal, len(watching.earlier_images)) == (True, 1)
    for _ in range(2 * MAX_IMAGES):
        watching.feed(done)
    assert len(watching.earlier_images) == MAX_IMAGES


def test_an_error_ends_a_stream() -> None:
    flat = {"type": "error", **ERROR, "sequence_number": 3}
    assert see(EVENTS, event(flat, "error")) == (None, flat, True)
    assert see(EVENTS, event(flat)) == (None, flat, True)
    assert see(EVENTS, event({"error": ERROR})) == (None, ERROR, True)
    assert see(EVENTS, event({"error": ERROR}, "error")) == (None, ERROR, True)
    assert see(EVENTS, b"event: error\ndata: overloaded\n\n") == (None, "overloaded", True)


@pytest.mark.parametrize("cut", [0, 5, 20])
def test_a_stream_has_begun_with_its_first_event_that_is_no_error(cut: int) -> None:
    for first, begun in ((event({"type": "error", **ERROR}), False), (event({"type": "response.created"}), True)):
        watching = watch(EVENTS)
        for piece in (b": comment\n\n", first[:cut], first[cut:-1]):
            watching.feed(piece)
            assert not watching.begun
        watching.feed(first[-1:])
        assert watching.begun is begun
        assert (watching.error is None) is begun


def test_a_stream_whose_first_event_is_too_long_to_see_has_begun() -> None:
    watching = watch(EVENTS)
    watching.feed(b"data: " + b"x" * (MAX_EVENT_BYTES + 2))
    assert watching.begun


@pytest.mark.parametrize("content_type", [JSON, b"audio/mpeg"])
def test_what_is_no_stream_of_events_has_begun_with_its_first_byte(content_type: bytes) -> None:
    watching = watch(content_type)
    assert not watching.begun
    watching.feed(b" ")
    assert watching.begun


def test_the_text_that_events_bring_is_counted_and_sound_is_not() -> None:
    watching = watch(EVENTS)
    for kind in ("response.output_text.delta", "response.function_call_arguments.delta", "response.refusal.delta"):
        watching.feed(event({"type": kind, "delta": "four"}))
    watching.feed(event({"delta": "four"}, "response.custom_tool_call_input.delta"))
    watching.feed(event({"type": "response.output_audio.delta", "delta": "AAAA"}))
    watching.feed(event({"type": "thread.message.delta", "delta": {"content": []}}))
    assert watching.text_bytes == 16


def test_all_is_said_while_the_last_event_has_ended_a_text_or_a_call() -> None:
    watching = watch(EVENTS)
    for kind, all_said in [
        ("response.created", False),
        ("response.reasoning_summary_text.done", False),
        ("response.output_text.delta", False),
        ("response.output_text.done", True),
        ("response.output_item.done", True),
        ("response.output_item.added", False),
        ("response.function_call_arguments.done", True),
    ]:
        watching.feed(event({"type": kind}))
        assert watching.all_said is all_said, kind
        watching.feed(b": a comment\n\n" + event({"type": kind})[:9])
        assert watching.all_said is all_said, "half an event is none"
        watching = watch(EVENTS)
    watching.feed(b"event: response.output_text.done\ndata: {}\n\n")
    assert watching.all_said


def test_an_event_without_its_blank_line_counts_at_the_end() -> None:
    watching = watch(EVENTS)
    watching.feed(event({"type": "response.completed", "response": {"usage": USAGE}})[:-1])
    assert seen(watching) == (None, None, False)
    watching.close()
    assert seen(watching) == (USAGE, None, True)


def test_a_usage_that_is_too_long_is_none() -> None:
    assert see(EVENTS, event({"usage": "x" * MAX_MEMBER_BYTES})) == (None, None, False)


@pytest.mark.parametrize("content_type", [None, b"", b"audio/mpeg", b"text/plain", b"application/jsonl"])
def test_other_formats_say_nothing(content_type: bytes | None) -> None:
    watching = watch(content_type)
    watching.feed(b'{"usage":{}}')
    watching.close()
    assert seen(watching) == (None, None, False)


PIECES = st.sampled_from(
    [
        *(b"data: ", b"\n\n", b"event: error\n", b"[DONE]", b'{"usage":', b"{}", b"}", b"null", b'{"response":', b'"'),
        *(event({"usage": USAGE}), event({"type": "error"}), event({"response": 1}), event([1]), b"\xff", b"\r\n"),
    ]
)


@given(st.lists(PIECES | st.binary()), st.sampled_from([JSON, EVENTS]), st.data())
def test_any_bytes_look_the_same_in_any_cut(pieces: list[bytes], content_type: bytes, draw: st.DataObject) -> None:
    text = b"".join(pieces)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(text)))))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    raw = []
    for cut in (parts, [text]):
        watching = watch(content_type)
        for part in cut:
            watching.feed(part)
        watching.close()
        said = (watching.usage, watching.error, watching.model, watching.service_tier)
        raw.append((*said, watching.terminal, watching.begun, watching.text_bytes))
    assert raw[0] == raw[1]
