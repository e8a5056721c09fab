"""The two arms of a release, and the split that sends traffic to them.

A `Split` is everything a gateway worker needs to route one model. The controller publishes it, workers acknowledge its
generation, and nothing else reaches a worker: what an app sends can name neither an engine nor a share.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Arm(StrEnum):
    """Who answers."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an arm is served.

    `price` is (USD per request, per prompt token, per completion token) from the arm's load test, or None before one.
    """

    engine: str
    served_model: str
    replicas: tuple[str, ...]  # base URLs, such as http://127.0.0.1:8101
    digest: str = ""
    price: tuple[float, float, float] | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Endpoint:
        """Build from parsed JSON; lists become tuples."""
        price = value.get("price")
        return cls(
            engine=value["engine"],
            served_model=value["served_model"],
            replicas=tuple(value["replicas"]),
            digest=value.get("digest", ""),
            price=None if price is None else (price[0], price[1], price[2]),
        )


@dataclass(frozen=True, slots=True)
class Split:
    """How one model's traffic is divided, from one generation to the next.

    `stage` numbers the values of `percent` within an attempt: evidence is summed per stage, because rates pooled over
    a change of share lie. `percent` is the candidate's share of traffic, 0..100; `shadow_percent` the share of the
    baseline's answers that is mirrored to the candidate. `candidate` is None when no release is under way.

    `control` is the baseline's model on replicas of its own: it answers `control_percent` of the traffic, as large a
    random part as the candidate's, so that both are loaded alike; None if there is none. Until `warm_until` (Unix
    seconds) caches fill: latency and cost of what is drawn before are no evidence. `examined` names the flaws that
    answers are searched for.
    """

    model: str
    generation: int
    baseline: Endpoint
    candidate: Endpoint | None = None
    release: str = ""
    attempt: int = 0
    stage: int = 0
    phase: str = ""
    percent: float = 0.0
    shadow_percent: float = 0.0
    shadow_concurrency: int = 0
    slices: tuple[str, ...] = ()
    control: Endpoint | None = None
    control_percent: float = 0.0
    warm_until: float = 0.0
    examined: tuple[str, ...] = ()

    def arms(self) -> list[tuple[Arm, Endpoint]]:
        """Return every arm there is, and where it is served."""
        baseline = (Arm.BASELINE, self.baseline)
        return [baseline] if self.candidate is None else [baseline, (Arm.CANDIDATE, self.candidate)]

    def endpoint(self, arm: Arm) -> Endpoint | None:
        """Return where `arm` is served, None if there is no candidate."""
        return self.baseline if arm is Arm.BASELINE else self.candidate

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back to an equal value."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Split:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError on anything else."""
        value = json.loads(text)
        if not isinstance(value, dict):
            raise TypeError(f"a split is a JSON object, not {type(value).__name__}")
        others = {name: value.pop(name, None) for name in ("candidate", "control")}
        return cls(
            **{
                **value,
                "baseline": Endpoint.from_json(value["baseline"]),
                **{name: None if one is None else Endpoint.from_json(one) for name, one in others.items()},
                "slices": tuple(value.get("slices", ())),
                "examined": tuple(value.get("examined", ())),
            }
        )
