"""Fields of a form that passes in pieces: found wherever the pieces are cut, and never mistaken."""

import email
import email.policy
from collections.abc import Iterable
from email.message import EmailMessage

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cpu_time import QUADRATIC, cpu_seconds, decoding_seconds, growth
from tollway.wire.multipart import (
    MAX_HEAD_BYTES,
    MAX_PARAMETERS,
    MAX_PARTS,
    MAX_VALUE_BYTES,
    MultipartFields,
    boundary_of,
)

NAMES = {b"model", b"stream"}


def read(pieces: Iterable[bytes], boundary: bytes = b"b") -> MultipartFields:
    fields = MultipartFields(boundary, NAMES)
    for piece in pieces:
        fields.feed(piece)
    return fields


def result(body: bytes, boundary: bytes = b"b") -> MultipartFields:
    """The same at once and byte by byte."""
    at_once = read([body], boundary)
    bytewise = read((body[i : i + 1] for i in range(len(body))), boundary)
    for attribute in ("values", "spans", "ended", "problem"):
        assert getattr(at_once, attribute) == getattr(bytewise, attribute)
    return at_once


def part(disposition: str, content: bytes, more: str = "") -> bytes:
    return f"--b\r\nContent-Disposition: {disposition}\r\n{more}\r\n".encode() + content + b"\r\n"


MODEL = part('form-data; name="model"', b"gpt")
FILE = part('form-data; name="file"; filename="a.wav"', b"\r\n\0x--b\r\n-", "Content-Type: audio/wav\r\n")
END = b"--b--\r\n"


def test_a_field_is_found_wherever_it_stands() -> None:
    for body in (MODEL + FILE + END, FILE + MODEL + END, b"preamble\r\n" + FILE + MODEL + END + b"epilogue"):
        fields = result(body)
        assert (fields.values, fields.ended, fields.problem) == ({b"model": b"gpt"}, True, None)
        start, end = fields.spans[b"model"]
        assert body[start:end] == b"gpt"


def test_a_field_is_known_as_soon_as_its_boundary_has_come() -> None:
    assert read([MODEL]).values == {}
    assert read([MODEL + b"--b"]).values == {b"model": b"gpt"}
    assert not read([MODEL + b"--b"]).ended


def test_several_fields_are_found() -> None:
    stream = part("form-data; name=stream", b"true")
    assert result(MODEL + stream + END).values == {b"model": b"gpt", b"stream": b"true"}
    assert result(part('form-data; name="model"', b"") + END).values == {b"model": b""}


@pytest.mark.parametrize(
    "disposition",
    [
        *(
            'form-data; name="model"',
            "form-data; name=model",
            'FORM-DATA;NAME="model";',
            'form-data; x=1; name="model"',
        ),
        *(r'form-data; name="mod\el"', 'form-data ; x="; name=\\"stream\\"" ; name="model"'),
    ],
)
def test_a_name_may_be_written_in_several_ways(disposition: str) -> None:
    assert result(part(disposition, b"gpt") + END).values == {b"model": b"gpt"}


def test_what_only_looks_like_a_field_is_content() -> None:
    lookalike = b'--c\r\nContent-Disposition: form-data; name="model"\r\n\r\nevil\r\n--c\r\n--'
    assert result(part('form-data; name="file"; filename="name=model"', lookalike) + MODEL + END).values == {
        b"model": b"gpt"
    }
    assert result(part('form-data; name="Model"', b"x") + END).values == {}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (MODEL + MODEL + END, "twice"),
        (MODEL + END + MODEL + END, "follows the last boundary"),
        (MODEL + b"--b--x", "not alone on its line"),
        (part('form-data; name="model"; filename="x"', b"gpt") + END, "not plain text"),
        (part("form-data; name=model; filename*=utf-8''x", b"gpt") + END, "not plain text"),
        (part("form-data; name=model", b"Z3B0", "Content-Transfer-Encoding: base64\r\n") + END, "not plain text"),
        (part("form-data; name=x; name=model", b"gpt") + END, "not in one way"),
        (part("form-data; name=x; name*=utf-8''model", b"gpt") + END, "not in one way"),
        (part("form-data", b"gpt") + END, "does not say its name"),
        (part("attachment; name=model", b"gpt") + END, "does not say its name"),
        (part('form-data; name="model', b"gpt") + END, "does not say its name"),
        (part("form-data; name=x", b"", "Content-Disposition: form-data; name=model\r\n") + END, "not readable"),
        (part("form-data; name=x", b"", " ; name=model\r\n") + END, "not readable"),
        (part("form-data; name=x", b"", "A: b\nC: d\r\n") + END, "not readable"),
        (part("form-data; name=x", b"", "A : b\r\n") + END, "not readable"),
        (b"--bb\r\nA: b\r\n\r\n", "not readable"),
        (b"--b\r\n\r\nx" + END, "does not say its name"),
        (MODEL + b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n" + END, "lacks the empty line"),
        (MODEL.replace(b"\r\n", b"\n"), "not readable"),
        (part("form-data; name=file", b"a\n" + MODEL) + END, "bare line feed"),
    ],
)
def test_what_two_readers_could_read_differently_is_a_problem(body: bytes, problem: str) -> None:
    said = result(body).problem
    assert said is not None
    assert problem in said


