"""The admin API, on the control plane's own listener. Every error is {"error": {"message", "exit_code"}}."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi import Path as PathParam
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from canary.assess import MENDS, illegible
from canary.commands import Command, execute
from canary.errors import Conflict, LinnetError, Refused, SpecError, TimedOut, Unknown, Unreachable, Usage
from canary.metrics import Metrics
from canary.status import material, status
from canary.store import Store, StoreError

Name = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Kind = Annotated[str, PathParam(pattern=r"^(load|eval)$")]
Digest = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9:._+-]{1,200}$")]
_LARGEST = 1 << 20  # bytes of a body

STATUS: tuple[tuple[type[LinnetError], int], ...] = (
    (SpecError, 422),
    (Usage, 422),
    (Unknown, 404),
    (Conflict, 409),
    (Refused, 409),
    (Unreachable, 503),
    (TimedOut, 504),
)


class Body(BaseModel):
    """Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")

    actor: Annotated[str, Field(max_length=200)] = "unknown"
    reason: Annotated[str, Field(max_length=2000)] = ""
    if_generation: int | None = None
    idempotency_key: Annotated[str, Field(max_length=200)] = ""


class CommandBody(Body):
    """A verb of the operator."""

    verb: Annotated[str, Field(max_length=40)]
    args: dict[str, Any] = {}


class ReleaseBody(Body):
    """A spec's text; `where` names its file in error messages."""

    spec: str
    where: Annotated[str, Field(max_length=1000)] = "spec"
    supersede: bool = False


def create_app(store: Store, metrics: Metrics, clock: Callable[[], float] = time.time) -> FastAPI:
    """Wire the listener; `clock` gives Unix seconds."""
    app = FastAPI(title="Linnet control plane", docs_url=None, redoc_url=None)
    app.include_router(_reading(store, clock))
    app.include_router(_changing(store, clock))
    app.include_router(_operations(store, metrics))
    app.add_exception_handler(LinnetError, _linnet_error)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _bug)
    app.middleware("http")(_bounded)
    return app


def _reading(store: Store, clock: Callable[[], float]) -> APIRouter:
    router = APIRouter(prefix="/admin/v1")

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"models": await store.models()}

    @router.get("/models/{model}/status")
    async def show(model: Name) -> dict[str, Any]:
        return await status(store, model, clock())

    @router.get("/models/{model}/report")
    async def report(model: Name) -> dict[str, Any]:
        return await material(store, model, clock())

    @router.get("/models/{model}/reports/{kind}/{digest}")
    async def gate_report(model: Name, kind: Kind, digest: Digest) -> dict[str, Any]:
        found = await store.get_report(model, kind, digest)
        if found is None:
            raise Unknown(f"{model}: no {kind} report for {digest[:19]}; run `{MENDS[kind]}`")
        return found

    @router.get("/audit")
    async def audit(model: str | None = None, count: Annotated[int, Query(ge=1, le=10_000)] = 100) -> dict[str, Any]:
        return {"entries": await store.audit(model, count)}

    return router


def _changing(store: Store, clock: Callable[[], float]) -> APIRouter:
    router = APIRouter(prefix="/admin/v1")

    @router.post("/models/{model}/commands")
    async def command(model: Name, body: CommandBody) -> dict[str, Any]:
        order = Command(body.verb, model, body.actor, body.reason, body.if_generation, body.idempotency_key, body.args)
        return await execute(store, order, clock())

    @router.post("/releases", status_code=201)
    async def start(body: ReleaseBody) -> dict[str, Any]:
        args = {"spec": body.spec, "where": body.where, "supersede": body.supersede}
        order = Command("start", "", body.actor, body.reason, body.if_generation, body.idempotency_key, args)
        return await execute(store, order, clock())

    @router.put("/models/{model}/reports/{kind}/{digest}")
    async def put_report(model: Name, kind: Kind, digest: Digest, report: dict[str, Any]) -> dict[str, Any]:
        if report.get("digest", digest) != digest or report.get("model", model) != model:
            raise Usage("the report names another model or digest than its address; put it where it belongs")
        if kind == "load" and (what := illegible(report)):
            raise Usage(f"the load report cannot be read ({what}); make it with `{MENDS[kind]}`")
        await store.put_report(model, kind, digest, report)
        return {"model": model, "kind": kind, "digest": digest}

    return router


def _operations(store: Store, metrics: Metrics) -> APIRouter:
    router = APIRouter()

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> dict[str, str]:
        await store.ping()
        return {"status": "ok"}

    @router.get("/metrics")
    async def show_metrics() -> Response:
        return Response(await metrics.render(store), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


async def _bounded(request: Request, go_on: Callable[[Request], Any]) -> Any:
    """Refuse bodies that are too large, or whose length is not told."""
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or not length.isdecimal() or int(length) > _LARGEST:
        return _error(413, f"a body has a length of at most {_LARGEST} bytes", Usage.exit_code)
    return await go_on(request)


def _error(code: int, message: str, exit_code: int) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "exit_code": exit_code}}, status_code=code)


async def _linnet_error(_request: Request, error: Exception) -> JSONResponse:
    code = next((code for kind, code in STATUS if isinstance(error, kind)), 500)
    return _error(code, str(error), getattr(error, "exit_code", 1))


async def _store_error(_request: Request, error: Exception) -> JSONResponse:
    return _error(503, str(error), Unreachable.exit_code)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    told = "; ".join(f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in faults)
    return _error(422, f"the request is not valid: {told}; mend it", Usage.exit_code)


async def _bug(request: Request, _error_of_ours: Exception) -> JSONResponse:
    return _error(500, f"{request.method} {request.url.path}: failed inside; the control plane's log says why", 1)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    code = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "failed"
    return _error(code, f"{request.method} {request.url.path}: {detail}", Usage.exit_code)
