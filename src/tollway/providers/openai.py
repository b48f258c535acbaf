"""OpenAI's own dialect, and everybody's who copies it: bytes pass as they are, the gateway only looks on.

1. Upstream goes what was judged: the members of the body as they came, with the provider's name of the model.
2. A stream always ends with its usage, as it is asked for here; a client that did not ask does not see it.
3. Every event is decoded, but only into what is looked at: 0.4 microseconds, cheaper than searching for four words.
4. What is not what client libraries take is mended: texts in the wrong type (``tidy.py``), pieces of calls
   (``chunk_repairs.py``), reasons to end that are none, come too early or never (``reasons.py``).
"""

from collections.abc import Mapping

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.providers import classify
from tollway.providers.base import ChatResult, UpstreamRequest, is_good
from tollway.providers.openai_repairs import put_cap, with_image_objects
from tollway.providers.openai_reply import whole
from tollway.providers.openai_stream import OpenAIStream
from tollway.providers.quirks import Quirks
from tollway.wire.chat_request import ChatCall
from tollway.wire.json import Raw, encode, is_null, members
from tollway.wire.model_call import ModelCall

_PATH = b"/chat/completions"


class OpenAIChat:
    """A :class:`~tollway.providers.base.Adapter` for providers that speak OpenAI's dialect."""

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks

    def encode(self, call: ChatCall, model: str) -> UpstreamRequest | BadRequest:
        """The client's body with the provider's name of the model; a stream is asked for its usage."""
        if call.beyond is not None and self._quirks.openai_ranges:
            return call.beyond
        top = put_cap({**call.top, "model": model}, model, self._quirks)
        put_stream_options(top, call, self._quirks)
        if call.bare_images:
            top["messages"] = with_image_objects(call.top["messages"])
        return UpstreamRequest(_PATH, encode(top))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: ChatCall
    ) -> ChatResult | UpstreamFailure:
        """The body as it came, if it is a chat answer as clients take it; else mended, if it can be."""
        return whole(body, call) if is_good(status) else classify.classify(status, headers, body)

    def classify(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
        """Why an answer whose status says so failed."""
        return classify.classify(status, headers, body)

    def decoder(self, call: ChatCall) -> OpenAIStream:
        """A decoder for one stream."""
        return OpenAIStream(call)


def put_stream_options(top: dict[str, object], call: ModelCall, quirks: Quirks) -> None:
    """Ask a stream for its usage; a server that does not know the options gets none, whoever wishes for them."""
    if not quirks.stream_options:
        top.pop("stream_options", None)
    elif call.stream and not call.include_usage:
        top["stream_options"] = _asking_usage(call.top.get("stream_options"))


def _asking_usage(given: Raw | None) -> object:
    """The client's stream options, if any, with the wish for usage."""
    if given is None or is_null(given):
        return {"include_usage": True}
    return {**members(given), "include_usage": True}
