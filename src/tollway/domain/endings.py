"""How calls end, in a handful of words: what metrics count and alarms are made of."""

OK = "ok"
CLIENT_ERROR = "client_error"
"""The client asked for what cannot be: a wrong body, an unknown model, a prompt that is too long."""
REFUSED = "refused"
"""The gateway said no, and means it: the key, its limits, its models, a gateway that stops."""
PROVIDER_FAILED = "provider_failed"
"""No provider could answer, or one failed in the middle of its answer."""
GATEWAY_FAILED = "gateway_failed"
"""The gateway could not: a bug, a full disk, a database that is needed and away, no room."""
CLIENT_GONE = "client_gone"
"""The client hung up."""
CUT = "cut"
"""The gateway ended a stream that ran: its key was revoked or has expired, or the drain was over."""

ENDINGS = frozenset({OK, CLIENT_ERROR, REFUSED, PROVIDER_FAILED, GATEWAY_FAILED, CLIENT_GONE, CUT})
