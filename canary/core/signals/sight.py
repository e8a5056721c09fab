"""What a signal looks at, and what it says: the stages of one slice in, a `Reading` out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from canary.core.course import Course
from canary.core.tails import Memory
from canary.core.tally import Tally, merged

Z95 = 1.96
UNUSABLE_SHARE = 0.01  # of an arm's reports; above it the measurements are not to be trusted
_NO_MEMORY = Memory()


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage as one guardrail sees it: the candidate's share in 0..1, and both arms' sums of the slice.

    `load` is how many times the baseline's requests in flight a replica the candidate has, None if that is not known.
    """

    stage: int
    share: float
    candidate: Tally
    baseline: Tally
    load: float | None = None
    control: bool = False  # whether `baseline` is its control's part only

    @property
    def place(self) -> int:
        """Return where tails are counted: what was counted against the whole baseline says nothing of a control."""
        return ~self.stage if self.control else self.stage

    @property
    def random(self) -> bool:
        """True while chance divides the traffic: only then do the arms compare."""
        return 0 < self.share < 1

    def matched(self, most: float) -> bool:
        """Tell whether the arms are loaded alike, up to a factor of `most`; without sums nothing speaks against it."""
        return self.load is None or 1 / most <= self.load <= most


Late = Callable[[StageView], tuple[float, str]]  # a stage's own difference: its lower 95 % limit, and it in words
UNTOLD = -math.inf, ""  # of a stage that tells no difference yet


@dataclass(frozen=True, slots=True)
class Reading:
    """What one signal says now. `unknown` and `missing` are reasons in words; `fail` and `passing` are log e-values.

    `estimate`, `low`, `high` and `margin` share the signal's unit; `worse` tells whether the estimate is worse than no
    difference, `beyond` whether it is worse than the margin; `facts` is the sentence's first half. Intervals are
    ordinary 95 % ones, for the eye only; decisions rest on the evidence.
    """

    unknown: str = ""
    missing: str = ""
    facts: str = ""
    n: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float | None = None
    worse: bool = False
    beyond: bool = False
    fail: float = 0.0
    passing: float = 0.0


@dataclass(frozen=True, slots=True)
class Sight:
    """Everything a signal may look at: the stages, the margin, what was remembered, and what is asked of the data."""

    stages: Sequence[StageView]
    margin: float
    memory: Memory = _NO_MEMORY
    min_samples: int = 0
    min_pairs: int = 0
    planned_stages: int = 1
    course: Course | None = None
    arms: tuple[Tally, Tally] | None = None  # the sums of candidate and baseline over the random stages, if known
    located: bool = False  # whether this guardrail is the one that tests its latency's location
    max_load_ratio: float = math.inf
    log_pass: float = math.inf

    @property
    def random(self) -> list[StageView]:
        """The stages in which chance divided the traffic, first to last."""
        return [view for view in self.stages if view.random]

    @property
    def sums(self) -> tuple[Tally, Tally]:
        """The sums of candidate and baseline over the stages in which chance divided the traffic."""
        return sums_of(self.stages) if self.arms is None else self.arms

    def beyond(self, margin: float, pooled: float, late: Late) -> tuple[bool, str]:
        """Tell whether a difference is beyond a margin: that of all stages, or plainly that of the present one alone.

        Evidence begins anew with each planned share (`bounds.with_restarts`), so harm that begins late is proved soon;
        what all stages estimate together would hide it for as long as the ones before were quiet. If `late` is what
        counts, its words are returned. To be beyond is one condition of FAIL, the evidence the other: whatever is told
        here, equal arms reach its bar no more often.
        """
        random = self.random
        if pooled > margin or len(random) < 2:  # noqa: PLR2004 - the first stage is all stages
            return pooled > margin, ""
        least, told = late(random[-1])
        return (True, f", {told} since the share changed") if least > margin else (False, "")


def sums_of(views: Sequence[StageView]) -> tuple[Tally, Tally]:
    """Return the sums of candidate and baseline over the stages in which chance divided the traffic."""
    random = [view for view in views if view.random]
    return merged(view.candidate for view in random), merged(view.baseline for view in random)


def units(arm: Tally) -> int:
    """Return how many units have finished a request: what may be an event, once."""
    return arm.count("done") - arm.count("done_again")


def trouble(candidate: Tally, baseline: Tally) -> str:
    """Say why sums cannot be trusted at all; empty if they can."""
    for name, arm in (("candidate", candidate), ("baseline", baseline)):
        if not arm.sound:
            return f"the {name}'s sums contradict themselves"
        if arm.count("unusable") > UNUSABLE_SHARE * arm.count("done"):
            return f"{arm.count('unusable')} measurements of the {name} are not numbers"
        if units(arm) < 0:
            return f"the {name}'s sums contradict themselves"
        if arm.count("done") == 0:
            return f"no completed request of the {name} yet"
    return ""


def short(n_c: int, n_b: int, needed: int, what: str) -> str:
    """Say what is missing to the smallest sample, "" if nothing is."""
    return "" if min(n_c, n_b) >= needed else f"needs {needed} {what} an arm, has {n_c} and {n_b}"
