"""What every exchange of a worker shares."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.door.quota import Quota
from gateway.pool.pool import Pools
from gateway.pool.sink import Patience
from gateway.record.evidence import Evidence
from gateway.record.log import AccessLog
from gateway.record.metrics import Metrics
from gateway.record.shadow import Shadow
from gateway.record.trace import Tracer
from gateway.settings import Limits


@dataclass(frozen=True, slots=True)
class Desk:
    """Where requests go, and where what they leave behind goes; `log` and `tracer` are None where nobody wants them."""

    pools: Pools
    evidence: Evidence
    metrics: Metrics
    shadow: Shadow
    quota: Quota
    limits: Limits
    stream_patience: Patience
    whole_patience: Patience
    log: AccessLog | None = None
    tracer: Tracer | None = None
