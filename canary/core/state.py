"""The state of a model's release: one frozen value, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

from canary.core.arms import Endpoint, Split
from canary.core.plan import Plan


class Phase(StrEnum):
    """Where a release stands."""

    DRAFT = "draft"
    PREFLIGHT = "preflight"
    SHADOW = "shadow"
    CANARY = "canary"
    BAKE = "bake"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


ACTIVE = (Phase.DRAFT, Phase.PREFLIGHT, Phase.SHADOW, Phase.CANARY, Phase.BAKE)
ENDED = (Phase.ROLLED_BACK, Phase.ABORTED, Phase.SUPERSEDED)
EXPOSED = (Phase.PREFLIGHT, Phase.SHADOW, Phase.CANARY, Phase.BAKE)  # workers know the candidate
MIRRORED = (Phase.SHADOW, Phase.CANARY)  # by the bake its quality is proved, and the baseline's share is small


@dataclass(frozen=True, slots=True)
class Ramp:
    """The share is on its way `to` a percent: `left` parts, `every` so many seconds, the next `due` (Unix seconds).

    One `by_hand` goes on while automation is paused: a person asked for it.
    """

    to: float
    left: int
    every: float
    due: float
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """One attempt of one release, and the model's baseline with it.

    Times are Unix seconds, `breach_ms` and `decided_ms` Unix milliseconds of the rollback (0 before one),
    `concluded` the generation of the end (0 before it): a generation after it only follows engines that moved.
    `shares` holds the candidate's percent by stage; the last one is now. `percent` is 100 once promoted, though
    workers then see one arm: the candidate has become the baseline, and `previous` keeps the old one's place.
    `control` is the baseline's model on replicas of its own, None without one; `staged` is when the share last changed,
    `warm_until` when caches are taken for full (0 before the first share).
    `withdrawn_ms` is when (Unix milliseconds) a rollback was rehearsed last, 0 before; `rehearsal_ms` how long it took
    to the last worker's acknowledgement, None while it goes on.
    `jumped` is by how many seconds the controller's clock has jumped in this attempt; its times went with it.
    Overlays hold their reason, "" when off. `breaches` names guards that paused once: a person who resumes saw them.
    """

    model: str
    release: str
    attempt: int
    plan: Plan
    baseline: Endpoint
    candidate: Endpoint
    spec: str = ""
    previous: Endpoint | None = None
    control: Endpoint | None = None
    phase: Phase = Phase.DRAFT
    step: int = 0
    shares: tuple[float, ...] = (0.0,)
    generation: int = 1
    started: float = 0.0
    entered: float = 0.0
    staged: float = 0.0
    warm_until: float = 0.0
    ramp: Ramp | None = None
    withdrawn_ms: int = 0
    rehearsal_ms: int | None = None
    ended: float = 0.0
    paused: str = ""
    held: str = ""
    held_key: str = ""
    frozen: str = ""
    breaches: tuple[str, ...] = ()
    reason: str = ""
    breach_ms: int = 0
    decided_ms: int = 0
    concluded: int = 0
    jumped: float = 0.0

    @property
    def percent(self) -> float:
        """The candidate's share now, 0..100."""
        return self.shares[-1]

    @property
    def stage(self) -> int:
        """How often the share changed in this attempt."""
        return len(self.shares) - 1

    @property
    def active(self) -> bool:
        """True while the attempt may still move."""
        return self.phase in ACTIVE

    @property
    def place(self) -> str:
        """Phase and share in words."""
        return f"{self.phase} {self.percent:g} %"

    @property
    def at(self) -> str:
        """Name the place exactly: what was seen elsewhere says nothing about here."""
        return f"{self.release}/{self.attempt}/{self.phase}/{self.stage}"

    def same_attempt(self, at: str) -> bool:
        """Tell whether `at` (another moment's) names a place of this attempt."""
        return at.startswith(f"{self.release}/{self.attempt}/")

    @property
    def rehearsing(self) -> bool:
        """True while the candidate is withdrawn to see how soon every worker follows."""
        return self.phase is Phase.PREFLIGHT and self.withdrawn_ms > 0 and self.rehearsal_ms is None

    @property
    def exposed(self) -> bool:
        """True while workers know the candidate."""
        return self.phase in EXPOSED and not self.rehearsing

    @property
    def min_duration(self) -> float:
        """Seconds to stay here at least."""
        if self.phase is Phase.SHADOW and self.plan.shadow is not None:
            return self.plan.shadow.min_duration
        if self.phase is Phase.CANARY:
            return self.plan.steps[self.step].min_duration
        return self.plan.bake.duration if self.phase is Phase.BAKE else 0.0

    @property
    def max_duration(self) -> float:
        """Seconds to stay here at most, 0 for no limit."""
        if self.phase is Phase.SHADOW and self.plan.shadow is not None:
            return self.plan.shadow.max_duration
        if self.phase is Phase.CANARY:
            return self.plan.steps[self.step].max_duration
        return self.plan.bake.max_duration if self.phase is Phase.BAKE else 0.0

    @property
    def min_samples(self) -> int:
        """The candidate's finished requests needed at this share."""
        if self.phase is Phase.CANARY:
            return self.plan.steps[self.step].min_samples
        return self.plan.bake.min_samples if self.phase is Phase.BAKE else 0

    @property
    def control_percent(self) -> float:
        """The control's share: as large as the candidate's; in the shadow the first step's, to be its reference."""
        if self.control is None:
            return 0.0
        if self.phase is Phase.SHADOW:
            return min(self.plan.steps[0].percent, 100.0)
        return min(self.percent, 100.0 - self.percent) if self.phase in (Phase.CANARY, Phase.BAKE) else 0.0

    def split(self) -> Split:
        """Return what workers are to route by. Without an exposed candidate there is one arm: the baseline."""
        exposed = self.exposed
        shadow = self.plan.shadow if self.phase in MIRRORED else None
        return Split(
            model=self.model,
            generation=self.generation,
            baseline=self.baseline,
            candidate=self.candidate if exposed else None,
            release=self.release,
            attempt=self.attempt,
            stage=self.stage,
            phase=self.phase.value,
            percent=self.percent if exposed else 0.0,
            shadow_percent=shadow.percent if shadow else 0.0,
            shadow_concurrency=shadow.max_concurrency if shadow else 0,
            slices=self.plan.slices,
            control=self.control if exposed else None,
            control_percent=self.control_percent,
            warm_until=self.warm_until if exposed else 0.0,
            examined=self.plan.examined if exposed else (),
        )

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back to an equal value."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Release:
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError on anything else."""
        value = json.loads(text)
        others = {name: value.get(name) for name in ("previous", "control")}
        ramp = value.get("ramp")
        return cls(
            **{
                **value,
                "plan": Plan.from_json(value["plan"]),
                "baseline": Endpoint.from_json(value["baseline"]),
                "candidate": Endpoint.from_json(value["candidate"]),
                **{name: None if one is None else Endpoint.from_json(one) for name, one in others.items()},
                "phase": Phase(value["phase"]),
                "ramp": None if ramp is None else Ramp(**ramp),
                "shares": tuple(value["shares"]),
                "breaches": tuple(value["breaches"]),
            }
        )
