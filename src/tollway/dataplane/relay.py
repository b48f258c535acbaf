"""Relaying a stream whose first event was good: provider → decoder → client, settled whatever way it ends.

1. From here on no other provider is tried, because the client has seen content.
2. The terminal event goes out only after the attempt is settled.
3. A stream that did not end well ends with a typed error event and without ``[DONE]``.
4. Whoever ends it, it is settled exactly once: the books see to that.
5. A client that hangs up ends it, unless its model's row says otherwise or nothing is missing any more but what the
   answer used: then it is read on, for nobody. What is read for nobody is kept nowhere.
"""

import asyncio

from tollway.accounting.records import Checkpoint
from tollway.dataplane.books import CLIENT_GONE, INTERNAL_ERROR
from tollway.dataplane.calls import Attempt, Cut, reading_on
from tollway.dataplane.failures import failure_of, fit_to_tell
from tollway.dataplane.offload import AT_ONCE_BYTES
from tollway.dataplane.world import World
from tollway.domain.asked import NoUsage
from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.http1.answer import StreamedResponse
from tollway.http1.errors import UpstreamError
from tollway.providers.base import StreamDecoder
from tollway.wire.estimate import output_tokens_estimate
from tollway.wire.openai_errors import error_event
from tollway.wire.sse import EVENT_ENDS

_LAST_CHUNK_S = 0.1
"""After ``[DONE]``: how long the end of the provider's body is awaited, which saves a connection."""

USAGE_S = 1.0
"""How long the usage is awaited for a client that has hung up when all was said: providers send it at once."""

USAGE_BYTES = 4 * 1024 * 1024
"""How much is read for it. The last event of a response repeats the whole answer and what was asked."""

_CUTS = {
    Cut.REVOKED: UpstreamFailure(FailureKind.REQUEST, "The API key has been revoked.", code="revoked_api_key"),
    Cut.EXPIRED: UpstreamFailure(FailureKind.REQUEST, "The API key has expired.", code="expired_api_key"),
    Cut.DRAINED: UpstreamFailure(FailureKind.REQUEST, "The gateway is stopping.", code="draining", type="server_error"),
}
"""What a client reads when the gateway itself cuts its stream."""


_CRASHED = UpstreamFailure(FailureKind.REQUEST, "Internal error.", code="server_error", type="server_error")


