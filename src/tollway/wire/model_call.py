"""A call that is judged by its body and carried over into a provider's dialect."""

from tollway.domain.asked import Asked
from tollway.wire.json import Raw


class ModelCall(Asked, frozen=True, gc=False, kw_only=True):
    """One request. Every operation has its own kind."""

    include_usage: bool = False
    """The client asked for a usage chunk at the end of its stream."""
    created: int = 0
    """When the request came, Unix seconds: for answers that do not say when they were made."""
    top: dict[str, Raw]
    """Every member of the body, unknown ones too."""
