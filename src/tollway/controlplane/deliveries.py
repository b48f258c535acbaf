"""Settlements that come from a worker itself, because its disk takes none."""

from starlette.requests import Request
from starlette.responses import Response

from tollway.accounting.frames import read_frames
from tollway.accounting.posting import Poster
from tollway.controlplane.errors import ApiError


class Deliveries:
    """Posts what workers deliver."""

    def __init__(self, poster: Poster) -> None:
        self._poster = poster

    async def take(self, request: Request) -> Response:
        """``POST /internal/settlements``: frames as in a journal, perhaps none. 204 says that PostgreSQL has them."""
        try:
            records = read_frames(await request.body())
        except ValueError as error:
            raise ApiError(400, f"Not settlements: {error}.") from None
        await self._poster.enter(records)
        return Response(status_code=204)
