"""Embeddings, legacy completions and moderations through the whole gateway, at both providers."""

import base64
import struct

from fakes.gateway import Tenant
from fakes.upstream import embeddings_reply, event, reply


async def test_embeddings_pass_to_openai_as_they_are(tenant: Tenant) -> None:
    tenant.openai.answers(embeddings_reply())
    body = {"model": tenant.model, "input": ["1", "2"], "dimensions": 2}
    answer = await tenant.post("/v1/embeddings", body)
    assert (answer.status, answer.json["data"][1]["embedding"]) == (200, [2.0, 0.5])
    assert tenant.openai.requests[0].json == body
    assert answer.header("x-tollway-cost") == "0.000002"
    (entry,) = await tenant.ledger(1)
    assert (entry["operation"], entry["input_tokens"], entry["output_tokens"]) == ("embeddings", 2, 0)


async def test_many_embeddings_are_split_for_mistral_and_joined_again(tenant: Tenant) -> None:
    tenant.mistral.answers(embeddings_reply())
    texts = [str(number) for number in range(1100)]
    body = {"model": tenant.mistral_model, "input": texts, "encoding_format": "base64"}
    answer = await tenant.post("/v1/embeddings", body)
    assert answer.status == 200
    found = answer.json
    assert [item["index"] for item in found["data"]] == list(range(1100))
    vectors = [struct.unpack("<2f", base64.b64decode(item["embedding"])) for item in found["data"]]
    assert vectors == [(float(number), 0.5) for number in range(1100)]
    assert found["usage"] == {"prompt_tokens": 1100, "total_tokens": 1100}
    assert [len(request.json["input"]) for request in tenant.mistral.requests] == [512, 512, 76]
    (entry,) = await tenant.ledger(1)
    assert entry["input_tokens"] == 1100


async def test_a_legacy_completion_streams(tenant: Tenant) -> None:
    chunk = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    choice = {"index": 0, "text": "4", "logprobs": None, "finish_reason": None}

    tenant.openai.answers(
        lambda request: [
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
            event({**chunk, "choices": [choice]}),
            event({**chunk, "choices": [{**choice, "text": "", "finish_reason": "stop"}]}),
            event({**chunk, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}}),
            event("[DONE]"),
            b"0\r\n\r\n",
        ]
    )
    answer = await tenant.post("/v1/completions", {"model": tenant.model, "prompt": "2+2=", "stream": True})
    assert answer.status == 200
    lines = [line for line in answer.body.decode().split("\n\n") if line]
    assert len(lines) == 3 and lines[-1] == "data: [DONE]", "the usage was not asked for"
    assert tenant.openai.requests[0].json["stream_options"] == {"include_usage": True}
    (entry,) = await tenant.ledger(1)
    assert (entry["operation"], entry["input_tokens"], entry["output_tokens"]) == ("completions", 3, 1)


async def test_a_moderation_without_a_model_goes_to_openai_and_is_free(tenant: Tenant) -> None:
    verdict = {"id": "modr-1", "model": "omni-moderation-latest", "results": [{"flagged": False}]}
    tenant.openai.answers(reply(200, verdict))
    answer = await tenant.post("/v1/moderations", {"input": "I like you"})
    assert (answer.status, answer.json) == (200, verdict)
    assert tenant.openai.requests[0].json == {"input": "I like you"}
    assert answer.header("x-tollway-cost") == "0"
    (entry,) = await tenant.ledger(1)
    assert (entry["operation"], entry["cost"], entry["priced"]) == ("moderations", 0, True)
