"""OpenAI's list of models. The routes that an engine answers are in `table.py`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request

from gateway.door.access import Keys
from gateway.errors import ApiError, no_model
from gateway.split.splits import Splits


def models_router(splits: Splits, keys: Keys) -> APIRouter:
    """List the public models, and show one."""

    async def known(request: Request) -> None:
        given = request.headers.getlist("authorization")
        if len(given) > 1:
            raise ApiError(400, "The header authorization is given twice.", "doubled_header")
        keys.identify(given[0].encode("latin-1") if given else None)

    router = APIRouter(dependencies=[Depends(known)])

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in sorted(splits.models)]}

    @router.get("/v1/models/{name:path}")
    async def show_model(name: str) -> dict[str, Any]:
        if splits.route(name) is None:
            raise no_model(name)
        return _model(name)

    return router


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "linnet"}
