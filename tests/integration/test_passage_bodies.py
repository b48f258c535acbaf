"""Bodies that pass: of which type, in which pieces, and what is not taken because no model could be found in it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from fakes.client import Wire, request_bytes
from fakes.gateway import Tenant
from fakes.upstream import HANG, error, head, raw, reply

BOUNDARY = "edge"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
SOUND = bytes(range(256)) * 1024


def part(name: str, content: bytes, more: str = "") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def sound(content: bytes = SOUND) -> bytes:
    return part("file", content, '; filename="a.wav"')


END = f"--{BOUNDARY}--\r\n".encode()


async def post(tenant: Tenant, path: str, body: bytes, content_type: str):
    return await tenant.post(path, body, {"content-type": content_type})


def described(body: Mapping[str, str]) -> bytes:
    return json.dumps(body).encode()


# Types of bodies


@pytest.mark.parametrize(
    "kind", ["application/octet-stream", "application/sdp", "Application/SDP; charset=utf-8", FORM]
)
async def test_a_body_that_could_hide_its_model_is_refused_where_json_names_it(tenant: Tenant, kind: str) -> None:
    body = described({"model": tenant.model, "input": "x"})
    for path in ("/v1/responses", "/v1/images/generations", "/v1/audio/speech"):
        answer = await post(tenant, path, body, kind)
        assert answer.refusal == (400, "unsupported_content_type")
    assert not tenant.openai.requests


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/sdp"])
async def test_and_where_a_form_names_it(tenant: Tenant, kind: str) -> None:
    body = part("model", tenant.model.encode()) + sound() + END
    answer = await post(tenant, TRANSCRIPTIONS, body, kind)
    assert answer.refusal == (400, "unsupported_content_type")
    assert not tenant.openai.requests


@pytest.mark.parametrize("kind", ["application/octet-stream", FORM])
async def test_where_no_model_is_named_any_body_passes(tenant: Tenant, kind: str) -> None:
    tenant.openai.answers(reply(200, {"id": "part_1"}))
    body = bytes(range(256))
    assert (await post(tenant, "/v1/uploads/upload_1/parts", body, kind)).json == {"id": "part_1"}
    (request,) = tenant.openai.requests
    assert (request.body, request.header("content-type")) == (body, kind)


async def test_a_path_that_takes_forms_takes_json_too(tenant: Tenant) -> None:
    tenant.openai.answers(reply(200, {"data": []}))
    body = {"model": tenant.model, "prompt": "a cat", "images": "x"}
    assert (await tenant.post("/v1/images/edits", body)).status == 200
    assert tenant.openai.requests[0].json == body


# Forms


@pytest.mark.parametrize(
    "body",
    [
        b"",
        sound(),
        sound() + f"--{BOUNDARY}".encode(),
        sound() + part("model", b"gpt-4o").removesuffix(b"\r\n"),
        b"no form at all",
    ],
    ids=["empty", "cut after a file", "cut in a boundary", "cut in its model", "another boundary"],
)
async def test_a_form_that_ends_too_early_and_names_no_model_is_refused(tenant: Tenant, body: bytes) -> None:
    answer = await post(tenant, TRANSCRIPTIONS, body, FORM)
    assert answer.refusal == (400, "invalid_form")
    assert not tenant.openai.requests


async def test_a_whole_form_may_leave_the_model_to_the_provider(tenant: Tenant) -> None:
    tenant.openai.answers(reply(200, {"data": []}))
    body = part("image", SOUND, '; filename="a.png"') + END
    assert (await post(tenant, "/v1/images/variations", body, FORM)).status == 200
    assert tenant.openai.requests[0].body == body


async def test_a_form_without_a_boundary_is_refused(tenant: Tenant) -> None:
    answer = await post(tenant, TRANSCRIPTIONS, sound() + END, "multipart/form-data")
    assert answer.refusal == (400, "invalid_form")


@asynccontextmanager
async def uploading(
    tenant: Tenant, framing: Mapping[str, str | None], path: str = TRANSCRIPTIONS
) -> AsyncIterator[Wire]:
    """A request whose head has been sent, and of its body nothing."""
    async with tenant.client.connect() as wire:
        headers = {"content-type": FORM, "content-length": None, **framing}
        await wire.send(request_bytes("POST", path, key=tenant.key, headers=headers))
        yield wire


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


async def renamed(tenant: Tenant) -> None:
    """Let the provider know the tenant's model by another, longer name."""
    sql = "UPDATE tollway.models SET upstream_name = 'the-name-at-the-provider' WHERE name = $1"
    await tenant.gateway.sql(sql, tenant.model)
    await tenant.gateway.configuration_is_live()


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("model_first", [True, False])
async def test_a_form_arrives_as_it_was_sent_however_it_is_framed(
    tenant: Tenant, chunked: bool, model_first: bool
) -> None:
    await renamed(tenant)
    tenant.openai.answers(reply(200, {"text": "hi"}))
    model = part("model", tenant.model.encode())
    body = (model + sound() if model_first else sound() + model) + part("language", b"en") + END
    framing = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(len(body))}
    async with uploading(tenant, framing) as wire:
        for at in range(0, len(body), 50_000):
            piece = body[at : at + 50_000]
            await wire.send(chunk(piece) if chunked else piece)
        if chunked:
            await wire.send(b"0\r\n\r\n")
        assert (await wire.reply()).json == {"text": "hi"}
    (request,) = tenant.openai.requests
    assert request.body == body.replace(tenant.model.encode(), b"the-name-at-the-provider")
    assert (request.header("transfer-encoding") == "chunked") is chunked
    assert request.header("content-length") == (None if chunked else str(len(request.body)))
    (entry,) = await tenant.ledger(1)
    assert (entry["outcome"], entry["model"], entry["upstream_model"]) == (
        "ok",
        tenant.model,
        "the-name-at-the-provider",
    )


