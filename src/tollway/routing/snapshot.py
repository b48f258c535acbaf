"""The configuration as one immutable value, and how rows of the database become it.

Rules: (1) compiling is a pure function, the order of rows does not matter; (2) junk in a row gives a problem, never an
exception, and all problems are listed; (3) virtual keys stand apart from models and providers, so that a mistake in a
model can never delay the revocation of a key.
"""

import functools
import itertools
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from tollway.domain.keys import KeyHash, KeyId
from tollway.domain.tariffs import ColumnCosts, Tariff, read_own_prices, read_periods, tariff_of
from tollway.routing.addresses import BUILTIN, base_url_problem

DIALECTS = frozenset({"openai", "mistral"})
"""What ``tollway.providers.dialect`` may hold."""

DEFAULT_PROVIDER = "openai"
"""Where calls go that name no model."""

NO_MODEL = ""
"""The name under which the routes have them; a row of the database cannot have it."""

_NAME = re.compile(r"[!-~]{1,200}")
_VERSION = re.compile(r"[!-~]{0,100}")
_DATED = re.compile(r"-20[0-9]{2}-?[01][0-9]-?[0-3][0-9]$")
_HASH_BYTES = 32
_ON_DISCONNECT = frozenset({"cancel", "drain"})

NOTHING: Mapping[str, str] = MappingProxyType({})
"""The provider keys of a virtual key that has none; one object for all of them."""


class Provider(msgspec.Struct, frozen=True, cache_hash=True):
    """Where a provider is and what it speaks."""

    name: str
    dialect: str
    base_url: str
    """``https://host[:port][/path]`` without a slash at the end, or ``builtin:<name>``."""
    api_version: str | None = None
    quirks: tuple[str, ...] = ()
    """In what it differs from others of its dialect; their names are explained where dialects are."""

    @property
    def builtin(self) -> bool:
        """Whether the gateway itself answers."""
        return self.base_url.startswith(BUILTIN)


class Target(msgspec.Struct, frozen=True, cache_hash=True):
    """One model at one provider."""

    model: str
    """Our name for it."""
    upstream_model: str
    """The provider's name for it."""
    provider: Provider
    tariff: Tariff | None
    """What it costs and when. None: not known to the database or the built-in list."""
    strict: bool = False
    """What a provider cannot carry is refused, rather than dropped with a warning."""
    show_reasoning: bool = False
    """The client is shown what the model thought."""
    drain: bool = False
    """An answer is read to its end although its client has hung up, and billed by what the provider counted."""


class Route(msgspec.Struct, frozen=True):
    """What a model's name leads to: the model itself, then its fallbacks."""

    name: str
    targets: tuple[Target, ...]


class KeyGrant(msgspec.Struct, frozen=True, gc=False):
    """What one secret may do. ``gc=False``: a hundred thousand of them would only slow the collector."""

    id: KeyId
    requests_per_minute: int | None
    """None: no limit; 0: nothing at all."""
    tokens_per_minute: int | None
    models: frozenset[str] | None
    """Names of models, None for all."""
    expires_at: float | None
    """Unix seconds; for a secret that was rotated away, the end of the overlap if that is earlier."""
    revoked: bool
    secrets: Mapping[str, str]
    """Provider name to encrypted provider key."""


class KeyTable(Mapping[KeyHash, KeyGrant]):
    """An immutable mapping of many keys, in shards by the hash's first byte.

    A table with a change shares all other shards with the one before. Copying a hundred thousand entries for an edit
    would hold up the event loop for 10 ms and more.
    """

    __slots__ = ("_shards",)

    def __init__(self, shards: Sequence[dict[KeyHash, KeyGrant]] | None = None) -> None:
        self._shards = shards or [{}] * 256

    def __getitem__(self, key: KeyHash) -> KeyGrant:
        return self._shards[key[0]][key]

    def get(self, key: KeyHash, default: KeyGrant | None = None) -> KeyGrant | None:  # type: ignore[override]
        """The inherited one is several times slower, and this is where every request begins."""
        return self._shards[key[0]].get(key, default)

    def __iter__(self) -> Iterator[KeyHash]:
        return itertools.chain.from_iterable(self._shards)

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def draft(self) -> "KeyTableDraft":
        """To make another table out of this one."""
        return KeyTableDraft(self._shards)


class KeyTableDraft:
    """A table in the making, good for one :meth:`done`."""

    __slots__ = ("_own", "_shards")

    def __init__(self, shards: Iterable[dict[KeyHash, KeyGrant]]) -> None:
        self._shards = list(shards)
        self._own: set[int] = set()

    def put(self, key: KeyHash, grant: KeyGrant) -> None:
        """Add or replace."""
        self._shard(key)[key] = grant

    def drop(self, key: KeyHash) -> None:
        """Remove, if it is there."""
        self._shard(key).pop(key, None)

    def done(self) -> KeyTable:
        """The table."""
        return KeyTable(self._shards)

    def _shard(self, key: KeyHash) -> dict[KeyHash, KeyGrant]:
        number = key[0]
        if number not in self._own:
            self._own.add(number)
            self._shards[number] = dict(self._shards[number])
        return self._shards[number]


