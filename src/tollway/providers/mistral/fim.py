"""Mistral as a provider of legacy completions: its code models fill in the middle, and answer in the form of chat."""

from collections.abc import Mapping

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.domain.refusals import BadRequest
from tollway.providers import classify
from tollway.providers.base import ChatResult, UpstreamRequest, is_good
from tollway.providers.mistral.draft import Draft, unsupported
from tollway.providers.mistral.parameters import RULES as CHAT
from tollway.providers.mistral.parameters import Rule, Verb, elsewhere, put_parameters
from tollway.providers.mistral.reply import whole
from tollway.providers.mistral.stream import MistralStream
from tollway.wire.chat_answer import ID_PREFIX as CHAT_PREFIX
from tollway.wire.chat_answer import ChunkChoice, TokenCounts
from tollway.wire.chat_chunks import frame
from tollway.wire.chat_request import ChatCall
from tollway.wire.completion_answer import FINISH_REASONS, ID_PREFIX, TextChoice, TextCompletion, frames_of_text
from tollway.wire.completion_request import CompletionCall
from tollway.wire.json import UNSET, Raw, Unset, decoder, encode, is_null, is_text

CODE_MODELS = ("codestral", "devstral")
"""How the names of the models begin that fill in the middle."""

_PATH = b"/fim/completions"


