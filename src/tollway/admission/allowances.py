"""May this call start: requests and tokens per minute, checked together and then taken together.

1. Check all, then take all: a refusal takes nothing.
2. Tokens are reserved before the call and settled to the truth afterwards, exactly once, in the second of admission.
3. A refusal's ``wait_s`` is true for the whole call: the longest wait of all limits that stand in its way.

A limit of None is no limit; a limit of 0 admits nothing.
"""

import itertools
import math
from typing import Protocol

from tollway.admission.windows import WINDOW_S, SlidingWindow
from tollway.domain.refusals import TooFast, TooLarge


class _Account:
    """What one key has taken."""

    __slots__ = ("requests", "tokens")

    def __init__(self) -> None:
        self.requests = SlidingWindow()
        self.tokens = SlidingWindow()


class Hold:
    """What one admitted call has taken. Its request stays counted; its tokens wait for :meth:`settle`."""

    __slots__ = ("_account", "_open", "_requests_limit", "_second", "_tokens", "_tokens_limit")

    def __init__(
        self, account: _Account, second: int, tokens: int, requests_limit: int | None, tokens_limit: int | None
    ) -> None:
        self._account = account
        self._second = second
        self._tokens = tokens
        self._requests_limit = requests_limit
        self._tokens_limit = tokens_limit
        self._open = True

    def settle(self, tokens: int, now: float) -> bool:
        """Replace the reserved tokens by those really used, 0 if none; False and no effect from the second time on.

        The truth may be more than was reserved: it counts, and nothing new is admitted until it fits.
        """
        if not self._open:
            return False
        self._open = False
        if tokens != self._tokens:
            self._account.tokens.settle(self._second, tokens - self._tokens)
        return True

    def cancel(self) -> None:
        """Give everything back, the request too: nothing was done for it. Without effect on a hold that is settled."""
        if self._open:
            self._open = False
            self._account.requests.settle(self._second, -1)
            self._account.tokens.settle(self._second, -self._tokens)

    def header_lines(self, now: float) -> bytes:
        """OpenAI's ``x-ratelimit-*`` lines as they stand now, each with its line end; b"" for a key without limits."""
        return _header_lines(self._account, self._requests_limit, self._tokens_limit, now)


_LOOK_AT_LEAST = 100  # accounts per second, some 15 µs


class AllowanceStore(Protocol):
    """Where allowances are kept. It decides at once, from memory; ``now`` is monotonic time in seconds."""

    def admit(
        self, key_id: str, requests_limit: int | None, tokens_limit: int | None, tokens: int, now: float
    ) -> Hold | TooFast | TooLarge:
        """Take one request and the tokens, or nothing."""
        ...

    def exhausted(
        self, key_id: str, requests_limit: int | None, tokens_limit: int | None, now: float
    ) -> TooFast | TooLarge | None:
        """Why no call at all would be admitted now, however small; None where one would be. Takes nothing."""
        ...

    def header_lines(self, key_id: str, requests_limit: int | None, tokens_limit: int | None, now: float) -> bytes:
        """The ``x-ratelimit-*`` lines for a call that was refused, or that takes nothing."""
        ...


