"""Why Tollway says no, as values. ``wire/openai_errors.py`` is the one place that turns them into HTTP."""

import msgspec

from tollway.domain.failures import UpstreamFailure


class BadKey(msgspec.Struct, frozen=True):
    """The header is missing, is not ``Bearer …``, or names no known key."""


class ExpiredKey(msgspec.Struct, frozen=True):
    """The key's time is over."""


class RevokedKey(msgspec.Struct, frozen=True):
    """The key was revoked."""


class KeysUnavailable(msgspec.Struct, frozen=True):
    """The key is not known here and the database that might know it is away."""

    retry_after_s: float = 1.0


class NotAdministrator(msgspec.Struct, frozen=True):
    """The request may not use the admin surface."""

    status: int
    """401 where a key would help, 403 where the request itself is in the way."""
    code: str
    message: str


class BadRequest(msgspec.Struct, frozen=True):
    """The request itself is wrong."""

    message: str
    param: str | None = None
    code: str | None = None
    status: int = 400


class ModelNotFound(msgspec.Struct, frozen=True):
    """No such model is configured."""

    model: str
    status: int = 400
    """400 for a call that names it in the body, 404 where the path names it."""


class ModelNotAllowed(msgspec.Struct, frozen=True):
    """The key's allow-list does not hold this model."""

    model: str


class ModelNotPriced(msgspec.Struct, frozen=True):
    """Nobody knows what a call would cost, and it would run on a provider key that keys share."""

    model: str


class TooFast(msgspec.Struct, frozen=True):
    """A limit per minute is used up.

    ``wait_s`` is true: after it a call of the same size succeeds, if nothing else comes in.
    """

    dimension: str
    """``requests`` or ``tokens``."""
    limit: int
    used: int
    wanted: int
    wait_s: float


class TooLarge(msgspec.Struct, frozen=True):
    """A single call asks for more than the limit ever allows; waiting does not help."""

    dimension: str
    limit: int
    wanted: int


class TooManyAtOnce(msgspec.Struct, frozen=True):
    """So many calls of the key run already."""

    limit: int


class NoAnswer(msgspec.Struct, frozen=True):
    """No provider could answer. ``attempts`` pairs the name of what was tried with why it failed, in order."""

    attempts: tuple[tuple[str, UpstreamFailure], ...]


class ClientFault(msgspec.Struct, frozen=True):
    """A provider refused the request for a reason of the client's own making."""

    failure: UpstreamFailure
    as_is: bool = False
    """Whether its status is the client's, too; otherwise it becomes OpenAI's 400."""


class ProviderKeyRequired(msgspec.Struct, frozen=True):
    """The call works on objects that the provider stores, and the key has no provider key of its own.

    On a shared one, tenants would see each other's.
    """

    provider: str
    param: str | None = None
    """The member of the body that names such an object, where it is not the path."""


class CannotAccount(msgspec.Struct, frozen=True):
    """Neither journal nor database could note what a call costs, so none is made."""


class ControlPlaneAway(msgspec.Struct, frozen=True):
    """The process that serves set-up, administration and metrics does not answer."""


class Overloaded(msgspec.Struct, frozen=True):
    """The process holds as many bytes of bodies and answers as it may, or as many connections."""


class Draining(msgspec.Struct, frozen=True):
    """The gateway is stopping."""


Refusal = (
    BadKey
    | ExpiredKey
    | RevokedKey
    | KeysUnavailable
    | NotAdministrator
    | BadRequest
    | ModelNotFound
    | ModelNotAllowed
    | ModelNotPriced
    | TooFast
    | TooLarge
    | TooManyAtOnce
    | NoAnswer
    | ClientFault
    | ProviderKeyRequired
    | CannotAccount
    | ControlPlaneAway
    | Overloaded
    | Draining
)
