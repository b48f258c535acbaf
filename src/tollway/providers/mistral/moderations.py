"""Mistral as a provider of moderations. Its categories are others than OpenAI's: what has no counterpart is not shown,
and OpenAI's categories that Mistral does not judge are never flagged.
"""

from collections.abc import Iterator, Mapping
from typing import TypeVar

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.providers import classify
from tollway.providers.base import ChatResult, UpstreamRequest, is_good
from tollway.providers.bounds import MAX_ODD_BYTES
from tollway.providers.mistral.draft import Draft, unsupported_value
from tollway.providers.mistral.parameters import Rule, Verb, elsewhere, put_parameters
from tollway.providers.unstreamed import Unstreamed
from tollway.providers.usage import read_input_usage
from tollway.wire.json import UNREADABLE, UNSET, Raw, Unset, decoder, encode
from tollway.wire.loose_json import of_a_body
from tollway.wire.moderation_request import InputPart, ModerationCall

T = TypeVar("T")

CATEGORIES: Mapping[str, tuple[str, ...]] = {
    "harassment": (),
    "harassment/threatening": (),
    "hate": ("hate_and_discrimination",),
    "hate/threatening": (),
    "illicit": ("dangerous", "criminal"),  # one in older models: dangerous_and_criminal_content
    "illicit/violent": (),
    "self-harm": ("selfharm",),
    "self-harm/instructions": (),
    "self-harm/intent": (),
    "sexual": ("sexual",),
    "sexual/minors": (),
    "violence": ("violence_and_threats",),
    "violence/graphic": (),
}
"""OpenAI's categories, all of them, and how the names of Mistral's begin that mean the same."""

ID_PREFIX = "modr-"

_PATH = b"/moderations"


class MistralModerations(Unstreamed):
    """An :class:`~tollway.providers.base.Adapter` for Mistral."""

    def encode(self, call: ModerationCall, model: str) -> UpstreamRequest | BadRequest:
        """The request made anew from what Mistral knows."""
        draft = Draft(call, model)
        refusal = _put_input(draft, call) or put_parameters(draft, RULES) or draft.refusal
        return refusal or UpstreamRequest(_PATH, encode(draft.body), tuple(draft.warnings))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: ModerationCall
    ) -> ChatResult | UpstreamFailure:
        """The answer in OpenAI's format."""
        return _whole(body, call) if is_good(status) else classify.classify(status, headers, body)


# --- the request --------------------------------------------------------------------------------------------


def _put_input(draft: Draft, call: ModerationCall) -> BadRequest | None:
    """Texts as they came; the parts of one input, which have one result together, as one text."""
    texts = []
    for index, part in enumerate(call.input):
        if isinstance(part, InputPart):
            if part.type != "text":
                return unsupported_value(f"input[{index}].type", part.type)
            if isinstance(part.text, Unset):
                missing = f"input[{index}].text"
                return BadRequest(f"Missing required parameter: '{missing}'.", missing, "missing_required_parameter")
            texts.append(part.text)
    draft.body["input"] = "\n".join(texts) if texts else call.top["input"]
    return None


RULES: Mapping[str, Rule] = {
    "model": Rule(Verb.MAP, "the provider's name of the model", elsewhere),
    "input": Rule(Verb.MAP, "text only; parts are joined", elsewhere),
    # Mistral's own, for clients that know whom they talk to
    "metadata": Rule(Verb.PASS),
}
"""The whole of OpenAI's moderations request."""


# --- the answer ---------------------------------------------------------------------------------------------


class _Received(msgspec.Struct, gc=False):
    categories: dict[str, bool]
    category_scores: dict[str, float | None]


class _Reply(msgspec.Struct, gc=False):
    results: list[_Received]
    id: str = ""
    model: str = ""
    usage: Raw | Unset = UNSET


class _Result(msgspec.Struct, gc=False):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[str]]


class _Moderation(msgspec.Struct, gc=False):
    id: str
    model: str
    results: list[_Result]


_decode_reply = decoder(_Reply)


def _whole(body: bytes, call: ModerationCall) -> ChatResult | UpstreamFailure:
    try:
        try:
            reply = _decode_reply(body)
        except UNREADABLE:
            if len(body) > MAX_ODD_BYTES:
                raise
            reply = _decode_reply(of_a_body(body))
    except UNREADABLE:
        return classify.no_answer(body)
    asked = 1 if isinstance(call.input[0], InputPart) else len(call.input)
    if len(reply.results) != asked:
        return classify.NO_ANSWER
    results = [_result(received) for received in reply.results]
    answer = _Moderation(ID_PREFIX + reply.id, reply.model or call.model, results)
    return ChatResult(encode(answer), read_input_usage(reply.usage))


def _result(received: _Received) -> _Result:
    flags = {name: any(_those(theirs, received.categories)) for name, theirs in CATEGORIES.items()}
    judged = {name: score for name, score in received.category_scores.items() if score is not None}
    scores = {name: max(_those(theirs, judged), default=0.0) for name, theirs in CATEGORIES.items()}
    return _Result(any(flags.values()), flags, scores, {name: ["text"] for name in CATEGORIES})


def _those(theirs: tuple[str, ...], judged: Mapping[str, T]) -> Iterator[T]:
    """What Mistral says about its categories whose names begin so."""
    return (value for name, value in judged.items() if name.startswith(theirs))
