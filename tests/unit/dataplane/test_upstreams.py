"""Targets made ready for use."""

import pytest

from tollway.dataplane.failures import failure_of
from tollway.dataplane.upstreams import Upstreams
from tollway.domain.failures import FailureKind
from tollway.http1.client import Client
from tollway.http1.errors import UpstreamError
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin
from tollway.routing.snapshot import Provider, Target
from tollway.store.vault import Vault


def upstreams() -> Upstreams:
    return Upstreams(Vault(bytes(32), None), {}, Origin.unix("/run/control.sock"))


def target(base_url: str) -> Target:
    return Target("model", "model", Provider("provider", "openai", base_url), None)


def test_a_built_in_provider_is_behind_the_control_planes_socket() -> None:
    upstream = upstreams().of(target("builtin:demo"))
    assert (upstream.origin, upstream.base_path) == (Origin.unix("/run/control.sock"), b"/demo/v1")


@pytest.mark.parametrize(
    "base_url", ["", "https://host.example/{deployment}", "https://h:0", "gopher://h", "https://é"]
)
async def test_at_an_address_that_cannot_be_used_every_call_fails_to_connect(base_url: str) -> None:
    upstream = upstreams().of(target(base_url))
    client = Client(ClientLimits())
    try:
        with pytest.raises(UpstreamError) as failed:
            message = b"POST / HTTP/1.1\r\n%b\r\n" % upstream.head
            await client.fetch(upstream.origin, message, first_byte_s=5, idle_s=5, deadline=float("inf"), max_body=1)
    finally:
        client.close()
    assert failure_of(failed.value).kind is FailureKind.CONNECT
