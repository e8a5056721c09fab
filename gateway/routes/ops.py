"""Whether the worker lives and may be sent traffic; the metrics, on the operations port only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response

from gateway.door.access import Keys
from gateway.split.splits import Splits


@dataclass(slots=True)
class Readiness:
    """Whether this worker takes new requests."""

    draining: bool = False


def health_router(readiness: Readiness, splits: Splits, keys: Keys) -> APIRouter:
    """/livez and /readyz. A store that is down does not make a worker unready: it serves.

    Where keys are needed, anybody may still ask, and is told words and no names: the log has the rest.
    """
    router = APIRouter()

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz(response: Response) -> dict[str, Any]:
        response.status_code = 503 if readiness.draining else 200
        reduced = {model: route.reduced for model, route in splits.routes.items() if route.reduced}
        status = "draining" if readiness.draining else "ok"
        if keys.needed:
            return {
                "status": status,
                "baseline_only": len(reduced),
                "models_file": splits.models_file.partition(":")[0],
            }
        return {"status": status, "baseline_only": reduced, "models_file": splits.models_file}

    return router


def metrics_router(page: Callable[[], bytes], content_type: str) -> APIRouter:
    """/metrics of all workers summed; the page is made in a thread."""
    router = APIRouter()

    @router.get("/metrics")
    def metrics() -> Response:
        return Response(page(), media_type=content_type)

    return router
