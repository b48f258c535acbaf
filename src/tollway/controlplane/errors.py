"""Answers that say no, as OpenAI's error objects."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tollway.observe.refusals import RefusalLog, Refused
from tollway.wire.openai_errors import error_body


class ApiError(Exception):
    """A request that is refused; its text is for whoever asked."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, cause: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.cause = cause
        """For the log."""


async def refuse(request: Request, error: Exception) -> Response:
    """The answer to an :class:`ApiError`, and its line in the log."""
    assert isinstance(error, ApiError)
    _note(request, error)
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    headers = {"cache-control": "no-store"}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status == 503:
        headers["retry-after"] = "1"
    body = error_body(str(error), kind, error.code, error.param)
    return Response(body, error.status, headers, media_type="application/json")


def _note(request: Request, error: ApiError) -> None:
    refusals: RefusalLog = request.app.state.refusals
    code = error.code or HTTPStatus(error.status).phrase.lower().replace(" ", "_")
    key_id = request.headers.get("x-tollway-key-id", "")  # said by the worker, as everything here
    refusals.note(
        code,
        lambda: Refused(
            error.status,
            code,
            call_id=request.headers.get("x-request-id", ""),
            key_id=key_id,
            method=request.method,
            path=request.url.path if error.status not in (404, 405) or error.code else "(unknown)",
            cause=error.cause,
        ),
        stranger=not key_id,
    )


async def refuse_unrouted(request: Request, error: Exception) -> Response:
    """The answer where Starlette itself says no: path or method unknown."""
    assert isinstance(error, HTTPException)
    answer = await refuse(request, ApiError(error.status_code, f"{HTTPStatus(error.status_code).phrase}."))
    answer.headers.update(error.headers or {})
    return answer


async def apologise(request: Request, error: Exception) -> Response:
    """The answer to an exception of ours; Starlette raises it again afterwards, and the server logs it."""
    return await refuse(request, ApiError(500, "The gateway made a mistake.", "internal_error"))
