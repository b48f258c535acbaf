"""Mistral as a provider of chat completions."""

from collections.abc import Mapping

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.providers import classify
from tollway.providers.base import ChatResult, UpstreamRequest, is_good
from tollway.providers.mistral.draft import Draft
from tollway.providers.mistral.history import put_messages
from tollway.providers.mistral.parameters import RULES, put_parameters
from tollway.providers.mistral.reply import whole
from tollway.providers.mistral.stream import MistralStream
from tollway.providers.mistral.tools import put_tools
from tollway.providers.quirks import Quirks
from tollway.wire.chat_request import ChatCall
from tollway.wire.json import encode

_PATH = b"/chat/completions"


class MistralChat:
    """A :class:`~tollway.providers.base.Adapter` for Mistral."""

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks

    def encode(self, call: ChatCall, model: str) -> UpstreamRequest | BadRequest:
        """The request made anew from what Mistral knows; what it cannot carry is warned of or refused."""
        draft = Draft(call, model, self._quirks)
        refusal = (
            put_messages(draft, call.messages)
            or put_parameters(draft, RULES)
            or put_tools(draft, call)
            or draft.refusal
        )
        return refusal or UpstreamRequest(_PATH, encode(draft.body), tuple(draft.warnings))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: ChatCall
    ) -> ChatResult | UpstreamFailure:
        """The answer in OpenAI's format."""
        return whole(body, call) if is_good(status) else classify.classify(status, headers, body)

    def classify(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
        """Why an answer whose status says so failed."""
        return classify.classify(status, headers, body)

    def decoder(self, call: ChatCall) -> MistralStream:
        """A decoder for one stream."""
        return MistralStream(call)