class MistralCompletions:
    """An :class:`~tollway.providers.base.Adapter` for Mistral."""

    def encode(self, call: CompletionCall, model: str) -> UpstreamRequest | BadRequest:
        """The request made anew from what Mistral knows; what it cannot carry is warned of or refused."""
        suffix = call.top.get("suffix")
        if not model.startswith(CODE_MODELS) and (suffix is None or is_null(suffix)):
            text = "This model takes a prompt only with a 'suffix'; without one, use /v1/chat/completions."
            return BadRequest(text, "model", "unsupported_value")
        draft = Draft(call, model)
        refusal = _put_prompt(draft) or put_parameters(draft, RULES) or draft.refusal
        return refusal or UpstreamRequest(_PATH, encode(draft.body), tuple(draft.warnings))

    def decode(
        self, status: int, headers: Mapping[bytes, bytes], body: bytes, call: CompletionCall
    ) -> ChatResult | UpstreamFailure:
        """The answer in OpenAI's format."""
        return _whole(body, _as_chat(call)) if is_good(status) else classify.classify(status, headers, body)

    def classify(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> UpstreamFailure:
        """Why an answer whose status says so failed."""
        return classify.classify(status, headers, body)

    def decoder(self, call: CompletionCall) -> "FimStream":
        """A decoder for one stream."""
        return FimStream(call)


# --- the request --------------------------------------------------------------------------------------------

_as_raws = decoder(list[Raw])
_as_flag = decoder(bool)
_as_int = decoder(int)
_as_number = decoder(float)


def _put_prompt(draft: Draft) -> BadRequest | None:
    raw = draft.call.top["prompt"]
    texts = [raw] if is_text(raw) or is_null(raw) else _as_raws(raw)
    if len(texts) != 1 or not is_text(texts[0]):
        return unsupported("prompt", "other than one text is not supported")
    draft.body["prompt"] = texts[0]
    return None


def _echo(raw: Raw, _: Draft) -> BadRequest | None:
    return unsupported("echo") if _as_flag(raw) else None


def _one(name: str) -> Rule:
    def apply(raw: Raw, _: Draft) -> BadRequest | None:
        return unsupported(name, "above 1 is not supported") if _as_int(raw) > 1 else None

    return Rule(Verb.REFUSE, "1: dropped", apply)


def _penalty(name: str) -> Rule:
    def apply(raw: Raw, draft: Draft) -> None:
        if _as_number(raw):
            draft.warn("dropped", name)

    return Rule(Verb.WARN, "0: dropped", apply)


RULES: Mapping[str, Rule] = {
    "model": Rule(Verb.MAP, "code models, others with a suffix only", elsewhere),
    "prompt": Rule(Verb.MAP, "one text, bare or in a list", elsewhere),
    "suffix": Rule(Verb.PASS),
    "stream": Rule(Verb.PASS),
    "stream_options": CHAT["stream_options"],
    "max_tokens": Rule(Verb.PASS),
    "temperature": CHAT["temperature"],
    "top_p": CHAT["top_p"],
    "stop": Rule(Verb.PASS),
    "seed": CHAT["seed"],
    "n": _one("n"),
    "best_of": _one("best_of"),
    "echo": Rule(Verb.REFUSE, "false: dropped", _echo),
    "logprobs": Rule(Verb.REFUSE),
    "logit_bias": CHAT["logit_bias"],
    "frequency_penalty": _penalty("frequency_penalty"),
    "presence_penalty": _penalty("presence_penalty"),
    "user": Rule(Verb.WARN),
    # Mistral's own, for clients that know whom they talk to
    "random_seed": Rule(Verb.PASS),
    "min_tokens": Rule(Verb.PASS),
    "metadata": Rule(Verb.PASS),
    "prompt_cache_key": Rule(Verb.PASS),
}
"""The whole of OpenAI's completions request."""


# --- the answer ---------------------------------------------------------------------------------------------


class _Message(msgspec.Struct, gc=False):
    content: str | None = None


class _Choice(msgspec.Struct, gc=False):
    index: int
    message: _Message
    finish_reason: str


class _ChatAnswer(msgspec.Struct, gc=False):
    id: str
    created: int
    model: str
    choices: list[_Choice]
    usage: TokenCounts | Unset = UNSET


_decode_chat = decoder(_ChatAnswer)


def _as_chat(call: CompletionCall) -> ChatCall:
    """The call as the decoders of chat answers know it."""
    return ChatCall(
        model=call.model,
        stream=call.stream,
        include_usage=call.include_usage,
        max_output_tokens=call.max_output_tokens,
        n=call.n,
        prompt_bytes=call.prompt_bytes,
        prefill="",
        messages=[],
        created=call.created,
        strict=call.strict,
        top={},
    )


def _whole(body: bytes, call: ChatCall) -> ChatResult | UpstreamFailure:
    result = whole(body, call)
    if isinstance(result, UpstreamFailure):
        return result
    chat = _decode_chat(result.body)
    completion = TextCompletion(
        id=_completion_id(chat.id),
        created=chat.created,
        model=chat.model,
        choices=[
            TextChoice(
                text=choice.message.content or "", index=choice.index, finish_reason=_reason(choice.finish_reason)
            )
            for choice in chat.choices
        ],
        usage=chat.usage,
    )
    return result._replace(body=encode(completion))


class FimStream(MistralStream):
    """A chat stream written as pieces of text."""

    __slots__ = ()

    def __init__(self, call: CompletionCall) -> None:
        super().__init__(_as_chat(call))
        self._whole = _whole  # for an answer that is no stream

    def _write(self, choices: list[ChunkChoice], usage: TokenCounts | None = None) -> bytes:
        texts = [
            TextChoice(text=choice.delta.content or "", index=choice.index, finish_reason=_reason(choice.finish_reason))
            for choice in choices
            if choice.delta.content or choice.finish_reason is not None
        ]
        if choices and not texts:
            return b""  # who speaks is of no interest here
        shown = usage if self._call.include_usage else UNSET
        completion_id = _completion_id(self._id)
        return frame(
            TextCompletion(id=completion_id, created=self._created, model=self._model, choices=texts, usage=shown)
        )

    def _frames_of_reply(self, body: bytes) -> bytes:
        return frames_of_text(body, self._call)


def _reason(reason: str | None) -> str | None:
    return reason if reason is None or reason in FINISH_REASONS else "stop"


def _completion_id(chat_id: str) -> str:
    return ID_PREFIX + chat_id.removeprefix(CHAT_PREFIX)
