"""The control plane as a process: set-up, metrics, the demo provider, and posting the journals to the ledger.

Never on the way of a request: what it does may take milliseconds, and while it is away calls go on.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator

import uvicorn
from starlette.applications import Starlette

from tollway.accounting.posting import Poster
from tollway.child import SupervisorLine, read_config
from tollway.controlplane.app import control_plane
from tollway.controlplane.change_log import ChangeLog
from tollway.controlplane.pricing import follow_prices
from tollway.controlplane.request_log import JournalFollower, RequestLog
from tollway.controlplane.retention import Retention
from tollway.observe import log
from tollway.observe.refusals import RefusalLog
from tollway.settings import ChildConfig
from tollway.store.postgres import create_pool
from tollway.store.vault import Vault

_LAST_POSTING_S = 20.0
_CLOSE_S = 2

_log = logging.getLogger("tollway.control")


def main() -> int:
    """Work as the first line of standard input says until told to stop; 0 after a clean end."""
    config = read_config()
    writer = log.start("control-plane", config.settings.log_level, config.secrets)
    for library in ("uvicorn", "asyncpg"):  # what matters of them we say in our own words
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        asyncio.run(serve(config))
    except Exception:
        _log.exception("the control plane failed")
        return 1
    finally:
        writer.stop()
    return 0


async def serve(config: ChildConfig) -> None:
    """Serve and post until told to stop, then post what the workers left."""
    line = SupervisorLine()
    await line.open()
    requests = RequestLog()
    follower = JournalFollower(config.journals, requests) if config.settings.log_requests else None
    following = asyncio.create_task(follower.run()) if follower is not None else None
    try:
        await _serve(config, line, follower, requests)
    finally:
        if follower is not None and following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await follower.follow()  # what the workers' last calls came to


async def _serve(
    config: ChildConfig, line: SupervisorLine, follower: JournalFollower | None, requests: RequestLog
) -> None:
    pool = await create_pool(config.database_url.reveal(), "control plane")
    logs = (follower.finish, requests.note) if follower is not None else ()
    poster = Poster(pool, config.journals, *logs)
    vault = Vault.of(config.encryption_key, config.settings.iv)
    refusals, changes = RefusalLog(config.settings.log_requests), ChangeLog()
    server = Server(control_plane(config.settings, pool, vault, poster, refusals, changes))
    serving = asyncio.create_task(server.serve(sockets=[socket.socket(fileno=config.listen_fd)]))
    background = [
        asyncio.create_task(poster.run()),
        asyncio.create_task(follow_prices(config.database_url)),
        asyncio.create_task(Retention(pool, config.settings.ledger_retention_days).run()),
        asyncio.create_task(keep_turning(requests, refusals, changes)),
    ]
    stopping = asyncio.create_task(line.stop.wait())
    await server.listening.wait()
    line.announce_ready()
    await asyncio.wait({stopping, serving, *background}, return_when=asyncio.FIRST_COMPLETED)
    for task in (stopping, *background):
        task.cancel()
    ends = await asyncio.gather(*background, return_exceptions=True)
    await _post_the_rest(poster)
    server.should_exit = True
    await serving
    pool.terminate()
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def keep_turning(*logs: RequestLog | RefusalLog | ChangeLog) -> None:
    """Once a second: have every log say what the last second had no line for."""
    while True:
        await asyncio.sleep(1)
        for one in logs:
            one.turn()


class Server(uvicorn.Server):
    """uvicorn on a socket that the supervisor has bound; it obeys the supervisor and no signal."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=_CLOSE_S,
            )
        )
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and say when it is done."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave all signals as they are."""
        yield


async def _post_the_rest(poster: Poster) -> None:
    try:
        async with asyncio.timeout(_LAST_POSTING_S):
            await poster.post()
    except Exception as error:  # whatever it is, the journals keep it
        _log.warning("what is not posted stays in the journals for the next start: %r", error)
