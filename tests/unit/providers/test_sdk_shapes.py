"""What Mistral's answers become has every member that OpenAI's own SDK declares, in the declared type."""

import json
from pathlib import Path
from typing import Any

import pytest
from golden import call, cases, sections, streams, with_ids
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tollway.providers.base import ChatResult, UpstreamRequest
from tollway.providers.mistral.adapter import MistralChat
from tollway.providers.openai import OpenAIChat
from tollway.providers.quirks import Quirks


@pytest.mark.parametrize("path", streams("mistral/streams"), ids=lambda path: path.stem)
def test_every_chunk_is_a_chunk_to_the_sdk(path: Path) -> None:
    for frame in with_ids(sections(path)["client"]).split("\n\n")[:-1]:
        if frame.startswith("data: {"):
            ChatCompletionChunk.model_validate_json(frame[6:], strict=True)


@pytest.mark.parametrize("case", [case for case in cases("mistral/replies.json") if "client" in case])
def test_every_answer_is_an_answer_to_the_sdk(case: Any) -> None:
    result = MistralChat(Quirks()).decode(200, {}, json.dumps(case["reply"]).encode(), call(case.get("given", {})))
    assert isinstance(result, ChatResult)
    ChatCompletion.model_validate_json(result.body, strict=True)


def test_a_server_that_knows_no_stream_options_gets_none_from_us() -> None:
    request = OpenAIChat(Quirks(stream_options=False)).encode(call({"stream": True}), "m")
    assert isinstance(request, UpstreamRequest)
    assert b"stream_options" not in request.body
