"""What every call says of itself, whatever its endpoint: as much as admission, routing and the books need to know."""

import enum
from typing import Protocol


class Asked(Protocol):
    """A judged request of a client. The endpoint's own type (``wire/``) says the rest."""

    @property
    def model(self) -> str:
        """The name that the client gave; empty where the call names no model."""

    @property
    def stream(self) -> bool:
        """Whether the answer is to come event by event."""

    @property
    def prompt_bytes(self) -> int:
        """Size of everything that becomes input tokens."""

    @property
    def max_output_tokens(self) -> int | None:
        """The cap on each choice: the client's own, 0 for what has no output tokens, None where nobody named one."""

    @property
    def n(self) -> int:
        """How many choices were asked for."""


class NoUsage(enum.Enum):
    """What it means that an answer names no tokens."""

    ESTIMATE = "estimate"
    """They are counted by the length of what was said, and the entry says so."""
    UNPRICED = "unpriced"
    """It was billed by something else, such as pictures or seconds: what it cost is not known, and counted as such."""
    FREE = "free"
    """It ran no model."""
