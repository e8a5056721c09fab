"""What a release intends: its steps, its shadow, its bake and its money, as the spec said when it started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

FLAWS = ("refusal", "malformed", "repetition")  # what is wrong with an answer's text; looked for only where asked
PROVED_FROM = 25.0  # percent: at this share or more, "nothing failed" is not enough: every critical guard must pass


@dataclass(frozen=True, slots=True)
class Step:
    """One share of traffic; durations in seconds, `min_samples` of the candidate's finished requests at this share."""

    percent: float
    min_duration: float = 0.0
    min_samples: int = 0
    manual: bool = False  # a person says `promote`


@dataclass(frozen=True, slots=True)
class ShadowPlan:
    """Mirror `percent` of the baseline's requests until `min_pairs` are scored."""

    percent: float
    min_pairs: int
    max_concurrency: int
    min_duration: float = 0.0


@dataclass(frozen=True, slots=True)
class BakePlan:
    """Stay at `percent` for `duration` seconds; the rest stays on the old baseline."""

    duration: float
    percent: float = 95.0
    min_samples: int = 0


@dataclass(frozen=True, slots=True)
class Money:
    """US dollars of the decision card, and what an hour of each arm's engines costs."""

    budget: float
    stop_loss: float
    spent_before: float = 0.0
    baseline_per_hour: float = 0.0
    candidate_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole intention. `gates` names the reports ("load", "eval") that preflight waits for.

    For `warm_up` seconds after the first share caches fill, and latency and cost are no evidence; `examined` names the
    flaws that answers are searched for.
    """

    steps: tuple[Step, ...]
    bake: BakePlan
    money: Money
    shadow: ShadowPlan | None = None
    gates: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    warm_up: float = 0.0
    examined: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """Build from parsed JSON; an older one neither warms up nor examines."""
        shadow = value.get("shadow")
        return cls(
            steps=tuple(Step(**step) for step in value["steps"]),
            bake=BakePlan(**value["bake"]),
            money=Money(**value["money"]),
            shadow=None if shadow is None else ShadowPlan(**shadow),
            gates=tuple(value["gates"]),
            slices=tuple(value["slices"]),
            warm_up=value.get("warm_up", 0.0),
            examined=tuple(value.get("examined", ())),
        )

    def after(self, seconds: float) -> Plan:
        """Return the plan of the next attempt: what this one's engine cost in `seconds` was spent before it."""
        spent = self.money.spent_before + max(0.0, seconds) / 3600 * self.money.candidate_per_hour
        return replace(self, money=replace(self.money, spent_before=spent))

    def step_at(self, percent: float) -> int:
        """Return the index of the last step that is not above `percent`, 0 below the first."""
        return max((index for index, step in enumerate(self.steps) if step.percent <= percent), default=0)

    def next_step(self, percent: float) -> int | None:
        """Return the index of the first step above `percent`, None above the last."""
        return next((index for index, step in enumerate(self.steps) if step.percent > percent), None)
