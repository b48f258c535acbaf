"""The configuration as one immutable value, and how rows of the database become it.

Rules: (1) compiling is a pure function, the order of rows does not matter; (2) junk in a row gives a problem, never an
exception, and all problems are listed; (3) virtual keys stand apart from models and providers, so that a mistake in a
model can never delay the revocation of a key.
"""

import functools
import ipaddress
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from tollway.domain.keys import KeyHash, KeyId
from tollway.domain.prices import Price, price_per_1k

DIALECTS = frozenset({"openai", "mistral"})
"""What ``tollway.providers.dialect`` may hold."""

DEFAULT_PROVIDER = "openai"
"""Where calls go that name no model."""

NO_MODEL = ""
"""The name under which the routes have them; a row of the database cannot have it."""

BUILTIN = "builtin:"
"""An address that begins so is answered inside the gateway, without a credential."""

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
    price: Price | None
    """None: not known to the database or the built-in list."""
    strict: bool = False
    """What a provider cannot carry is refused, rather than dropped with a warning."""
    show_reasoning: bool = False
    """The client is shown what the model thought."""


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
    fallback: Sequence[str]
    input_cost: Decimal | None
    output_cost: Decimal | None
    cached_input_cost: Decimal | None
    builtin_input_cost: Decimal | None
    builtin_output_cost: Decimal | None
    builtin_cached_input_cost: Decimal | None
    strict: bool = False
    show_reasoning: bool = False


