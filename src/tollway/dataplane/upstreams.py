"""What does not change from call to call, prepared once: a target's address, head and adapter, a key's credential."""

import re
from collections.abc import Mapping

from tollway.domain.failures import FailureKind, UpstreamFailure
from tollway.domain.keys import Secret
from tollway.http1.origin import Origin
from tollway.providers.base import Adapter
from tollway.providers.signing.bearer import authorization
from tollway.providers.table import adapters
from tollway.routing.addresses import BUILTIN
from tollway.routing.snapshot import KeyGrant, Provider, Target
from tollway.store.vault import Vault, provider_key_binding

_MAX_CACHED = 20_000  # prepared credentials kept; a line is about 200 bytes, so some 4 MiB

_NOWHERE = Origin.unix("/dev/null/nowhere")
"""Nobody can listen below a file: connecting fails, as it does at any provider that is not there."""

_OPEN = "no_credential"
"""The quirk of a provider that wants no ``Authorization``."""

_NO_LETTER = re.compile(r"[^a-z0-9]")

_NO_CREDENTIAL = UpstreamFailure(FailureKind.NO_CREDENTIAL, "no key for this provider is configured")
_BROKEN_CREDENTIAL = UpstreamFailure(FailureKind.CREDENTIAL, "the stored key for this provider cannot be used")


class Upstream:
    """A target ready for use: the same object for every call as long as its row does not change."""

    __slots__ = ("adapters", "answer_head", "base_path", "head", "origin", "target")

    def __init__(self, target: Target, origin: Origin, base_path: bytes, adapters: Mapping[str, Adapter]) -> None:
        self.target = target
        self.origin = origin
        self.base_path = base_path
        self.adapters = adapters
        """By the name of the operation."""
        self.head = (
            b"Host: %b\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n"
            b"Accept-Encoding: identity\r\nUser-Agent: tollway\r\n" % origin.authority
        )
        self.answer_head = b"x-tollway-provider: %b\r\n" % target.provider.name.encode("ascii", "replace")
        if target.model:
            self.answer_head += b"x-tollway-model: %b\r\n" % target.model.encode("ascii", "replace")


class Upstreams:
    """Prepares targets and credentials, and keeps them while they are in use."""

    def __init__(self, vault: Vault, platform_keys: Mapping[str, Secret], builtin: Origin) -> None:
        self._vault = vault
        self._platform = {name: _line(key) for name, key in platform_keys.items()}
        self._builtin = builtin
        self._prepared: dict[Target, Upstream] = {}
        self._lines: dict[tuple[str, str], tuple[str, bytes | UpstreamFailure]] = {}

    def of(self, target: Target) -> Upstream:
        """The prepared form of a target."""
        upstream = self._prepared.get(target)
        return upstream if upstream is not None else self._prepare(target)

    def _prepare(self, target: Target) -> Upstream:
        if len(self._prepared) >= _MAX_CACHED:
            self._prepared.clear()
        origin, base_path = self._locate(target.provider)
        upstream = Upstream(target, origin, base_path, adapters(target.provider.dialect, target.provider.quirks))
        self._prepared[target] = upstream
        return upstream

    def _locate(self, provider: Provider) -> tuple[Origin, bytes]:
        if provider.base_url.startswith(BUILTIN):
            return self._builtin, b"/%b/v1" % provider.base_url.removeprefix(BUILTIN).encode()
        try:
            return Origin.parse(provider.base_url)
        except ValueError:  # no snapshot has such a provider; should one have it, its fallbacks are tried
            return _NOWHERE, b""

    def authorization(self, grant: KeyGrant, provider: Provider) -> bytes | UpstreamFailure:
        """The ``Authorization`` line for this key at this provider: its own credential, else the platform's."""
        if provider.builtin:
            return b""
        name = provider.name
        sealed = grant.secrets.get(name)
        if sealed is None:
            return self._platform.get(name) or self._of_environment(provider)
        cached = self._lines.get((grant.id, name))
        if cached is not None and cached[0] == sealed:
            return cached[1]
        return self._unseal(grant, name, sealed)

    def is_shared(self, grant: KeyGrant, provider: Provider) -> bool:
        """Whether this key's calls run there on a credential that keys share; without any, nobody is billed."""
        return provider.name not in grant.secrets and self.authorization(grant, provider) not in (b"", _NO_CREDENTIAL)

    def _of_environment(self, provider: Provider) -> bytes | UpstreamFailure:
        """The credential of ``MY_LLM_API_KEY`` for a provider named ``my-llm``; none where its row says so."""
        found = self._platform.get(_NO_LETTER.sub("_", provider.name.lower()))
        if found is None and _OPEN in provider.quirks:
            return b""
        return found or _NO_CREDENTIAL

    def _unseal(self, grant: KeyGrant, name: str, sealed: str) -> bytes | UpstreamFailure:
        secret = self._vault.decrypt(sealed, provider_key_binding(grant.id, name))
        line = _BROKEN_CREDENTIAL if secret is None else _line(secret)
        if len(self._lines) >= _MAX_CACHED:
            self._lines.clear()
        self._lines[(grant.id, name)] = (sealed, line)
        return line


def _line(secret: Secret) -> bytes | UpstreamFailure:
    """The header line; a secret that fits into none is one that the provider would refuse."""
    return authorization(secret) or _BROKEN_CREDENTIAL
