"""What every call says of itself, whatever its endpoint: as much as admission, routing and the books need to know."""

import enum

import msgspec


class Asked(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A judged request of a client; the endpoints' own types (``wire/``) say the rest."""

    model: str
    """The name that the client gave; empty where the call names no model."""
    stream: bool = False
    """Whether the answer is to come event by event."""
    prompt_bytes: int = 0
    """Size of everything that becomes input tokens; pictures and the like count flat (``wire/estimate.py``)."""
    max_output_tokens: int | None = 0
    """The cap on each choice: the client's own, 0 for what has no output tokens, None where nobody named one."""
    characters: int = 0
    """Of a text that is to be spoken, which some models are billed by and do not tell."""
    n: int = 1
    """How many choices were asked for."""
    strict: bool = False
    """What a provider cannot carry is refused, rather than dropped with a warning."""
    searches: bool = False
    """The provider may search the web, without telling how often."""
    show_reasoning: bool = False
    """The client is shown what the model thought, as ``reasoning_content``."""


class NoUsage(enum.Enum):
    """What it means that an answer names no tokens."""

    ESTIMATE = "estimate"
    """They are counted by the length of what was said, and the entry says so."""
    UNPRICED = "unpriced"
    """It was billed by something else, such as pictures or seconds: what it cost is not known, and counted as such."""
    FREE = "free"
    """It ran no model."""
