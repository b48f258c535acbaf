"""Streams in OpenAI's own dialect: frames pass as they came, unless there is something to mend or to keep back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, Protocol

import msgspec

from tollway.domain.failures import UpstreamFailure
from tollway.providers import classify, tidy
from tollway.providers.base import ChatResult
from tollway.providers.bounds import MAX_CHOICES
from tollway.providers.chunk_repairs import (
    Choice,
    Progress,
    answer_id,
    argued_bytes,
    mended,
    said_bytes,
    whole_call,
)
from tollway.providers.openai_reply import whole
from tollway.providers.reasons import real_reason
from tollway.providers.service_tier import tier_of, with_tier
from tollway.providers.stream import C, ChatStream, E
from tollway.providers.usage import read_usage
from tollway.wire.chat_chunks import IN_EACH_CHUNK, is_short
from tollway.wire.chat_request import ChatCall
from tollway.wire.json import UNSET, Raw, Unset, decoder, encode, members

MAX_KEPT_BYTES = 16 * 1024
"""Of a chunk that waits because it holds a reason to end; of a longer one only the reason waits."""

_HEAD = frozenset((*IN_EACH_CHUNK, "choices", "usage"))
_LF, _BRACE = b"\n{"
_NULL_USAGE = b',"usage":null'
_SAYS_NOTHING = frozenset({b"null", b'""', b"[]", b"{}"})

_as_objects = decoder(list[dict[str, Raw]])


class _Named(msgspec.Struct, gc=False):
    object: Raw = Raw(b"null")


_decode_name = decoder(_Named)


class Event(msgspec.Struct, gc=False):
    """What is looked at of every event, beside its ``choices``."""

    usage: dict[str, Raw] | Unset | None = UNSET
    error: Raw | Unset = UNSET


class _Told(Protocol):
    """A choice in a chunk, of whatever kind."""

    index: int
    finish_reason: str | None


class PassingStream(ChatStream[C, E]):
    """Frames pass as they came. Usage is told by one chunk, the last, where it was asked for; before it come the
    reasons to end, each in the chunk that gave it, if that chunk said nothing more, else in one of its own."""

    __slots__ = ("_head", "_totals", "_waiting")

    _member: ClassVar[str]
    """Where a choice in a chunk has what it says."""

    _silence: ClassVar[object]
    """What stands there where it says nothing."""

    def __init__(self, call: C, whole: Callable[[bytes, C], ChatResult | UpstreamFailure]) -> None:
        super().__init__(call, whole)
        self._totals = b""  # the chunk that tells the usage
        self._waiting: dict[int, bytes] = {}  # by choice: the chunk with its reason to end
        self._head = b""  # of the first chunk with an answer in it

    def _shows_itself(self, index: int, data: bytes) -> E:
        """The first that is seen of a choice."""
        if not self._head:
            top = members(data)
            self._head = encode({name: raw for name, raw in top.items() if name in IN_EACH_CHUNK and is_short(raw)})
        return self._begin(index)

    def _says(self, choice: Mapping[str, Raw]) -> bool:
        """Whether a choice in a chunk says anything for the reader."""
        raise NotImplementedError

    def _has_more(self, choice: Mapping[str, Raw]) -> bool:
        """Whether it holds anything else that cannot wait."""
        return False

    def _special(self, event: Event, data: bytes, name: bytes, *, has_choices: bool) -> bytes | None:
        """What goes out for an event that has a name, an error or no choices; None for one that is like all others."""
        marked = name == b"error" or bytes(_decode_name(data).object) == b'"error"' or classify.is_problem(event.error)
        if self._fails(data, marked=marked, alone=not has_choices and event.usage is UNSET):
            return b""
        if has_choices:
            return None
        if event.usage:
            top = members(data)
            self._totals = data if "choices" in top else encode({**top, "choices": []})
        elsewhere = self._tidied(data) if tidy.may_say_elsewhere(data) else None
        if elsewhere is None:
            return b""
        found = self._decode(elsewhere)
        return self._frame(found, elsewhere, b"", b"") if found.choices else b""

    # --- reasons to end -----------------------------------------------------------------------------------------

    def _keep_back(self, data: bytes, choices: Sequence[_Told]) -> bytes:
        """What of a chunk goes out now, if anything; its reasons to end wait until nothing can follow them."""
        top = members(data)
        now: list[object] = []
        told = _as_objects(top["choices"])
        if self._counted is None:
            self._count_elsewhere(data, top, told)
        for raw, choice in zip(told, choices, strict=True):
            if choice.finish_reason is None:
                now.append(raw)
                continue
            says, reason = self._says(raw), real_reason(choice.finish_reason)
            if reason == "error":
                self.failure = classify.gave_up(data)
                return b""
            if says:
                self._endings[choice.index].said(reason)
            has_more = says or self._has_more(raw)
            if reason is not None:
                alone = not has_more and len(choices) == 1
                chunk = data if alone else self._waits(top, raw, told=has_more)
                self._wait(chunk, choice.index, reason, says=says)
            if has_more or reason is None:
                now.append({**raw, "finish_reason": None})
        return framed(encode({**top, "choices": now})) if now else b""

    def _wait(self, chunk: bytes, index: int, reason: str, *, says: bool) -> None:
        """Keep a reason, and the chunk that tells it."""
        ending = self._endings[index]
        known = ending.reason
        ending.told(reason, beside_text=says)
        self._told()
        if reason == known:
            return
        self._waiting.pop(index, None)
        self._waiting[index] = chunk if len(chunk) <= MAX_KEPT_BYTES else self._added(index, self._silence, reason)

    def _waits(self, top: Mapping[str, Raw], choice: Mapping[str, Raw], *, told: bool) -> bytes:
        """The chunk with the reason of one choice; where the rest of it is told now, with nothing else."""
        silent: dict[str, object] = {**choice, self._member: self._silence}
        if told:
            top = {name: raw for name, raw in top.items() if name in _HEAD}
            bare = ("index", self._member, "logprobs", "finish_reason")
            silent = {name: None if name == "logprobs" else raw for name, raw in silent.items() if name in bare}
        return encode({**top, "choices": [silent]})

    def _added(self, index: int, said: object, reason: str | None) -> bytes:
        """A chunk of our own."""
        choice = {"index": index, self._member: said, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._call.include_usage else {}
        return encode({**members(self._head), "choices": [choice], **usage})

    def _last_frames(self) -> bytes:
        chunks = [*self._left(), *self._waiting.values()]
        for index, ending in self._endings.items():
            if ending.reason is None:
                chunks.append(self._added(index, self._silence, ending.usual))
        if self._totals and self._call.include_usage:
            chunks.append(self._totals)
        return b"".join([framed(chunk) for chunk in chunks])

    def _left(self) -> list[bytes]:
        """Chunks with what was kept back of what was said."""
        return []

    # --- usage --------------------------------------------------------------------------------------------------

    def _count(self, usage: dict[str, Raw], data: bytes) -> None:
        """The service tier stands beside the usage, or only in the first chunk."""
        counts = read_usage(Raw(encode(usage)))
        if counts is not None:
            tier = tier_of(data)
            tier = tier_of(self._head) if isinstance(tier, Unset) and self._head else tier
            self._tells(with_tier(counts, tier), data)

    def _count_elsewhere(self, data: bytes, top: Mapping[str, Raw], choices: Sequence[Mapping[str, Raw]]) -> None:
        """A usage beside a reason to end: Kimi tells it in the choice, Groq in a member of its own."""
        places = [*choices, members(top["x_groq"])] if _is_object(top.get("x_groq")) else choices
        for place in places:
            if _is_object(place.get("usage")):
                self._count(members(place["usage"]), data)

    def _with_usage_apart(self, data: bytes) -> bytes:
        top: dict[str, object] = {**members(data)}
        self._totals = encode({**top, "choices": []})
        return encode({**top, "usage": None})

    def _shown(self, data: bytes, frame: bytes, usage: dict[str, Raw] | Unset | None, told: Sequence[_Told]) -> bytes:
        """What goes out of a chunk now. ``told``: its choices, if one of them has a reason to end."""
        if told:
            return self._keep_back(self._with_usage_as_asked(data, usage), told)
        if frame and not usage:
            if self._call.include_usage:
                if usage is None:
                    return frame
            elif usage is UNSET:
                return frame
            else:
                shorter = frame.replace(_NULL_USAGE, b"")
                if len(shorter) == len(frame) - len(_NULL_USAGE):
                    return shorter
        return framed(self._with_usage_as_asked(data, usage))

    def _with_usage_as_asked(self, data: bytes, usage: dict[str, Raw] | Unset | None) -> bytes:
        """The chunk without its usage, with a null one, or as it came: as the client has asked."""
        if usage is UNSET:
            return with_null_usage(data) if self._call.include_usage else data
        if not self._call.include_usage:
            return without_usage(data)
        return self._with_usage_apart(data) if usage else data


class _Glance(Event, gc=False):
    choices: Annotated[list[Choice], msgspec.Meta(max_length=MAX_CHOICES)] = []


class _Chunk(_Glance, gc=False):
    object: str = ""
    id: str = ""
    created: int = 0
    model: str = ""


class _AnyChoice(msgspec.Struct, gc=False):
    delta: dict[str, Raw]


class _AnyChunk(msgspec.Struct, gc=False):
    choices: list[_AnyChoice]


_decode_any_chunk = decoder(_AnyChunk)


class OpenAIStream(PassingStream[ChatCall, Progress]):
    """A chat. Usage is read from the frames, and hidden where it was not asked for."""

    __slots__ = ()

    _decode = staticmethod(decoder(_Chunk))
    _glance = staticmethod(decoder(_Glance))
    _ending = Progress
    _member = "delta"
    _silence: ClassVar[object] = {}

    def __init__(self, call: ChatCall) -> None:
        super().__init__(call, whole)

    def _tidied(self, data: bytes) -> bytes | None:
        return tidy.chat_chunk(data, self._missing(data), self._sums_up)

    def _frame(self, chunk: _Glance, data: bytes, name: bytes, frame: bytes) -> bytes:
        choices, usage = chunk.choices, chunk.usage
        if usage:
            self._count(usage, data)
        if not choices or chunk.error is not UNSET or name:
            out = self._special(chunk, data, name, has_choices=bool(choices))
            if out is not None:
                return out
        endings = self._endings
        odd = told = False
        for choice in choices:
            progress = endings.get(choice.index)
            if progress is None:
                progress = self._shows_itself(choice.index, data)
                odd = True  # perhaps: it has to tell its role
            delta = choice.delta
            content = delta.content
            if (
                content is not None
                and delta.tool_calls is None
                and delta.role is UNSET
                and delta.reasoning_content is None
                and delta.reasoning is None
                and delta.refusal is None
                and delta.function_call is None
            ):
                says = len(content) if content.isascii() else len(content.encode())
            elif (says := argued_bytes(delta, progress.numbers)) == 0:
                odd = True
                says = said_bytes(delta)
            self.content_bytes += says
            if choice.finish_reason is not None:
                told = True
            elif progress.watched and says:
                progress.said(None, content)
                self._told()
        if not self.started:
            self.started = _says_something(data)
        if odd:
            repaired = mended(data, choices, endings)
            if repaired is not data:
                data, frame = repaired, b""
        return self._shown(data, frame, usage, choices if told else ())

    def _says(self, choice: Mapping[str, Raw]) -> bool:
        return _holds_something(members(choice["delta"]))

    def _has_more(self, choice: Mapping[str, Raw]) -> bool:
        """A role that is told for the first time."""
        return bytes(members(choice["delta"]).get("role", b"null")) != b"null"

    def _left(self) -> list[bytes]:
        where = answer_id(members(self._head)) if self._head else ""
        chunks = []
        for index, progress in self._endings.items():
            if progress.numbers is not None and (places := progress.numbers.unnamed()):
                calls = [whole_call(place, f"{where}:{index}") for place in places]
                chunks.append(self._added(index, {"tool_calls": calls}, None))
        if self._halves is not None and self._halves.left:
            chunks.append(self._added(0, {"content": "\ufffd"}, None))
        return chunks


def _is_object(raw: Raw | None) -> bool:
    return raw is not None and memoryview(raw)[0] == _BRACE


def _says_something(data: bytes) -> bool:
    """Whether any delta holds more than a role and empty members."""
    return any(_holds_something(choice.delta) for choice in _decode_any_chunk(data).choices)


def _holds_something(delta: Mapping[str, Raw]) -> bool:
    return any(name != "role" and bytes(value) not in _SAYS_NOTHING for name, value in delta.items())


def without_usage(data: bytes) -> bytes:
    """A chunk without its usage."""
    shorter = data.replace(_NULL_USAGE, b"")
    if len(shorter) == len(data) - len(_NULL_USAGE):
        return shorter
    top = members(data)
    del top["usage"]
    return encode(top)


def with_null_usage(data: bytes) -> bytes:
    """A chunk that tells no usage, as it should say so where usage was asked for; it has other members."""
    return data.rstrip()[:-1] + _NULL_USAGE + b"}"


def framed(chunk: bytes) -> bytes:
    """A chunk as one line of an event: line ends stand between members only, as JSON has none inside its texts."""
    return b"data: %b\n\n" % (chunk if _LF not in chunk else chunk.replace(b"\n", b" "))