class Relay:
    """The second half of a streamed attempt."""

    __slots__ = (
        "_attempt",
        "_decoder",
        "_last",
        "_noted_bytes",
        "_quiet_last",
        "_quiet_since",
        "_response",
        "_stream",
        "_unfinished",
        "_unheard",
        "_world",
    )

    def __init__(
        self, world: World, attempt: Attempt, decoder: StreamDecoder, response: StreamedResponse, head: bytes
    ) -> None:
        self._world = world
        self._attempt = attempt
        self._decoder = decoder
        self._response = response
        self._last = self._quiet_last = b""
        self._noted_bytes = 0  # of the content, at the last checkpoint
        self._unfinished = 0  # bytes of an event that has begun and goes out when it is whole
        self._unheard = False  # the client has hung up, and only the usage is awaited
        now = attempt.first_byte_at = self._quiet_since = world.now()
        target = attempt.upstream.target
        world.metrics.first_byte(target.model, target.provider.name, now - attempt.started)
        self._stream = attempt.call.request.start(response.status, head)
        self._stream.on_pause = response.pause
        self._stream.on_resume = response.resume
        attempt.call.request.on_gone = self._client_gone
        if self._stream.paused:  # the head alone was too much for the client
            response.pause()

    async def run(self, held: bytes) -> None:
        """Send what was held, then all that follows, until either side ends it. Never raises UpstreamError."""
        call, decoder = self._attempt.call, self._decoder
        failure: UpstreamFailure | None
        self._world.relays.add(self)
        try:
            self._send(held)
            self._response.keeps(0)
            while True:
                self._response.attach(self._feed_unheard if self._unheard else self._feed)
                await self._response.finished()
                if not self._response.detached:
                    break
                await self._feed_beside()
            self._send(decoder.close())
            failure = decoder.failure
        except _ProviderFailedError:
            failure = decoder.failure
        except UpstreamError as error:
            failure = failure_of(error)
            if decoder.finished:  # every choice gave its reason to end: nothing of the answer is missing
                self._send(decoder.close())
        except asyncio.CancelledError:
            if call.cut is None:
                self._charge(CLIENT_GONE)
                raise
            failure = _CUTS[call.cut]
        except Exception:
            self._charge(INTERNAL_ERROR)
            self._tell(_CRASHED)
            self._stream.end()
            raise
        finally:
            self._world.relays.discard(self)
            call.request.on_gone = None
        self._end(None if decoder.done else failure)

    def keep_alive(self, now: float, after_s: float) -> None:
        """Between two events, send a comment to a client that has been told nothing for so long."""
        if self._last is not self._quiet_last:
            self._quiet_last, self._quiet_since = self._last, now
        elif now - self._quiet_since >= after_s and not self._stream.paused and self._last.endswith(EVENT_ENDS):
            self._stream.write(b": keep-alive\n\n")
            self._quiet_since = now

    def checkpoint(self) -> Checkpoint | None:
        """What has come, if it is more than at the last time."""
        attempt, decoder = self._attempt, self._decoder
        if attempt.entered or decoder.content_bytes == self._noted_bytes:
            return None
        self._noted_bytes = decoder.content_bytes
        usage = decoder.usage
        by_text = attempt.call.operation.no_usage is NoUsage.ESTIMATE
        seconds = attempt.first_byte_at - attempt.started
        return Checkpoint(
            attempt.call.id,
            attempt.number,
            attempt.started_unix + self._world.now() - attempt.started,
            attempt.status,
            seconds * 1000,
            output_tokens_estimate(decoder.content_bytes) if by_text else 0,
            None if usage is None else (usage.input, usage.cache_read, usage.output, usage.reasoning),
            dict(usage.others) if usage is not None and usage.others else None,
            usage.service_tier if usage is not None else "",
            usage.doubt if usage is not None else "",
        )

    def _end(self, failure: UpstreamFailure | None) -> None:
        """Say how the stream ended; the terminal event of a good one has gone out."""
        attempt, call, world = self._attempt, self._attempt.call, self._world
        target, now = attempt.upstream.target, world.now()
        if failure is None:
            world.health.succeeded(target, call.grant, now)
        elif call.cut is not None:
            self._charge(call.cut.value)
            self._tell(failure)
        elif self._unheard:
            self._charge(CLIENT_GONE)  # a provider that tells no usage, or not so soon, has not failed
        else:
            failure = fit_to_tell(failure, attempt)
            world.health.failed(target, call.grant, failure, now)
            self._charge(failure.kind.value, failure)
            self._tell(failure)
        self._stream.end()

    def _tell(self, failure: UpstreamFailure) -> None:
        """Say why the answer ends here."""
        self._stream.write(error_event(failure))

    # A client that hangs up.

    def _client_gone(self) -> None:
        """Give the provider's answer up, or read on; from now on what is written goes nowhere."""
        response, drain = self._response, self._attempt.upstream.target.drain
        if self._attempt.entered or not (drain or self._all_said):
            self._give_up()
            return
        if not drain:
            self._unheard = True
            response.deadline = min(response.deadline, self._world.now() + USAGE_S)
            response.max_body = min(response.max_body, response.received + USAGE_BYTES)
            if response.sink is not None:
                response.attach(self._feed_unheard)
        response.resume()

    @property
    def _all_said(self) -> bool:
        """Whether nothing is missing but what the answer used."""
        return self._decoder.finished

    def _feed_unheard(self, piece: bytes) -> bool:
        """The next piece while only the usage is awaited. A model that says more after all is not listened to."""
        said_something = self._feed(piece)
        if not (self._all_said or self._attempt.entered):
            self._give_up()
        return said_something

    def _give_up(self) -> None:
        self._world.calls[self._attempt.call].cancel()

    # Pieces of the provider's answer.

    def _feed(self, piece: bytes) -> bool:
        """The next piece of the provider's answer, straight from its connection; whether there was anything in it."""
        if len(piece) > AT_ONCE_BYTES:
            return self._put_off(piece)
        decoder = self._decoder
        frames = decoder.feed(piece)
        if frames and not (self._unfinished or decoder.done or decoder.failure is not None):
            self._last = frames
            self._stream.write(frames)
            return True
        return self._pass_on(piece, frames)

    def _put_off(self, piece: bytes) -> bool:
        """So many events at once take too long for the event loop."""
        self._response.detach(piece)
        return not piece.startswith(b":")

    async def _feed_beside(self) -> None:
        """The pieces of a large event, or of many events, in turn and beside the event loop, while they are large.

        What is here is read before its client has left: it may say what is to be paid.
        """
        request, response = self._attempt.call.request, self._response
        while piece := await response.read():
            was_gone = request.closed
            with reading_on(request):
                await self._feed_parts(piece)
                if request.closed and not was_gone and response.held:
                    await self._feed_parts(await response.read())  # what has come meanwhile
            if request.closed and not was_gone:
                self._client_gone()
            if len(piece) <= AT_ONCE_BYTES and self._unfinished <= AT_ONCE_BYTES:
                return

    async def _feed_parts(self, piece: bytes) -> None:
        key_id = self._attempt.call.grant.id
        for start in range(0, len(piece), AT_ONCE_BYTES):
            part = piece[start : start + AT_ONCE_BYTES]
            self._pass_on(part, await self._world.offload.run(key_id, self._decoder.feed, part))

    def _pass_on(self, piece: bytes, frames: bytes) -> bool:
        self._note_unfinished(piece, frames)
        decoder = self._decoder
        if decoder.done or decoder.failure is not None:
            self._send(frames)
            if decoder.failure is not None:
                raise _ProviderFailedError
        elif frames:
            self._last = frames
            self._stream.write(frames)
        return bool(frames) or not piece.startswith(b":")  # a part of a large event is something, a comment is not

    def _note_unfinished(self, piece: bytes, frames: bytes) -> None:
        """Nothing went out, or something again: a large event is held, and that counts."""
        self._unfinished = 0 if frames else begun_bytes(self._unfinished, piece)
        self._response.keeps(self._unfinished)
        if self._unfinished > AT_ONCE_BYTES:
            self._response.detach()

    def _send(self, frames: bytes) -> None:
        decoder = self._decoder
        self._last = frames
        if not decoder.done:
            self._stream.write(frames)
            return
        self._world.books.charge(self._attempt, "ok", decoder.usage, decoder.content_bytes)
        self._stream.write(frames)
        self._stream.end()
        self._response.deadline = min(self._response.deadline, self._world.now() + _LAST_CHUNK_S)

    def _charge(self, outcome: str, failure: UpstreamFailure | None = None) -> None:
        decoder, books = self._decoder, self._world.books
        books.charge(self._attempt, outcome, decoder.usage, decoder.content_bytes, partial=True, failure=failure)


def begun_bytes(before: int, piece: bytes) -> int:
    """How much of an event has come: what it had ``before``, and this piece. Events that said nothing are not held."""
    ended = max([at + len(mark) for mark in EVENT_ENDS if (at := piece.rfind(mark)) >= 0], default=-1)
    return before + len(piece) if ended < 0 else len(piece) - ended


class _ProviderFailedError(Exception):
    """An error event came in mid-stream: it ends the provider's answer. Never leaves this module."""
