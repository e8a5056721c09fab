"""The admin API, on the control plane's own listener."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi import Path as PathParam
from pydantic import BaseModel, ConfigDict, Field

from canary.api import errors
from canary.api.authority import Authority
from canary.assess import MENDS, illegible
from canary.commands import Command, execute
from canary.core.events import Cause
from canary.errors import LinnetError, Unknown, Usage
from canary.metrics import Metrics
from canary.status import material, status
from canary.storage.apikeys import KeyLimits, checked
from canary.storage.store import Store, StoreError

Name = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Kind = Annotated[str, PathParam(pattern=r"^(load|eval)$")]
StreamId = Annotated[str, Query(pattern=r"^([0-9]{1,19}-[0-9]{1,19})?$")]  # 20 digits may be more than 64 bits
KeyId = Annotated[str, PathParam(pattern=r"^key_[0-9a-f]{1,64}$")]
Actor = Annotated[str, Query(max_length=200)]
Digest = Annotated[str, PathParam(pattern=r"^[A-Za-z0-9:._+-]{1,200}$")]
_LARGEST = 1 << 20  # bytes of a body


class Exposition(Response):
    """What Prometheus scrapes."""

    media_type = "text/plain; version=0.0.4; charset=utf-8"


class Said(BaseModel):
    """Who says it, and why; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")

    actor: Annotated[str, Field(max_length=200)] = "unknown"
    reason: Annotated[str, Field(max_length=2000)] = ""

    def who(self, request: Request) -> str:
        """Return the actor, with the key that proves it where keys are needed: a name alone is only a claim."""
        key_id = request.state.key_id
        named = " ".join(self.actor.split()) or "unknown"
        return f"{named} ({key_id})" if key_id else named

    def cause(self, what: str, request: Request, now: float) -> Cause:
        """Return who, why and when. Raises Usage without a reason."""
        if not self.reason.strip():
            raise Usage(f"{what}: no reason given; add --reason TEXT")
        return Cause(self.who(request), " ".join(self.reason.split()), now)


class Body(Said):
    """What a change of a release may insist on."""

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


class KeyBody(Said):
    """A key to be made; no limit is null."""

    name: Annotated[str, Field(max_length=200)]
    scopes: Annotated[list[str], Field(max_length=10)]
    rpm: int | None = None
    tpm: int | None = None
    usd_per_day: float | None = None


def create_app(
    store: Store, metrics: Metrics, clock: Callable[[], float] = time.time, *, keys_needed: bool = False
) -> FastAPI:
    """Wire the listener; `clock` gives Unix seconds. `keys_needed` even if the store knows of no admin's key."""
    app = FastAPI(title="Linnet control plane", docs_url=None, redoc_url=None, responses=errors.RESPONSES)
    app.include_router(_reading(store, clock))
    app.include_router(_changing(store, clock))
    app.include_router(_keys(store, clock))
    app.include_router(_operations(store, metrics))
    errors.tell(app)
    app.middleware("http")(_bounded)
    app.middleware("http")(_admitted(Authority(store.api_keys(), needed=keys_needed)))
    return app


def _reading(store: Store, clock: Callable[[], float]) -> APIRouter:
    router = APIRouter(prefix="/admin/v1")

    @router.get("/models")
    async def models() -> dict[str, Any]:
        return {"models": await store.models()}

    @router.get("/engines")
    async def engines() -> dict[str, Any]:
        return {"engines": await store.engines()}

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

    @router.get("/audit/chain")
    async def chain(after: StreamId = "") -> dict[str, Any]:
        return await store.audit_log().chain(after)

    return router


def _changing(store: Store, clock: Callable[[], float]) -> APIRouter:
    router = APIRouter(prefix="/admin/v1")

    @router.post("/models/{model}/commands")
    async def command(model: Name, body: CommandBody, request: Request) -> dict[str, Any]:
        who = body.who(request)
        order = Command(body.verb, model, who, body.reason, body.if_generation, body.idempotency_key, body.args)
        return await execute(store, order, clock())

    @router.post("/releases", status_code=201)
    async def start(body: ReleaseBody, request: Request) -> dict[str, Any]:
        args = {"spec": body.spec, "where": body.where, "supersede": body.supersede}
        who = body.who(request)
        order = Command("start", "", who, body.reason, body.if_generation, body.idempotency_key, args)
        return await execute(store, order, clock())

    @router.put("/models/{model}/reports/{kind}/{digest}")
    async def put_report(
        request: Request, model: Name, kind: Kind, digest: Digest, report: dict[str, Any], *, actor: Actor = "unknown"
    ) -> dict[str, Any]:
        if report.get("digest", digest) != digest or report.get("model", model) != model:
            raise Usage("the report names another model or digest than its address; put it where it belongs")
        if kind == "load" and (what := illegible(report)):
            raise Usage(f"the load report cannot be read ({what}); make it with `{MENDS[kind]}`")
        cause = Cause(Said(actor=actor).who(request), "", clock())
        await store.put_report(model, kind, digest, report, cause)
        return {"model": model, "kind": kind, "digest": digest}

    return router


def _keys(store: Store, clock: Callable[[], float]) -> APIRouter:
    router = APIRouter(prefix="/admin/v1/keys")
    api_keys = store.api_keys()

    @router.get("")
    async def every() -> dict[str, Any]:
        return {"keys": [key.to_dict() for key in await api_keys.every()]}

    @router.post("", status_code=201)
    async def create(body: KeyBody, request: Request, response: Response) -> dict[str, Any]:
        wish = checked(body.name, body.scopes, KeyLimits(body.rpm, body.tpm, body.usd_per_day))
        key, secret = await api_keys.create(wish, body.cause("keys create", request, clock()))
        response.headers["cache-control"] = "no-store"
        return {**key.to_dict(), "secret": secret}

    @router.delete("/{key_id}")
    async def revoke(key_id: KeyId, body: Said, request: Request) -> dict[str, Any]:
        return (await api_keys.revoke(key_id, body.cause("keys revoke", request, clock()))).to_dict()

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

    @router.get("/metrics", response_class=Exposition)
    async def show_metrics() -> Response:
        return Exposition(await metrics.render(store))

    return router


def _admitted(authority: Authority) -> Callable[[Request, Callable[[Request], Any]], Any]:
    """Decide before anything of the request is read; by the same path that routes it, never by a URL."""

    async def admit(request: Request, go_on: Callable[[Request], Any]) -> Any:
        given = [value for name, value in request.scope["headers"] if name == b"authorization"]
        try:
            scope = request.scope
            key_id = await authority.admit(scope["method"], scope["path"], given[0] if len(given) == 1 else None)
        except (LinnetError, StoreError) as error:
            return await errors.refused(request, error)
        request.state.key_id = key_id
        return await go_on(request)

    return admit


async def _bounded(request: Request, go_on: Callable[[Request], Any]) -> Any:
    """Refuse bodies that are too large, or whose length is not told."""
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers or not length.isdecimal() or int(length) > _LARGEST:
        return errors.error(413, f"a body has a length of at most {_LARGEST} bytes", Usage.exit_code)
    return await go_on(request)
