"""What a journal holds. Fields are stored by place: new ones go to the end with a default, none is ever removed."""

import msgspec


class Settlement(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="settled"):
    """What one attempt at a provider came to; one row of the ledger."""

    attempt_id: str
    """Unique: what makes it harmless to post a record twice."""
    call_id: str
    attempt: int
    """1, 2, … within the call."""
    key_id: str
    model: str
    """As the client asked for it."""
    provider: str
    upstream_model: str
    started_unix: float
    duration_ms: float
    first_byte_ms: float | None
    status: int
    """The provider's HTTP status, 0 when there was none."""
    outcome: str
    """``ok``, the kind of failure, ``client_gone`` …"""
    stream: bool
    state: str
    """How sure the tokens are: ``exact``, ``partial``, ``estimated``, ``none``."""
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost: int
    """In units of ``10**-scale`` US dollars, like the prices."""
    scale: int
    priced: bool
    """False: no price was known, the cost is not zero but unknown."""
    charged: bool
    """Whether the key pays: what it got reached its client. The other attempts are on the house."""
    price_input: int
    price_cached: int
    price_output: int
    """Per single token, as used for this entry."""
    revision: int
    """Of the configuration that the call was judged by."""
    cause: str = ""
    """Who ended it and in which phase, where it did not end well."""
    operation: str = ""
    """What was asked for: the path of OpenAI's API below ``/v1/``."""
    provider_request_id: str = ""
    """The provider's own name of the request, where it failed; it stands in ``cause``, too."""