class MemoryAllowances:
    """The allowances of one process. Exact within it; keys that were idle for a window are forgotten."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._second = 0

    def admit(
        self, key_id: str, requests_limit: int | None, tokens_limit: int | None, tokens: int, now: float
    ) -> Hold | TooFast | TooLarge:
        """See :class:`AllowanceStore`."""
        second = int(now)
        if second > self._second:
            self._second = second
            self._forget_idle()
        else:
            second = self._second  # a caller's clock was read a moment earlier than another's
        account = self._accounts.get(key_id)
        if account is None:
            account = self._accounts[key_id] = _Account()
        requests_used = account.requests.used(second)
        tokens_used = account.tokens.used(second)
        if (requests_limit is not None and requests_used >= requests_limit) or (
            tokens_limit is not None and (tokens_used + tokens > tokens_limit or not tokens_limit)
        ):
            return _refusal(account, requests_limit, tokens_limit, tokens, now)
        account.requests.take(second, 1)
        account.tokens.take(second, tokens)
        return Hold(account, second, tokens, requests_limit, tokens_limit)

    def exhausted(
        self, key_id: str, requests_limit: int | None, tokens_limit: int | None, now: float
    ) -> TooFast | TooLarge | None:
        """See :class:`AllowanceStore`."""
        account = self._accounts.get(key_id) or _Account()
        second = int(now)
        if (requests_limit is not None and account.requests.used(second) >= requests_limit) or (
            tokens_limit is not None and account.tokens.used(second) >= tokens_limit
        ):
            return _refusal(account, requests_limit, tokens_limit, 1, now)
        return None

    def header_lines(self, key_id: str, requests_limit: int | None, tokens_limit: int | None, now: float) -> bytes:
        """See :class:`AllowanceStore`."""
        return _header_lines(self._accounts.get(key_id) or _Account(), requests_limit, tokens_limit, now)

    def _forget_idle(self) -> None:
        """Once a second look at a part of the accounts, in turn: there are never many more than twice the busy ones.

        An account with a hold inside the window has a request inside the window, so none is forgotten too early.
        """
        accounts = self._accounts
        for key_id in list(itertools.islice(accounts, len(accounts) // WINDOW_S + _LOOK_AT_LEAST)):
            account = accounts.pop(key_id)
            if account.requests.used(self._second):
                accounts[key_id] = account


def _refusal(
    account: _Account, requests_limit: int | None, tokens_limit: int | None, tokens: int, now: float
) -> TooFast | TooLarge:
    waits: list[tuple[float, TooFast]] = []
    for dimension, window, limit, wanted in (
        ("requests", account.requests, requests_limit, 1),
        ("tokens", account.tokens, tokens_limit, tokens),
    ):
        if limit is None:
            continue
        wait_s = window.wait_s(now, wanted, limit) if limit else None
        if wait_s is None:
            return TooLarge(dimension, limit, wanted)
        waits.append((wait_s, TooFast(dimension, limit, window.used(int(now)), wanted, wait_s)))
    return max(waits, key=lambda wait: wait[0])[1]


_WHOLE_SECONDS = tuple(b"%ds" % s if s < 60 else b"1m%ds" % (s - 60) for s in range(WINDOW_S + 2))

_LINES = b"x-ratelimit-limit-%b: %%d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%b\r\n"
_REQUEST_LINES, _TOKEN_LINES = (_LINES % (name, name, name) for name in (b"requests", b"tokens"))
_BOTH_LINES = _REQUEST_LINES + _TOKEN_LINES


def _header_lines(account: _Account, requests_limit: int | None, tokens_limit: int | None, now: float) -> bytes:
    if requests_limit is not None and tokens_limit is not None:
        return _BOTH_LINES % (
            *_shown(account.requests, requests_limit, now),
            *_shown(account.tokens, tokens_limit, now),
        )
    if requests_limit is not None:
        return _REQUEST_LINES % _shown(account.requests, requests_limit, now)
    if tokens_limit is not None:
        return _TOKEN_LINES % _shown(account.tokens, tokens_limit, now)
    return b""


def _shown(window: SlidingWindow, limit: int, now: float) -> tuple[int, int, bytes]:
    reset_s = window.reset_s(now)
    remaining = limit - window.total
    return limit, remaining if remaining > 0 else 0, _duration(reset_s)


def _duration(seconds: float) -> bytes:
    """As OpenAI writes it, rounded up: whole seconds from one second on, milliseconds below."""
    if seconds > 0.999:
        return _WHOLE_SECONDS[math.ceil(seconds)]
    return b"%dms" % math.ceil(seconds * 1000) if seconds else b"0s"