class Problem(NamedTuple):
    """Why a row cannot be used."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def grants(row: KeyRow, secrets: Mapping[str, str]) -> list[tuple[KeyHash, KeyGrant]]:
    """The secrets of one key and what they may do: the current one, and during a rotation the previous one."""
    models = row.allowed_models
    grant = KeyGrant(
        KeyId(row.id),
        row.requests_per_minute,
        row.tokens_per_minute,
        None if models is None else _names(tuple(models)),
        row.expires_at,
        row.revoked,
        secrets,
    )
    if row.previous_hash is None or row.previous_valid_until is None:
        return [(KeyHash(row.hash), grant)]
    ends = row.previous_valid_until if row.expires_at is None else min(row.previous_valid_until, row.expires_at)
    return [
        (KeyHash(row.hash), grant),
        (KeyHash(row.previous_hash), msgspec.structs.replace(grant, expires_at=ends)),
    ]


@functools.lru_cache(maxsize=1024)
def _names(models: tuple[str, ...]) -> frozenset[str]:
    """One set for all keys with the same list: of a hundred thousand of their own, the sets would be the most of it."""
    return frozenset(models)


def compile_snapshot(
    revision: int, keys: Mapping[KeyHash, KeyGrant], providers: Iterable[ProviderRow], models: Iterable[ModelRow]
) -> Snapshot | list[Problem]:
    """The whole configuration, or every reason why it cannot be one."""
    problems: list[Problem] = []
    compiled = {row.name: _provider(row, problems) for row in providers}
    targets: dict[str, Target] = {}
    fallbacks: dict[str, Sequence[str]] = {}
    for row in models:
        where = _where(row)
        provider = compiled.get(row.provider)
        if provider is None:
            problems.append(Problem(where, f"there is no provider {row.provider!r}"))
            continue
        try:
            price = _price(row)
        except ValueError as error:
            problems.append(Problem(where, str(error)))
            continue
        upstream_model = row.upstream_name or row.name
        targets[row.name] = Target(row.name, upstream_model, provider, price, row.strict, row.show_reasoning)
        fallbacks[row.name] = row.fallback
    for name, others in fallbacks.items():
        problems += [
            Problem(f"model {name!r}", f"there is no model {other!r} to fall back to")
            for other in others
            if other not in targets
        ]
    if problems:
        return sorted(problems)
    routes = {
        name: Route(name, (targets[name], *(targets[other] for other in dict.fromkeys(others) if other != name)))
        for name, others in fallbacks.items()
    }
    default = compiled.get(DEFAULT_PROVIDER)
    routes[NO_MODEL] = Route(NO_MODEL, () if default is None else (Target(NO_MODEL, NO_MODEL, default, None),))
    return Snapshot(revision, keys, routes, compiled)


def compile_what_can_be(
    revision: int, keys: Mapping[KeyHash, KeyGrant], providers: Iterable[ProviderRow], models: Iterable[ModelRow]
) -> tuple[Snapshot, list[Problem]]:
    """The configuration without the rows that cannot be used, and why not: for a start, which has no last good one."""
    providers, models = list(providers), list(models)
    problems: list[Problem] = []
    while isinstance(compiled := compile_snapshot(revision, keys, providers, models), list):
        problems += compiled
        at_fault = {problem.where for problem in compiled}
        providers = [row for row in providers if _where(row) not in at_fault]
        models = [row for row in models if _where(row) not in at_fault]
    return compiled, problems


def _where(row: ProviderRow | ModelRow) -> str:
    return f"{'provider' if isinstance(row, ProviderRow) else 'model'} {row.name!r}"


def _provider(row: ProviderRow, problems: list[Problem]) -> Provider:
    reason = base_url_problem(row.api_base)
    if row.dialect not in DIALECTS:
        reason = f"there is no dialect {row.dialect!r}"
    if reason is not None:
        problems.append(Problem(_where(row), reason))
    return Provider(row.name, row.dialect, row.api_base.rstrip("/"), row.api_version, tuple(row.quirks))


def _price(row: ModelRow) -> Price | None:
    """Each cost that the row leaves open is the built-in list's; a cached cost only goes with the list's input cost."""
    input_cost = row.builtin_input_cost if row.input_cost is None else row.input_cost
    output_cost = row.builtin_output_cost if row.output_cost is None else row.output_cost
    if input_cost is None or output_cost is None:
        return None
    cached_cost = row.cached_input_cost
    if cached_cost is None and row.input_cost is None:
        cached_cost = row.builtin_cached_input_cost
    return price_per_1k(input_cost, output_cost, cached_cost)


_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_FORBIDDEN = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local; AWS, Azure, GCP, OpenStack and most others serve credentials at 169.254.169.254
        "fe80::/10",  # link-local
        "fd00:ec2::/32",  # AWS's metadata in IPv6
        "100.100.100.200/32",  # Alibaba Cloud
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # Oracle Cloud
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_URL = re.compile(
    r"[Hh][Tt][Tt][Pp][Ss]?://"
    r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*"
)
"""What ``http1.origin.Origin.parse`` takes: an address that passes here and not there would fail every call."""

_BUILTIN = re.compile(re.escape(BUILTIN) + r"[a-z]+")
_OLD_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}", re.IGNORECASE)


def is_forbidden_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether no provider may ever be there: link-local and cloud metadata, also when wrapped into IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            address = inner
    return any(address in network for network in _FORBIDDEN)


def base_url_problem(url: str) -> str | None:
    """Why a provider cannot be at this address; what a name resolves to is judged when connecting."""
    if _BUILTIN.fullmatch(url):
        return None
    parts = _URL.fullmatch(url)
    if parts is None or not 0 < int(parts["port"] or 80) < 65536:
        return "the address must be http(s)://host[:port][/path], without user name, query and fragment"
    host = parts["host"].lower().removesuffix(".")
    try:
        if host.startswith("["):
            forbidden = is_forbidden_address(ipaddress.IPv6Address(host[1:-1]))
        else:
            forbidden = is_forbidden_address(ipaddress.IPv4Address(host))
    except ValueError:
        if host.startswith("["):
            return "the address holds no IPv6 address that can be read"
        if _OLD_NUMBER.fullmatch(host):
            return "an IPv4 address is written as four decimal numbers"
        forbidden = host in _METADATA_NAMES
    return "link-local and metadata addresses are never accepted" if forbidden else None
