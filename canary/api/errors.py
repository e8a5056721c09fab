"""How the admin API says no: the status of each error, and one body for all of them."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from canary.api.authority import Forbidden, Unauthorized
from canary.errors import Conflict, LinnetError, Refused, SpecError, TimedOut, Unknown, Unreachable, Usage
from canary.storage.link import StoreError

STATUS: tuple[tuple[type[Exception], int], ...] = (
    (SpecError, 422),
    (Usage, 422),
    (Unauthorized, 401),
    (Forbidden, 403),
    (Unknown, 404),
    (Conflict, 409),
    (Refused, 409),
    (Unreachable, 503),
    (StoreError, 503),
    (TimedOut, 504),
)


class Fault(BaseModel):
    """One line with the mend, and the command line's exit code."""

    message: str
    exit_code: int


class Failure(BaseModel):
    """The body of every error."""

    error: Fault


TOLD = {
    400: "a body that is no text",
    401: "no key, or none that is known",
    403: "a key without the scope admin",
    404: "no such model, report or key",
    409: "the release does not permit it now, or is at another generation",
    413: "a body too large, or of a length that is not told",
    422: "the request is not valid",
    503: "the store does not answer",
}
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    code: {"model": Failure, "description": what} for code, what in TOLD.items()
}


def tell(app: FastAPI) -> None:
    """Let an app answer every error in this way."""
    app.add_exception_handler(LinnetError, refused)
    app.add_exception_handler(StoreError, refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)


def error(code: int, message: str, exit_code: int) -> JSONResponse:
    """Return the answer to what was refused with an HTTP status; `exit_code` is the command line's."""
    return JSONResponse({"error": {"message": message, "exit_code": exit_code}}, status_code=code)


async def refused(_request: Request, why: Exception) -> JSONResponse:
    """Answer one of Linnet's own errors, or the store's."""
    code = next((code for kind, code in STATUS if isinstance(why, kind)), 500)
    return error(code, str(why), getattr(why, "exit_code", 1))


async def _invalid(_request: Request, why: Exception) -> JSONResponse:
    faults = why.errors() if isinstance(why, RequestValidationError) else []
    told = "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in faults)
    return error(422, f"the request is not valid: {told}; mend it", Usage.exit_code)


async def _bug(request: Request, _why: Exception) -> JSONResponse:
    return error(500, f"{request.method} {request.url.path}: failed inside; the control plane's log says why", 1)


async def _http_error(request: Request, why: Exception) -> JSONResponse:
    code = why.status_code if isinstance(why, HTTPException) else 500
    detail = why.detail if isinstance(why, HTTPException) else "failed"
    return error(code, f"{request.method} {request.url.path}: {detail}", Usage.exit_code)
