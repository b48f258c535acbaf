"""The alarm for calls of which nobody knows what they cost."""

import logging

EVERY_S = 3600.0
"""A line of each model, at most."""

_log = logging.getLogger("tollway.unpriced")


class UnpricedAlarm:
    """Says of each model that its calls have no price: at the first one, and then at most once an hour."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], float] = {}
        self._calls: dict[tuple[str, str], int] = {}

    def note(self, model: str, provider: str, now: float) -> None:
        """An answer cost something that nobody can tell. The names are those of the configuration."""
        of = model, provider
        self._calls[of] = self._calls.get(of, 0) + 1
        if of not in self._said or now >= self._said[of] + EVERY_S:
            self._said[of] = now
            _log.warning(
                "what %s at %s costs is not known, its calls are in the ledger without a price; to set one: "
                "tollway prices set",
                model or "a call without a model",
                provider,
                extra={"calls": self._calls.pop(of)},
            )
