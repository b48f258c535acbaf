"""What a client sees of a stream, case by case, wherever the bytes are cut."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from golden import asked, call, sections, streams, with_ids

from fakes.usages import told
from tollway.providers.base import StreamDecoder
from tollway.providers.table import adapters

OPERATIONS = {"streams": "chat/completions", "completions": "completions"}
"""By the folder that the files are in."""

FILES = [
    (dialect, path)
    for dialect in ("openai", "mistral")
    for folder in OPERATIONS
    for path in streams(f"{dialect}/{folder}")
]


def decode(dialect: str, operation: str, given: str, pieces: Iterable[bytes]) -> tuple[str, StreamDecoder]:
    members = json.loads(given)
    said = call(members) if operation == "chat/completions" else asked(operation, members)
    decoder = adapters(dialect)[operation].decoder(said)
    out = []
    for piece in pieces:
        out.append(decoder.feed(piece))
        assert decoder.started or not out[-1], "nothing goes out before the stream has started"
        assert out[-1] == b"" or out[-1].endswith(b"\n\n"), "only whole frames go out"
    out.append(decoder.close())
    return b"".join(out).decode(), decoder


def check(dialect: str, path: Path, pieces: Iterable[bytes]) -> None:
    case = sections(path)
    out, decoder = decode(dialect, OPERATIONS[path.parent.name], case["given"], pieces)
    assert out == with_ids(case["client"])
    usage = case.get("usage")
    assert decoder.usage == (told(*map(int, usage.split())) if usage else None)
    assert " ".join(decoder.warnings) == case.get("warnings", "").strip()
    seen = f"{decoder.failure.kind.value}{' started' if decoder.started else ''}" if decoder.failure else ""
    assert seen == case.get("failure", "").strip()
    assert decoder.finished or decoder.failure
    assert decoder.done is (decoder.failure is None)


def upstream(path: Path) -> bytes:
    return sections(path)["upstream"].encode()


@pytest.mark.parametrize(("dialect", "path"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_a_stream_comes_out_right(dialect: str, path: Path) -> None:
    check(dialect, path, [upstream(path)])


@pytest.mark.parametrize(("dialect", "path"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_a_stream_does_not_depend_on_where_it_is_cut(dialect: str, path: Path) -> None:
    data = upstream(path)
    for cut in range(len(data)):
        check(dialect, path, [data[:cut], data[cut:]])
    check(dialect, path, [bytes([byte]) for byte in data])
    check(dialect, path, data.splitlines(keepends=True))
    check(dialect, path, re.findall(rb".+?\n\n|.+", data, re.DOTALL))


@pytest.mark.parametrize("end", ["\r\n", "\r"], ids=["crlf", "cr"])
@pytest.mark.parametrize(("dialect", "path"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_a_stream_does_not_depend_on_its_line_ends(dialect: str, path: Path, end: str) -> None:
    data = upstream(path).replace(b"\n", end.encode())
    check(dialect, path, [data])
    check(dialect, path, [bytes([byte]) for byte in data])


@pytest.mark.parametrize(("dialect", "path"), FILES, ids=lambda value: getattr(value, "stem", value))
def test_a_byte_order_mark_is_no_data(dialect: str, path: Path) -> None:
    data = upstream(path)
    check(dialect, path, [b"\xef\xbb\xbf" + data])
    check(dialect, path, [b"\xef", b"\xbb", b"\xbf", data])
    check(dialect, path, [b"\xef\xbb", b"\xbf" + data])
