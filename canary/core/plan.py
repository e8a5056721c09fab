"""What a release intends: its steps, its shadow, its bake and its money, as the spec said when it started."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

FLAWS = ("refusal", "malformed", "repetition")  # what is wrong with an answer's text; looked for only where asked
PROVED_FROM = 25.0  # percent: at this share or more, "nothing failed" is not enough: every critical guard must pass
MAX_ROLLBACK_S = 5.0
Rates: TypeAlias = tuple[float, float]  # USD a million prompt tokens, a million completion tokens
_RAMP_PARTS = 10  # at most: each part is a stage of evidence of its own
_PART_S = 2.0  # at least


class AtEnd(StrEnum):
    """What happens to a release whose time is up."""

    HOLD = "hold"
    ROLLBACK = "rollback"
    ABORT = "abort"


@dataclass(frozen=True, slots=True)
class Step:
    """One share of traffic; durations in seconds, `min_samples` of the candidate's finished requests at this share.

    `ramp` is how long the share takes to get there (0: at once), `max_duration` how long it may stay (0: for ever).
    What happens then is None where the release's own limits say it.
    """

    percent: float
    min_duration: float = 0.0
    min_samples: int = 0
    manual: bool = False  # a person says `promote`
    max_duration: float = 0.0
    on_timeout: AtEnd | None = None
    on_inconclusive: AtEnd | None = None
    ramp: float = 0.0

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Step:
        """Build from parsed JSON."""
        ends = ("on_timeout", "on_inconclusive")
        return cls(**value | {name: None if value.get(name) is None else AtEnd(value[name]) for name in ends})


@dataclass(frozen=True, slots=True)
class ShadowPlan:
    """Mirror `percent` of the baseline's requests until `min_pairs` are scored."""

    percent: float
    min_pairs: int
    max_concurrency: int
    min_duration: float = 0.0
    max_duration: float = 0.0


@dataclass(frozen=True, slots=True)
class BakePlan:
    """Stay at `percent` for `duration` seconds; the rest stays on the old baseline."""

    duration: float
    percent: float = 95.0
    min_samples: int = 0
    max_duration: float = 0.0
    ramp: float = 0.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the release may take in all (seconds, 0: for ever), and what happens when time is up.

    `on_inconclusive` is for a place whose evidence does not suffice in its time, `on_timeout` for all else.
    """

    max_duration: float = 0.0
    on_timeout: AtEnd = AtEnd.HOLD
    on_inconclusive: AtEnd = AtEnd.HOLD

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Limits:
        """Build from parsed JSON; {} limits nothing."""
        return cls(
            max_duration=value.get("max_duration", 0.0),
            on_timeout=AtEnd(value.get("on_timeout", AtEnd.HOLD)),
            on_inconclusive=AtEnd(value.get("on_inconclusive", AtEnd.HOLD)),
        )


@dataclass(frozen=True, slots=True)
class Money:
    """US dollars of the decision card, and what each arm costs: an hour of its engines, or its tokens.

    `control_per_hour` is 0 where the control's machines are paid for anyhow. Rates are USD a million prompt and
    completion tokens, 0 where hours are paid.
    """

    budget: float
    stop_loss: float
    spent_before: float = 0.0
    baseline_per_hour: float = 0.0
    candidate_per_hour: float = 0.0
    control_per_hour: float = 0.0
    baseline_rates: Rates = (0.0, 0.0)
    candidate_rates: Rates = (0.0, 0.0)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Money:
        """Build from parsed JSON; in an older one no token is paid for."""
        given: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}
        return cls(**given)

    @property
    def per_hour(self) -> float:
        """What an hour of the release costs."""
        return self.candidate_per_hour + self.control_per_hour


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole intention. `gates` names the reports ("load", "eval") that preflight waits for.

    For `warm_up` seconds after the first share caches fill, and latency and cost are no evidence; `examined` names the
    flaws that answers are searched for. Nobody is exposed before a rehearsed rollback took at most `max_rollback`
    seconds; with `known_capacity` not before it is known that the baseline can serve all the traffic.
    """

    steps: tuple[Step, ...]
    bake: BakePlan
    money: Money
    shadow: ShadowPlan | None = None
    gates: tuple[str, ...] = ()
    slices: tuple[str, ...] = ()
    warm_up: float = 0.0
    examined: tuple[str, ...] = ()
    limits: Limits = Limits()
    max_rollback: float = MAX_ROLLBACK_S
    known_capacity: bool = False

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """Build from parsed JSON; an older one neither warms up nor examines, and has no limits."""
        shadow = value.get("shadow")
        return cls(
            steps=tuple(map(Step.from_json, value["steps"])),
            bake=BakePlan(**value["bake"]),
            money=Money.from_json(value["money"]),
            shadow=None if shadow is None else ShadowPlan(**shadow),
            gates=tuple(value["gates"]),
            slices=tuple(value["slices"]),
            warm_up=value.get("warm_up", 0.0),
            examined=tuple(value.get("examined", ())),
            limits=Limits.from_json(value.get("limits", {})),
            max_rollback=value.get("max_rollback", MAX_ROLLBACK_S),
            known_capacity=value.get("known_capacity", False),
        )

    def after(self, seconds: float, tokens_usd: float = 0.0) -> Plan:
        """Return the plan of the next attempt: what this one's `seconds` and tokens cost was spent before it."""
        spent = self.money.spent_before + max(0.0, seconds) / 3600 * self.money.per_hour + tokens_usd
        return replace(self, money=replace(self.money, spent_before=spent))

    def step_at(self, percent: float) -> int:
        """Return the index of the last step that is not above `percent`, 0 below the first."""
        return max((index for index, step in enumerate(self.steps) if step.percent <= percent), default=0)

    def next_step(self, percent: float) -> int | None:
        """Return the index of the first step above `percent`, None above the last."""
        return next((index for index, step in enumerate(self.steps) if step.percent > percent), None)


def ramp_parts(seconds: float) -> int:
    """Return in how many equal parts a share moves within `seconds`: one at once, the last at the end."""
    return 1 if seconds <= 0 else max(2, min(_RAMP_PARTS, 1 + int(seconds / _PART_S)))