class Snapshot(msgspec.Struct, frozen=True):
    """All that requests are judged by. A request keeps the one that it began with."""

    revision: int
    """The newest transaction of the database whose change is in here."""
    keys: Mapping[KeyHash, KeyGrant]
    routes: Mapping[str, Route]
    providers: Mapping[str, Provider]
    served: Mapping[tuple[str, str], Target] = {}
    """The models' own targets, by the provider's name and the provider's name of the model."""

    def target_that_answered(self, provider: str, upstream_model: str) -> Target | None:
        """The target whose provider calls itself so in an answer, with the date of a version behind it or without."""
        exact = self.served.get((provider, upstream_model))
        return exact or self.served.get((provider, _DATED.sub("", upstream_model)))


EMPTY = Snapshot(revision=0, keys=KeyTable(), routes={}, providers={})
"""What stands before the first load."""


class KeyRow(NamedTuple):
    """A virtual key as the database has it. Times are Unix seconds."""

    id: str
    hash: bytes
    previous_hash: bytes | None
    previous_valid_until: float | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    allowed_models: Sequence[str] | None
    expires_at: float | None
    revoked: bool


class ProviderRow(NamedTuple):
    """A provider as the database has it."""

    name: str
    dialect: str
    api_base: str
    api_version: str | None
    quirks: Sequence[str] = ()


class ModelRow(NamedTuple):
    """A model as the database has it. Costs are US dollars per 1,000 tokens, None: the built-in list's."""

    name: str
    provider: str
    upstream_name: str | None
    fallback: Sequence[str] | None
    """None: what stands there cannot be read."""
    input_cost: Decimal | None
    output_cost: Decimal | None
    cached_input_cost: Decimal | None
    listed: str | None
    """The built-in list's periods in JSON; None: it does not know the model, or was not asked yet."""
    own_prices: str | None = None
    """The rows of prices of its own in JSON, the one that counts more behind the other."""
    strict: bool = False
    show_reasoning: bool = False
    on_disconnect: str = "cancel"

    @property
    def costs(self) -> ColumnCosts:
        """The columns of its own price."""
        return ColumnCosts(self.input_cost, self.output_cost, self.cached_input_cost)


class Rows(NamedTuple):
    """All rows but the keys; they are few and read whole."""

    providers: tuple[ProviderRow, ...] = ()
    models: tuple[ModelRow, ...] = ()


NO_ROWS = Rows()