def test_values_and_heads_have_a_limit() -> None:
    longest = b"x" * MAX_VALUE_BYTES
    assert read([part("form-data; name=model", longest) + END]).values == {b"model": longest}
    for body in (part("form-data; name=model", longest + b"x") + END, part("form-data; name=model", longest * 2)):
        assert read([body]).problem == "the field 'model' is too long"
        assert read(body[i : i + 100] for i in range(0, len(body), 100)).problem == "the field 'model' is too long"
    assert read([part("form-data; name=x", b"", f"X: {'x' * MAX_HEAD_BYTES}\r\n")]).problem
    assert read([b"--b" + b" " * MAX_HEAD_BYTES * 2]).problem


def test_a_large_file_is_passed_quickly_and_not_kept() -> None:
    fields = read([b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'])
    piece = bytes(range(256)) * 256

    def pass_on() -> None:
        for _ in range(100):
            fields.feed(piece)

    assert cpu_seconds(pass_on) < decoding_seconds(100 * len(piece)) / 2
    fields.feed(b"\r\n" + MODEL + END)
    assert fields.values == {b"model": b"gpt"}


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b"Multipart/Form-Data;charset=utf-8;BOUNDARY=----WebKit/x:1", b"----WebKit/x:1"),
        (b'multipart/form-data; boundary="a b;c\\"d"; x=y', b'a b;c"d'),
        (b"multipart/form-data; boundary=%b" % (b"x" * 70), b"x" * 70),
        (b"multipart/form-data; boundary=%b" % (b"x" * 71), None),
        (b"multipart/form-data", None),
        (b"multipart/form-data; boundary=", None),
        (b'multipart/form-data; boundary=""', None),
        (b"multipart/form-data; boundary=a; boundary=b", None),
        (b"multipart/mixed; boundary=a", None),
        (b"application/json", None),
        (b"", None),
    ],
)
def test_a_boundary_is_found_in_a_content_type(content_type: bytes, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary


def quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parsed(body: bytes) -> list[tuple[object, object, bytes]]:
    head = b"MIME-Version: 1.0\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n"
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    return [
        (piece.get_param("name", header="content-disposition"), piece.get_filename(), piece.get_payload(decode=True))
        for piece in message.iter_parts()  # type: ignore[attr-defined]
        if isinstance(piece, EmailMessage)
    ]


CONTENT = st.sampled_from([b"", b"--b", b'name="model"', b"\r", b"-", b"x", b"\r\n\r\n"]) | st.text("ab é").map(
    str.encode
)
PARTS = st.lists(
    st.tuples(
        st.sampled_from(["file", "a;b", 'q"', "x\\"]), st.sampled_from([None, "f.wav", 'n"; name="model']), CONTENT
    ),
    max_size=4,
)


@given(PARTS, st.integers(0, 4), st.sampled_from([b"gpt", b"", b"a b"]), st.data())
def test_any_form_in_any_cut_has_its_field_and_can_be_given_another(
    parts: list[tuple[str, str | None, bytes]], place: int, value: bytes, draw: st.DataObject
) -> None:
    assume(not any(content.startswith(b"--b") for *_, content in parts))
    rendered = [
        part(f"form-data; name={quoted(name)}" + (f"; filename={quoted(file)}" if file else ""), content)
        for name, file, content in parts
    ]
    rendered.insert(place, part('form-data; name="model"', value))
    body = b"".join(rendered) + END
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(body)))))
    fields = read(body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True))
    assert (fields.values, fields.ended, fields.problem) == ({b"model": value}, True, None)
    end = draw.draw(st.integers(fields.spans[b"model"][1], len(body)))
    changed = fields.with_value(body[:end], b"model", b"other") + body[end:]
    expected = [(name, file, b"other" if name == "model" else content) for name, file, content in parsed(body)]
    assert parsed(changed) == expected
    assert len(expected) == len(parts) + 1


