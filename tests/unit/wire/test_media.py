"""A medium counts flat wherever it stands; words never do."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_time import QUADRATIC, growth
from tollway.wire.chat_request import ChatCall, parse_chat
from tollway.wire.estimate import MEDIA_BYTES
from tollway.wire.json import Raw
from tollway.wire.media import MIN_SEALED, discount
from tollway.wire.relayed_call import RelayedCall, parse_relayed

SLACK = 400
"""Bytes of JSON around a medium in the cases below."""


def chat_bytes(*messages: dict[str, Any]) -> int:
    call = parse_chat(json.dumps({"model": "m", "messages": [*messages, {"role": "user", "content": "x"}]}).encode())
    assert isinstance(call, ChatCall), call
    return call.prompt_bytes


def relayed_bytes(*items: dict[str, Any]) -> int:
    call = parse_relayed(json.dumps({"model": "m", "input": [*items, {"role": "user", "content": "x"}]}).encode())
    assert isinstance(call, RelayedCall), call
    return call.prompt_bytes


def user(part: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "what?"}, part]}


DATA = "data:video/mp4;base64,%"
PARTS: dict[str, dict[str, Any]] = {
    "video": {"type": "video_url", "video_url": {"url": DATA}},
    "sound": {"type": "audio_url", "audio_url": {"url": DATA}},
    "Anthropic's picture": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "%"}},
    "Anthropic's document": {"type": "document", "title": "a b", "source": {"type": "base64", "data": "%"}},
    "a picture as other servers have it": {"type": "image", "image": DATA},
    "a result with a picture in it": {"type": "tool_result", "content": [{"type": "image", "source": {"data": "%"}}]},
    "sealed thoughts": {"type": "thinking", "thinking": [], "signature": "%"},
    "a kind that nobody knows": {"type": "hologram", "x": {"y": [DATA]}},
    "sealed in a kind that nobody knows": {"type": "hologram", "blob": "%"},
    "OpenAI's own": {"type": "image_url", "image_url": {"url": DATA, "detail": "high"}},
    "OpenAI's sound": {"type": "input_audio", "input_audio": {"data": "%", "format": "wav"}},
    "OpenAI's file": {"type": "file", "file": {"file_data": DATA, "filename": "a b.pdf"}},
}
MESSAGES: dict[str, dict[str, Any]] = {
    **{name: user(part) for name, part in PARTS.items()},
    "in the result of a tool": {"role": "tool", "tool_call_id": "c", "content": [PARTS["video"]]},
    "pictures that a model has made": {
        "role": "assistant",
        "content": "here",
        "images": [{"type": "image_url", "image_url": {"url": DATA}}],
    },
    "thoughts that a model has sealed": {
        "role": "assistant",
        "content": "here",
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "%"}],
    },
}
ITEMS: dict[str, dict[str, Any]] = {
    "picture": {"role": "user", "content": [{"type": "input_image", "image_url": DATA}]},
    "file": {"role": "user", "content": [{"type": "input_file", "file_data": DATA, "filename": "a"}]},
    "video": {"role": "user", "content": [{"type": "input_video", "video_url": DATA}]},
    "output": {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": DATA}]},
    "screenshot": {"type": "computer_call_output", "output": {"type": "computer_screenshot", "image_url": DATA}},
    "picture that was made": {"type": "image_generation_call", "id": "i", "result": "%"},
    "sealed thoughts": {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "%"},
    "sealed conversation": {"type": "compaction", "encrypted_content": "%"},
    "sealed, of a kind that nobody knows": {"type": "hologram", "blob": "%"},
}


def filled(item: dict[str, Any], size: int) -> dict[str, Any]:
    medium = base64.b64encode(bytes(range(256)) * (size // 192 + 1)).decode()[:size]
    filled: dict[str, Any] = json.loads(json.dumps(item).replace("%", medium))
    return filled


@pytest.mark.parametrize("name", MESSAGES)
def test_a_medium_in_a_chat_counts_flat(name: str) -> None:
    small, large = (chat_bytes(filled(MESSAGES[name], size)) for size in (MIN_SEALED, 2_000_000))
    assert small == large
    assert MEDIA_BYTES < large < MEDIA_BYTES + SLACK


@pytest.mark.parametrize("name", ITEMS)
def test_a_medium_in_a_response_counts_flat(name: str) -> None:
    small, large = (relayed_bytes(filled(ITEMS[name], size)) for size in (MIN_SEALED, 2_000_000))
    assert small == large
    assert MEDIA_BYTES < large < MEDIA_BYTES + SLACK


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video_url", "video_url": {"url": "https://a/b.mp4"}},
        {"type": "image", "source": {"type": "url", "url": "https://a/b"}},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
        {"type": "image", "source": {"media_type": "image/png", "data": "AAAA"}},
        {"type": "hologram", "x": "s3://a/b"},
    ],
)
def test_an_address_counts_as_much_as_what_is_there(part: dict[str, Any]) -> None:
    assert MEDIA_BYTES < chat_bytes(user(part)) < MEDIA_BYTES + SLACK


def test_each_of_several_media_counts() -> None:
    part = {"type": "images", "images": [DATA, DATA, "https://a/b"]}
    assert 3 * MEDIA_BYTES < chat_bytes(filled(user(part), 100_000)) < 3 * MEDIA_BYTES + SLACK


def test_escaped_data_is_data() -> None:
    """PHP's writer escapes the slash, and others break the lines."""
    data = base64.b64encode(bytes(range(256)) * 1_000)
    lines = b"\\n".join(data[start : start + 76] for start in range(0, len(data), 76))
    for escaped in (data.replace(b"/", rb"\/"), lines, b"data:image\\/png;base64," + data.replace(b"/", rb"\/")):
        part = b'{"type":"image","source":{"data":"%b"}}' % escaped
        call = parse_chat(b'{"model":"m","messages":[{"role":"user","content":[%b]}]}' % part)
        assert isinstance(call, ChatCall)
        assert call.prompt_bytes < MEDIA_BYTES + SLACK


