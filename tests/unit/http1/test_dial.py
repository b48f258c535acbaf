"""Which addresses are tried, judged and connected."""

import asyncio
import socket
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from scripted_upstream import answer, read, scripted, send
from test_client import fetch, fresh_client

from tollway.http1.dial import Address, Resolver
from tollway.http1.errors import ConnectFailed, ConnectTimeout, TotalTimeout
from tollway.http1.limits import ClientLimits
from tollway.http1.origin import Origin

LOOPBACK = ip_address("127.0.0.1")


def resolving(*addresses: str) -> Resolver:
    """Resolve any name to these, once."""
    answers = iter([[ip_address(address) for address in addresses]])

    async def resolve(host: str, port: int) -> list[Address]:
        return next(answers)

    return resolve


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "::ffff:127.0.0.1", "localhost"]
)
async def test_every_spelling_of_a_refused_address_is_refused(host: str) -> None:
    judged: list[Address] = []

    def policy(address: Address) -> bool:
        judged.append(address)
        return False

    async with scripted() as upstream, fresh_client(address_policy=policy) as client:
        with pytest.raises(ConnectFailed, match="not allowed"):
            await fetch(client, Origin("http", host, upstream.origin.port))
        assert LOOPBACK in judged
        assert upstream.connections == 0


async def test_a_name_connects_to_those_of_its_addresses_that_are_allowed() -> None:
    judged: list[Address] = []

    def policy(address: Address) -> bool:
        judged.append(address)
        return not address.is_link_local

    resolver = resolving("169.254.169.254", "127.0.0.1")
    async with (
        scripted([read, send(answer())]) as upstream,
        fresh_client(address_policy=policy, resolver=resolver) as client,
    ):
        assert (await fetch(client, Origin("http", "name.test", upstream.origin.port))).body == b"hi"
    assert judged == [IPv4Address("169.254.169.254"), LOOPBACK]


async def test_a_name_is_resolved_once_so_that_what_was_judged_is_what_is_connected() -> None:
    # The resolver answers once; a second question would fail.
    async with scripted([read, send(answer())]) as upstream, fresh_client(resolver=resolving("127.0.0.1")) as client:
        assert (await fetch(client, Origin("http", "name.test", upstream.origin.port))).body == b"hi"


async def test_the_next_address_is_tried_when_one_refuses() -> None:
    resolver = resolving("127.0.0.2", "::1", "127.0.0.1")
    async with scripted([read, send(answer())]) as upstream, fresh_client(resolver=resolver) as client:
        assert (await fetch(client, Origin("http", "name.test", upstream.origin.port))).body == b"hi"


@pytest.fixture
def black_hole() -> Any:
    """A listening socket whose queue is full: connecting to it hangs."""
    with socket.socket() as hole, socket.socket() as first, socket.socket() as second:
        hole.bind(("127.0.0.2", 0))
        hole.listen(0)
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(hole.getsockname())
        yield hole.getsockname()[1]


async def test_a_black_hole_is_a_connect_timeout(black_hole: int) -> None:
    async with fresh_client(limits=ClientLimits(connect_s=0.05)) as client:
        with pytest.raises(ConnectTimeout):
            await fetch(client, Origin("http", "127.0.0.2", black_hole))


async def test_the_whole_deadline_ends_connecting_too(black_hole: int) -> None:
    deadline = asyncio.get_running_loop().time() + 0.05
    async with fresh_client() as client:
        with pytest.raises(TotalTimeout):
            await fetch(client, Origin("http", "127.0.0.2", black_hole), deadline=deadline)


async def test_a_black_hole_leaves_time_for_the_next_address(black_hole: int) -> None:
    resolver = resolving("127.0.0.2", "127.0.0.3")
    async with (
        scripted([read, send(answer())], at=("127.0.0.3", black_hole)),
        fresh_client(limits=ClientLimits(connect_s=0.2), resolver=resolver) as client,
    ):
        assert (await fetch(client, Origin("http", "name.test", black_hole))).body == b"hi"


async def test_a_call_that_is_cancelled_while_connecting_leaves_nothing(black_hole: int) -> None:
    async with fresh_client() as client:
        task = asyncio.ensure_future(fetch(client, Origin("http", "127.0.0.2", black_hole)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.open_connections == 0


@pytest.mark.parametrize("host", ["absent.invalid", "a..b", "x" * 100])
async def test_a_name_that_does_not_resolve_says_so_without_saying_the_name(host: str) -> None:
    async with fresh_client() as client:
        with pytest.raises(ConnectFailed, match=r"^the name does not resolve$"):
            await fetch(client, Origin("http", host, 80))


async def test_an_upstream_that_speaks_first_is_dropped() -> None:
    async with scripted([send(answer(b"unasked"))]) as upstream, fresh_client() as client:
        await client._dialer.dial(upstream.origin, asyncio.get_running_loop().time() + 5)
        await upstream.gone()
