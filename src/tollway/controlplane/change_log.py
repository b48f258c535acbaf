"""One log line for every administrative change that is made by HTTP: what, to which key, by whom; never a secret.

Changes by ``tollway`` on the command line and by SQL do not pass this process: PostgreSQL's own log has them, where it
is told to (``log_statement``).
"""

import logging
import time
from collections.abc import Callable, Mapping

from starlette.requests import Request

from tollway.observe.ration import Ration

MAX_LINES_PER_S = 100
"""A key's holder may save its provider keys as often as the database takes it."""

_MAX_NAMES = 20  # of providers in one line

_log = logging.getLogger("tollway.changes")


class ChangeLog:
    """Prints changes, or counts them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._ration = Ration(MAX_LINES_PER_S, _tell_left_out, clock)

    def key_made(self, request: Request, key_id: str) -> None:
        """A virtual key was made."""
        self._tell(request, f"key {key_id} was made", "key_made", key_id, {})

    def provider_keys_saved(
        self, request: Request, key_id: str, provider_keys: Mapping[str, str], by_key: bool
    ) -> None:
        """Provider keys were stored or cleared, if any was named; of the keys themselves nothing is told."""
        if not provider_keys:
            return
        saved = sorted(name for name, key in provider_keys.items() if key)
        cleared = sorted(name for name, key in provider_keys.items() if not key)
        members = {"saved": _listed(saved), "cleared": _listed(cleared), "by": "the key itself" if by_key else "admin"}
        members = {name: text for name, text in members.items() if text}
        self._tell(request, f"provider keys of {key_id} were changed", "provider_keys_saved", key_id, members)

    def turn(self) -> None:
        """Say what the last second had no line for. Call it once a second."""
        self._ration.turn()

    def _tell(self, request: Request, message: str, change: str, key_id: str, members: Mapping[str, object]) -> None:
        if self._ration.takes(change):
            call_id = request.headers.get("x-request-id")
            _log.info(message, extra={"call_id": call_id, "change": change, "key_id": key_id, **members})


def _tell_left_out(_change: str, count: int) -> None:
    _log.info("%d more changes were made, too many for a line each", count)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (" …" if len(names) > _MAX_NAMES else "")
