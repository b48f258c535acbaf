"""One data-plane process: reads its orders, puts the parts together, serves until it is told to stop."""

import asyncio
import functools
import gc
import logging
import os
import socket
import ssl
import sys
import time

import uvloop

from tollway.accounting.journal import Journal
from tollway.admission.allowances import MemoryAllowances
from tollway.admission.authenticate import KeyHasher
from tollway.admission.slots import CallSlots
from tollway.child import SupervisorLine, read_config
from tollway.dataplane import machine
from tollway.dataplane.books import Books
from tollway.dataplane.delivery import Delivery
from tollway.dataplane.offload import SWITCH_INTERVAL_S, Offload
from tollway.dataplane.reporting import (
    cut_all,
    deliver,
    keep_checkpoints,
    keep_house,
    keep_reporting,
    keep_synced,
)
from tollway.dataplane.routes import router_of
from tollway.dataplane.upstreams import Upstreams
from tollway.dataplane.world import World
from tollway.http1.budget import Budget
from tollway.http1.client import Client
from tollway.http1.limits import ClientLimits, ServerLimits
from tollway.http1.origin import Origin
from tollway.http1.proxy import Proxies
from tollway.http1.server import Server
from tollway.observe import log
from tollway.observe.metrics import Metrics
from tollway.observe.refusals import RefusalLog
from tollway.routing.addresses import is_forbidden_address
from tollway.routing.health import Health
from tollway.routing.retry import RetryBudget
from tollway.settings import ChildConfig, Settings
from tollway.store.configuration import Configuration
from tollway.store.last_good import LastGoodFile
from tollway.store.neighbours import Neighbours, gateway_number
from tollway.store.vault import Vault

_log = logging.getLogger("tollway.worker")

_FEW_CONNECTIONS = 500
"""Fewer than this are worth a line: it comes of a limit on open files below some 1,200, and systems allow far more."""

_LAST_WORDS_S = 2.0
"""How long streams that are cut at the end of a drain have to send their error event."""


def main() -> int:
    """Serve as the first line of standard input says; 0 after a clean stop."""
    config = read_config()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    machine.keep_large_blocks_apart()
    writer = log.start(f"worker-{config.worker}", config.settings.log_level, config.secrets)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(config, writer))
    finally:
        writer.stop()
    return 0


async def serve(config: ChildConfig, writer: log.LogWriter) -> None:
    """Load the configuration, serve, and drain when told to."""
    line = SupervisorLine()
    await line.open()
    vault = Vault.of(config.encryption_key, config.settings.iv)
    last_good = LastGoodFile(config.settings.home, vault, config.settings.database_url)
    configuration = Configuration(
        config.database_url.reveal(),
        last_good=last_good,
        writes=config.worker == 0,
        neighbours=Neighbours(gateway_number(config.settings.home)),
    )
    journal = Journal(config.journals, time.time())
    budget = Budget(machine.buffered_bytes(config.settings, machine.memory()))
    room = machine.connections(machine.files(), ServerLimits())
    if room.clients < _FEW_CONNECTIONS:
        _log.warning("the limit on open files (ulimit -n) allows only %d connections of clients", room.clients)
    client = Client(
        client_limits(config.settings, room),
        budget=budget,
        proxies=Proxies.read(os.environ),
        address_policy=lambda address: not is_forbidden_address(address),
    )
    world = build(config, configuration, journal, client, writer)
    router = router_of(world)
    limits = server_limits(config.settings, room)
    server = Server(
        router.serve,
        limits,
        router.render_error,
        router.report_crash,
        router.lines_for_refused,
        budget,
    )
    world.server = server
    background: list[asyncio.Task[None]] = []
    try:
        if not await configured(configuration, line):
            return
        await server.start(inherited_socket(config), tls_context(config.settings))
        background += map(
            asyncio.create_task,
            (
                keep_house(world),
                keep_reporting(world),
                keep_checkpoints(world),
                keep_synced(world),
                world.delivery.run(),
            ),
        )
        gc.collect()
        gc.freeze()  # what is here now stays as long as the process does: the collector need not look at it again
        line.announce_ready()
        await line.stop.wait()
        world.draining = True
        _log.info("draining: %d connections", server.connections)
        await drain(world, server, line, config.settings.drain_seconds)
    finally:
        for task in background:
            task.cancel()
        await world.delivery.finish()
        client.close()
        world.offload.close()
        await configuration.close()
        await world.books.rescue()
        if world.books.unsaved:
            _log.error("settlements are lost unless the journal that was in %s is brought back", config.journals)
        if lost := journal.close():
            _log.error("%d settlements are lost: the disk did not take them to the end", lost)


async def configured(configuration: Configuration, line: SupervisorLine) -> bool:
    """Wait for the first configuration, however long the database is away; False when told to stop before it came."""
    starting = asyncio.create_task(configuration.start())
    stopping = asyncio.create_task(line.stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        return False
    await starting  # raises what went wrong
    return True


async def drain(world: World, server: Server, line: SupervisorLine, seconds: float) -> None:
    """Let running calls finish, for so long or until told not to wait. Streams that are cut then say so and settle."""
    draining = asyncio.create_task(server.drain(seconds + _LAST_WORDS_S))
    told = asyncio.create_task(line.cut.wait())
    await asyncio.wait({draining, told}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    if not draining.done():
        cut_all(world)
        await asyncio.wait({draining}, timeout=_LAST_WORDS_S)
        await server.drain(0)
        await draining


def build(
    config: ChildConfig, configuration: Configuration, journal: Journal, client: Client, writer: log.LogWriter
) -> World:
    """Plain constructor calls: the whole wiring of a worker."""
    settings = config.settings
    vault = Vault.of(config.encryption_key, settings.iv)
    now = asyncio.get_running_loop().time
    metrics = Metrics()
    retry_budget = RetryBudget()
    control = Origin.unix(str(config.control_socket))
    return World(
        number=config.worker,
        settings=settings,
        configuration=configuration,
        hasher=KeyHasher(vault.pepper),
        allowances=MemoryAllowances(),
        slots=CallSlots(settings.max_parallel_per_key),
        offload=Offload(),
        retry_budget=retry_budget,
        health=Health(retry_budget),
        upstreams=Upstreams(vault, settings.platform_keys, control),
        client=client,
        control=control,
        metrics=metrics,
        books=Books(journal, metrics, now, settings.unpriced.price),
        delivery=Delivery(journal, functools.partial(deliver, client, control, now), now),
        refusals=RefusalLog(settings.log_requests),
        log_writer=writer,
        now=now,
    )


def client_limits(settings: Settings, room: machine.Connections) -> ClientLimits:
    """Towards providers, as the environment says and the descriptors allow."""
    return ClientLimits(
        max_connections=room.providers,
        connect_s=settings.connect_timeout_s,
        first_byte_s=settings.first_byte_timeout_s,
        idle_read_s=settings.idle_timeout_s,
    )


def server_limits(settings: Settings, room: machine.Connections) -> ServerLimits:
    """Towards clients, as the environment says and the descriptors allow."""
    return ServerLimits(
        max_body=settings.max_body_bytes,
        keep_alive_s=settings.keep_alive_s,
        max_connections=room.clients,
        max_refused=room.refused,
    )


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """For HTTPS, where a certificate is set."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    return context


def inherited_socket(config: ChildConfig) -> socket.socket:
    """The listening socket that the supervisor bound."""
    assert config.listen_fd is not None
    return socket.socket(fileno=config.listen_fd)