async def test_an_answer_that_comes_before_the_body_is_over_is_the_answer(tenant: Tenant) -> None:
    """The provider answers to the part that it has: what streams is not collected first."""
    tenant.openai.hasty = True
    text = b'{"error": {"message": "Too large", "type": "invalid_request_error", "param": "file", "code": null}}'
    answer = head(413, {"content-type": "application/json", "content-length": str(len(text))}) + text
    tenant.openai.answers(raw(answer, HANG))
    async with uploading(tenant, {"content-length": "20000000"}) as wire:
        await wire.send(part("model", tenant.model.encode()) + sound())
        reading = asyncio.ensure_future(wire.reply())
        while not reading.done():
            await wire.send(bytes(1024))
            await asyncio.wait({reading}, timeout=0.01)  # no faster than the gateway lets go of what is too much
        told = await reading
    assert (told.status, told.error["message"], told.error["param"]) == (413, "Too large", "file")
    await tenant.openai.hang_ups.reaches(1)
    (entry,) = await tenant.ledger(1)
    assert (entry["charged"], entry["status"], entry["cost"]) == (False, 413, 0)


async def test_what_has_streamed_is_not_sent_to_another_provider(tenant: Tenant) -> None:
    other = await tenant.add_model()
    model = await tenant.add_model(fallback=other)
    tenant.openai.answers(error(500), reply(200, {"text": "hi"}))
    body = part("model", model.encode()) + sound() + END
    async with uploading(tenant, {"content-length": str(len(body))}) as wire:
        await wire.send(body[:1000])
        await wire.send(body[1000:])
        assert (await wire.reply()).refusal == (502, "upstream_error")
    assert len(tenant.openai.requests) == 1


@pytest.mark.parametrize("whole", [True, False])
async def test_a_second_model_is_refused(tenant: Tenant, whole: bool) -> None:
    first, second = part("model", tenant.model.encode()), part("model", b"gpt-4o")
    framing = {"transfer-encoding": "chunked"}
    async with uploading(tenant, framing) as wire:
        if whole:
            await wire.send(chunk(first + second + sound() + END) + b"0\r\n\r\n")
        else:
            await wire.send(chunk(first + sound()))
            await wire.send(chunk(second + END) + b"0\r\n\r\n")
        answer = await wire.reply()
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"
    assert not tenant.openai.requests, "the provider has seen no whole request"
