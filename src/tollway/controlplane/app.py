"""The control plane's routes. Every one says who may use it; whatever is not here is 404.

Only workers reach its socket. They pass on exact paths from outside (``/api/…``, ``/metrics``), never ``/internal`` and
``/demo``, which are theirs alone.
"""

import logging
import time

import asyncpg
import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from tollway.accounting.posting import Poster, PostingFigures
from tollway.controlplane.access import Access
from tollway.controlplane.change_log import ChangeLog
from tollway.controlplane.deliveries import Deliveries
from tollway.controlplane.errors import ApiError, apologise, refuse, refuse_unrouted
from tollway.controlplane.metrics import Exposition, Reports
from tollway.controlplane.setup import Setup
from tollway.demo.provider import DemoProvider
from tollway.observe.metrics import WorkerReport
from tollway.observe.refusals import RefusalLog
from tollway.settings import Settings
from tollway.store.outage import AWAY, in_one_line
from tollway.store.uri import DatabaseUrlError
from tollway.store.vault import Vault

_NO_ENTRY = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError, DatabaseUrlError)
"""The database is there, and what let us in at the start does not any more."""

_log = logging.getLogger("tollway.control")


def control_plane(
    settings: Settings,
    pool: asyncpg.Pool,
    vault: Vault,
    poster: Poster,
    refusals: RefusalLog,
    changes: ChangeLog,
) -> Starlette:
    """The application; whoever runs it turns its logs."""
    access = Access(settings)
    setup = Setup(pool, access, vault, changes)
    numbers = Numbers(access, poster.figures)
    routes = [
        Route("/api/generate-virtual-key", setup.generate_virtual_key, methods=["POST"]),
        Route("/api/save-keys", setup.save_keys, methods=["POST"]),
        Route("/metrics", numbers.show, methods=["GET"]),
        Route("/internal/metrics/{worker:int}", numbers.take, methods=["POST"]),
        Route("/internal/settlements", Deliveries(poster).take, methods=["POST"]),
        Mount("/demo", DemoProvider()),
    ]
    handlers = {ApiError: refuse, HTTPException: refuse_unrouted, Exception: _crashed}
    handlers |= dict.fromkeys((*AWAY, *_NO_ENTRY), DatabaseAway(pool))
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.state.refusals = refusals
    return app


class Numbers:
    """Takes what workers report, shows it to Prometheus."""

    def __init__(self, access: Access, figures: PostingFigures) -> None:
        self._access = access
        self._reports = Reports()
        self._exposition = Exposition(self._reports, figures)

    async def show(self, request: Request) -> Response:
        """``GET /metrics``."""
        self._access.require_admin(request)
        body, media_type = self._exposition.render()
        return Response(body, headers={"cache-control": "no-store", "content-type": media_type})

    async def take(self, request: Request) -> Response:
        """``POST /internal/metrics/{worker}``: once a second from each."""
        try:
            report = WorkerReport.decode(await request.body())
            self._reports.put(request.path_params["worker"], report, time.monotonic())
        except (msgspec.DecodeError, ValueError) as error:
            raise ApiError(400, f"Not a report: {error}.") from None
        return Response(status_code=204)


async def _crashed(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return await apologise(request, error)


class DatabaseAway:
    """Answers calls that the database was needed for."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def __call__(self, request: Request, error: Exception) -> Response:
        """503, whatever the reason. That there is an outage, those say who follow the database (``Outage``)."""
        if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
            await self._pool.expire_connections()  # or they would stay with the server that was demoted
        text, cause = "The database does not answer at the moment.", in_one_line(error)
        return await refuse(request, ApiError(503, text, "database_unavailable", cause=cause))
