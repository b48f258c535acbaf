"""What a large answer costs, whatever it holds: no call into C is long, and the worker does not grow by much."""

import tracemalloc
from collections.abc import Callable

import pytest
from golden import asked

from looks import watch
from tollway.domain.failures import UpstreamFailure
from tollway.providers import halves, tidy
from tollway.providers.base import ChatResult
from tollway.providers.bounds import MAX_ODD_BYTES, MAX_SAID_BYTES
from tollway.providers.table import adapters
from tollway.wire import loose_json, stretches

MIB = 1024 * 1024

CHAT = b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"%b"}}],"x":%b}'
TEXT = b'{"choices":[{"index":0,"finish_reason":"stop","text":"%b"}],"x":%b}'
EMBEDDINGS = b'{"data":[{"index":0,"embedding":[1],"a":"%b"}],"x":%b}'
MODERATIONS = b'{"results":[{"a":"%b"}],"x":%b}'

BODIES = {
    "chat": ("chat/completions", CHAT, {"messages": [{"role": "user", "content": "a"}]}),
    "completions": ("completions", TEXT, {"prompt": "a"}),
    "embeddings": ("embeddings", EMBEDDINGS, {"input": "a"}),
    "moderations": ("moderations", MODERATIONS, {"input": "a"}),
}
EMOJI = "😀".encode()
ODD: dict[str, tuple[bytes, bytes, bytes]] = {
    "no number": (b"", rb"\n", b"NaN"),
    "half a character": (rb"\ud800", rb"\n", b"1"),
    "not in UTF-8": (b"", b"\xff", b"1"),
}


def decode(dialect: str, operation: str, odd: str, size: int) -> ChatResult | UpstreamFailure:
    name, form, more = BODIES[operation]
    first, unit, last = ODD[odd]
    form = CHAT if (dialect, operation) == ("mistral", "completions") else form
    body = form % (first + unit * (size // len(unit)), last)
    return adapters(dialect)[name].decode(200, {}, body, asked(name, more))


def growth(run: Callable[[], object]) -> int:
    """Bytes that are held at once, what was there before not counted."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("operation", ["chat", "completions"])
@pytest.mark.parametrize("odd", ODD)
def test_a_large_odd_answer_is_none(dialect: str, operation: str, odd: str) -> None:
    assert isinstance(decode(dialect, operation, odd, MAX_ODD_BYTES + 1024), UpstreamFailure)
    small = decode(dialect, operation, odd, 100_000)
    assert isinstance(small, ChatResult)


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("operation", BODIES)
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_is_never_seen_at_once(
    dialect: str, operation: str, odd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = watch(monkeypatch, loose_json, stretches, tidy, halves)
    decode(dialect, operation, odd, 5 * stretches.STRETCH)
    assert looks.longest <= stretches.STRETCH


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("operation", BODIES)
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_answer_takes_little_memory(dialect: str, operation: str, odd: str) -> None:
    decode(dialect, operation, odd, 1024)  # what is loaded is loaded
    for size in (MAX_ODD_BYTES - 1024, 3 * MAX_ODD_BYTES):
        held = growth(lambda: decode(dialect, operation, odd, size))  # noqa: B023  # called at once
        assert held < 2 * size + 96 * MIB


def saying(dialect: str, operation: str, text: bytes, more: bytes = b"") -> ChatResult | UpstreamFailure:
    name, form, asks = BODIES[operation]
    form = CHAT if dialect == "mistral" else form
    body = (form % (text, b"1")).replace(b'"choices"', b'%b"choices"' % more)
    return adapters(dialect)[name].decode(200, {}, body, asked(name, asks))


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("operation", ["chat", "completions"])
@pytest.mark.parametrize("where", ["text", "id", "model"])
def test_one_emoji_does_not_make_a_long_answer_larger_than_the_worker_may_grow(
    dialect: str, operation: str, where: str
) -> None:
    saying(dialect, operation, b"a")
    for size, expected in ((MAX_SAID_BYTES - 1024, ChatResult), (5 * MAX_SAID_BYTES // 2, UpstreamFailure)):
        long = EMOJI + b"a" * size
        answer = []
        if where == "text":
            held = growth(lambda: answer.append(saying(dialect, operation, long)))  # noqa: B023  # called at once
        else:
            more = b'"%b":"%b",' % (where.encode(), long)
            held = growth(lambda: answer.append(saying(dialect, operation, b"a", more)))  # noqa: B023
        assert isinstance(answer[0], expected)
        assert held < size + 128 * MIB


def test_a_picture_beside_a_text_may_be_longer_than_any_text() -> None:
    picture = b"A" * (2 * MAX_SAID_BYTES)
    name, _, more = BODIES["chat"]
    message = b'{"role":"assistant","content":"%b","images":[{"image_url":{"url":"data:;base64,%b"}}]}' % (
        EMOJI,
        picture,
    )
    body = b'{"choices":[{"index":0,"finish_reason":"stop","message":%b}]}' % message
    assert isinstance(adapters("openai")[name].decode(200, {}, body, asked(name, more)), ChatResult)


@pytest.mark.parametrize("dialect", ["openai", "mistral"])
@pytest.mark.parametrize("operation", ["chat", "completions"])
def test_a_large_event_with_half_a_character_is_never_seen_at_once(
    dialect: str, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = watch(monkeypatch, loose_json, stretches, halves)
    name, _, more = BODIES[operation]
    decoder = adapters(dialect)[name].decoder(asked(name, {**more, "stream": True}))
    said = b'%b"' % (rb"\ud800" + rb"\n" * (2 * stretches.STRETCH) + rb"\ud83d")
    chat = dialect == "mistral" or operation == "chat"
    choice = b'"delta":{"content":"' + said + b"}" if chat else b'"text":"' + said
    out = decoder.feed(b'data: {"id":"a","choices":[{"index":0,%b}]}\n\n' % choice)
    assert decoder.failure is None
    assert rb"\n" in out
    assert 0 < looks.longest <= stretches.STRETCH + 64