class Problem(NamedTuple):
    """Why a row cannot be used."""

    where: str
    reason: str
    consequence: str = ""
    """What is done without it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


KEPT = "the last good one stays in force"
LEFT_OUT = "left out until it is mended"
SHORTENED = "in force without that fallback"


def grants(row: KeyRow, secrets: Mapping[str, str]) -> list[tuple[KeyHash, KeyGrant]]:
    """The secrets of one key and what they may do: the current one, and during a rotation the previous one."""
    models = row.allowed_models
    grant = KeyGrant(
        KeyId(row.id),
        row.requests_per_minute,
        row.tokens_per_minute,
        None if models is None else shared_names(tuple(map(str, models))),
        row.expires_at,
        row.revoked,
        secrets,
    )
    secrets_of_row = [(row.hash, grant)]
    if row.previous_hash is not None and row.previous_valid_until is not None:
        ends = row.previous_valid_until if row.expires_at is None else min(row.previous_valid_until, row.expires_at)
        secrets_of_row.append((row.previous_hash, msgspec.structs.replace(grant, expires_at=ends)))
    # No secret has a hash of another size; the table could not even hold an empty one.
    return [(KeyHash(digest), each) for digest, each in secrets_of_row if len(digest) == _HASH_BYTES]


@functools.lru_cache(maxsize=1024)
def shared_names(models: tuple[str, ...]) -> frozenset[str]:
    """One set for all keys with the same list: of a hundred thousand of their own, the sets would be the most of it."""
    return frozenset(models)


class Compiled(NamedTuple):
    """What became of the rows."""

    snapshot: Snapshot
    problems: tuple[Problem, ...]
    in_force: Rows
    """The ``last_good`` of the next time."""


def compile_snapshot(
    revision: int, keys: Mapping[KeyHash, KeyGrant], rows: Rows, last_good: Rows = NO_ROWS
) -> Compiled:
    """The configuration, as far as the rows can be used, and all that is wrong with them.

    A row that cannot be used holds up nothing but itself: its last good version stays in force, or it is left out,
    where it has none or that needs what is gone. A model is left out together with the provider it needs, and what
    falls back to a model that is left out does without.
    """
    problems: list[Problem] = []
    providers = _usable_providers(rows.providers, last_good.providers, problems)
    compiled = {name: _provider(row) for name, row in providers.items()}
    models = _usable_models(rows, last_good.models, compiled, problems)
    targets = {name: target for name, (_, target) in models.items()}
    routes: dict[str, Route] = {}
    for name, (row, target) in models.items():
        others = [targets[other] for other in dict.fromkeys(row.fallback or ()) if other != name and other in targets]
        routes[name] = Route(name, (target, *others))
    default = compiled.get(DEFAULT_PROVIDER)
    routes[NO_MODEL] = Route(NO_MODEL, () if default is None else (Target(NO_MODEL, NO_MODEL, default, None),))
    in_force = Rows(tuple(providers.values()), tuple(row for row, _ in models.values()))
    snapshot = Snapshot(revision, keys, routes, compiled, _served(targets.values()))
    return Compiled(snapshot, tuple(sorted(problems)), in_force)


def _served(targets: Iterable[Target]) -> dict[tuple[str, str], Target]:
    """Of several models that are one at their provider the one that has its name, or else the first."""
    served: dict[tuple[str, str], Target] = {}
    for target in sorted(targets, key=lambda target: (target.model != target.upstream_model, target.model)):
        served.setdefault((target.provider.name, target.upstream_model), target)
    return served


def _usable_providers(
    rows: Iterable[ProviderRow], last_good: Iterable[ProviderRow], problems: list[Problem]
) -> dict[str, ProviderRow]:
    """Of each provider the row, or else its last good version, by name."""
    before = {row.name: row for row in last_good}
    usable: dict[str, ProviderRow] = {}
    for row in rows:
        reason = _provider_problem(row)
        chosen = row if reason is None else before.get(row.name)
        if reason is not None:
            problems.append(Problem(_where(row), reason, LEFT_OUT if chosen is None else KEPT))
        if chosen is not None:
            usable[chosen.name] = chosen
    return usable


def _usable_models(
    rows: Rows, last_good: Iterable[ModelRow], providers: Mapping[str, Provider], problems: list[Problem]
) -> dict[str, tuple[ModelRow, Target]]:
    """Of each model the row, or else its last good version, and what it leads to; by name."""
    before = {row.name: row for row in last_good}
    known = {row.name for row in rows.providers}
    names = {row.name for row in rows.models}
    usable: dict[str, tuple[ModelRow, Target]] = {}
    for row in rows.models:
        chosen = row
        reason, target = _judged(row, known, providers)
        if target is None and (chosen := before.get(row.name, row)) != row:
            reason = reason or f"its provider {row.provider!r} is left out"
            _, target = _judged(chosen, known, providers)
        if reason is not None:
            problems.append(Problem(_where(row), reason, LEFT_OUT if target is None else KEPT))
        if target is not None:
            usable[row.name] = chosen, target
        problems += [
            Problem(
                _where(row),
                f"there is no model {other!r} to fall back to",
                LEFT_OUT if target is None else SHORTENED,
            )
            for other in chosen.fallback or ()
            if other not in names
        ]
    return usable


def _judged(
    row: ModelRow, known: Container[str], providers: Mapping[str, Provider]
) -> tuple[str | None, Target | None]:
    """What is wrong with a model by itself; what it leads to, if it and its provider can be used."""
    upstream_name = row.upstream_name or row.name
    if not (_NAME.fullmatch(row.name) and _NAME.fullmatch(upstream_name)):
        return "a name is printable, without spaces", None
    if row.provider not in known:
        return f"there is no provider {row.provider!r}", None
    if row.fallback is None:
        return "the fallback is no JSON array of names", None
    if row.on_disconnect not in _ON_DISCONNECT:
        return f"on_disconnect is 'cancel' or 'drain', not {row.on_disconnect!r}", None
    try:
        tariff = tariff_of_row(row)
    except ValueError as error:
        return str(error), None
    provider = providers.get(row.provider)
    if provider is None:
        return None, None
    drain = row.on_disconnect == "drain"
    return None, Target(row.name, upstream_name, provider, tariff, row.strict, row.show_reasoning, drain)


def _where(row: ProviderRow | ModelRow) -> str:
    return f"{'provider' if isinstance(row, ProviderRow) else 'model'} {row.name!r}"


def _provider_problem(row: ProviderRow) -> str | None:
    if row.dialect not in DIALECTS:
        return f"there is no dialect {row.dialect!r}"
    if not _NAME.fullmatch(row.name) or not _VERSION.fullmatch(row.api_version or ""):
        return "a name and an API version are printable, without spaces"
    if not all(isinstance(quirk, str) for quirk in row.quirks):
        return "quirks are one list of names"
    return base_url_problem(row.api_base)


def _provider(row: ProviderRow) -> Provider:
    return Provider(row.name, row.dialect, row.api_base.rstrip("/"), row.api_version, tuple(row.quirks))


def tariff_of_row(row: ModelRow) -> Tariff | None:
    """What a model costs and when, by all that is said of it. Raises ValueError for what cannot be a price."""
    return _tariff(row.costs, row.listed, row.own_prices)


@functools.lru_cache(maxsize=4096)
def _tariff(costs: ColumnCosts, listed: str | None, own_prices: str | None) -> Tariff | None:
    """A tariff takes some 0.2 ms to compile, and an edit of one row compiles them all."""
    return tariff_of(
        read_periods(listed) if listed is not None else (),
        costs,
        read_own_prices(own_prices) if own_prices is not None else (),
    )