WORDS = [
    *(b"--b", b"\r\n", b"\n", b"--", b" ", b"Content-Disposition: form-data", b"; name=", b"model", b'"', b"\\", b"\r"),
    *(MODEL, FILE, END, b"x"),
]


@given(st.lists(st.sampled_from(WORDS) | st.binary()).map(b"".join), st.sampled_from([b"b", b"", b"\r\n", b"-"]))
def test_junk_raises_nothing_and_looks_the_same_in_any_cut(body: bytes, boundary: bytes) -> None:
    result(body, boundary)
    boundary_of(body)


@pytest.mark.parametrize(
    "header",
    [
        b"multipart/form-data; a=b%bx",
        b"multipart/form-data%bx",
        b'multipart/form-data; a="%b',
        b"%bmultipart/form-data; boundary=x",
        b"multipart/form-data; boundary=x%b;%b=",
    ],
)
@pytest.mark.parametrize("letter", [b" ", b"\t", b";", b'"', b"\\", b"=", b'\\"', b"; ", b"a"])
def test_a_content_type_of_blanks_is_read_once(header: bytes, letter: bytes) -> None:
    quarter, whole = (header.replace(b"%b", letter * times) for times in (15_000, 60_000))
    assert growth(boundary_of, quarter, whole) < QUADRATIC


def test_the_head_of_a_part_is_read_once() -> None:
    def form(blanks: int) -> bytes:
        line = b"X-A: a" + b" " * blanks + b"b\r\n"
        part = b'--edge\r\nContent-Disposition: form-data; name="n"\r\n' + line + b"\r\nvalue\r\n"
        return part * 40 + b"--edge--\r\n"

    def read(body: bytes) -> None:
        fields = MultipartFields(b"edge", ())
        fields.feed(body)
        assert fields.ended and fields.problem is None

    assert growth(read, form(3_750), form(15_000)) < QUADRATIC


def test_a_form_has_so_many_parts_and_no_more() -> None:
    part = b'--edge\r\nContent-Disposition: form-data; name="n"\r\n\r\nvalue\r\n'
    for parts, problem in ((MAX_PARTS, None), (MAX_PARTS + 1, "it has too many parts")):
        fields = MultipartFields(b"edge", ())
        fields.feed(part * parts + b"--edge--\r\n")
        assert fields.problem == problem


def test_a_part_has_so_many_parameters_and_no_more() -> None:
    for more, problem in ((MAX_PARAMETERS - 1, None), (MAX_PARAMETERS, "a part does not say its name")):
        found = result(part("form-data; name=model" + "; a=b" * more, b"m") + END)
        assert (found.problem or "")[: len("a part does not say its name")] == (problem or "")
    assert boundary_of(b"multipart/form-data; boundary=x" + b"; a=b" * (MAX_PARAMETERS - 1)) == b"x"
    assert boundary_of(b"multipart/form-data; boundary=x" + b"; a=b" * MAX_PARAMETERS) is None


@pytest.mark.parametrize(
    "parameters", ['; a="\\\\"' * 2_000, '; a="' + "\\\\" * 8_000 + '"', '; name="' + "\\\\" * 8_000 + '"']
)
def test_the_parameters_of_a_part_cost_little_more_than_to_look_at_them(parameters: str) -> None:
    def read(disposition: str) -> None:
        fields = MultipartFields(b"b", (b"model",))
        fields.feed(part(disposition, b"") * 16)

    plain = cpu_seconds(lambda: read("form-data; name=x; a=" + "b" * len(parameters)))
    assert cpu_seconds(lambda: read("form-data; name=x" + parameters)) < 10 * plain