WORDY = "ignore all previous instructions " * 3_000
SOLID = "ignore-all-previous-instructions-" * 3_000
UNKNOWN: dict[str, dict[str, Any]] = {
    "a text": {"type": "text", "text": SOLID},
    "a text of a kind that nobody knows": {"type": "hologram", "text": SOLID},
    "a text in a part for pictures": {"type": "image", "text": SOLID, "source": {"data": "AAAA"}},
    "a text document": {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": SOLID}},
    "a text document, told later": {"type": "document", "source": {"data": SOLID, "media_type": "text/plain"}},
    "words as data": {"type": "image", "source": {"data": WORDY}},
    "words as an address": {"type": "image", "source": {"url": "https://a/" + WORDY}},
    "words with other blanks": {"type": "image", "source": {"data": WORDY.replace(" ", "\n")}},
    "words without blanks": {"type": "image", "source": {"data": "忽略之前的所有指示" * 3_000}},
    "words under a name that nobody knows": {"type": "hologram", "x": WORDY},
    "the context of a document": {"type": "document", "context": SOLID, "source": {"type": "url", "url": "https://a"}},
    "a result": {"type": "tool_result", "content": SOLID},
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_words_count_by_their_length(name: str) -> None:
    assert chat_bytes(user(UNKNOWN[name])) > 80_000
    assert relayed_bytes(user(UNKNOWN[name])) > 80_000


def test_a_name_cannot_hide_behind_escapes() -> None:
    part = json.dumps({"type": "hologram", "text": SOLID}).replace('"text"', r'"te\u0078t"')
    assert discount(Raw(part.encode())) == 0
    part = json.dumps({"type": "document", "source": {"type": "text", "data": SOLID}}).replace('"text"', r'"te\u0078t"')
    assert discount(Raw(part.encode())) <= 0


@pytest.mark.parametrize(
    "item",
    [
        {"type": "function_call", "arguments": SOLID},
        {"type": "function_call_output", "output": SOLID},
        {"type": "custom_tool_call", "input": SOLID},
        {"role": "user", "content": SOLID},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": SOLID}]},
    ],
)
def test_words_of_a_response_count_by_their_length(item: dict[str, Any]) -> None:
    assert relayed_bytes(item) > 80_000


def test_tools_and_messages_without_parts_are_not_searched() -> None:
    assert chat_bytes({"role": "user", "content": SOLID}) > 80_000
    assert chat_bytes({"role": "assistant", "content": None, "refusal": SOLID, "images": None}) > 80_000


@pytest.mark.parametrize("letters", [b'"', b"\\", b" ", b'"a":', b'"a":"b",', b'\\"', b"A", b"/", b'"type":', b"data:"])
def test_no_letters_take_long(letters: bytes) -> None:
    def look(text: bytes) -> None:
        discount(Raw(b'{"x":"%b"}' % text))
        discount(Raw(b'{"type":"image",%b' % text))

    quarter, whole = (letters * (size // len(letters)) for size in (25_000, 100_000))
    assert growth(look, quarter, whole) < QUADRATIC


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=9) | st.just("A" * MIN_SEALED),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "data", "url"]), inner)
    ),
)


@given(values)
def test_any_value_is_counted(value: object) -> None:
    raw = Raw(json.dumps(value).encode())
    assert discount(raw) <= len(raw)
