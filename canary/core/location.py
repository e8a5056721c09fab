"""Where a latency lies: whether the candidate is slower as a whole, or only its machine for a while.

Randomisation makes the arms' requests alike, but not their machines: a replica has slow noise of its own (a neighbour,
heat, a compaction) that lasts for minutes, and no number of requests cancels it. So blocks of time are compared, and
evidence must hold against a whole *set* of noise laws at once.

A block is 10 s of assignment time, closed a little later; what comes later still is left out, and a closed block is
final. From both arms' log buckets k (growth g) it leaves y = ln g (mean k_c - mean k_b), with a sampling variance r. A
hypothesis j = (sigma, tau) says y = theta + x + e: theta is the effect, x a stationary Ornstein-Uhlenbeck process with
standard deviation sigma and correlation time tau (seconds), e ~ N(0, r). A Kalman filter for each j gives the log
likelihood as a parabola, L + theta S - theta^2 I/2. The evidence that the candidate is slower is

    E = sum_j p_j mean over theta in WORSE of L_j(theta) / max over j in C, theta <= 0 of L_j(theta):

the likelihood of a mixture over that of the best law without harm (universal inference: Wasserman, Ramdas &
Balakrishnan, arXiv 1912.11436). If the truth lies in C, its expectation is at most 1 at any stopping time; exact for
Gaussian blocks.

A *reference* (reference.py), hours in which two sets of replicas that serve the same model were compared in the same
way, tells which laws are likely: p_j is proportional to its likelihood under j, and C leaves out what it all but
excludes. What was believed when the first block came holds to the end: weights that follow the data are no prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from canary.core.bounds import log_total
from canary.core.noise import ASSUMED, USUAL, Filter, Floats, Law
from canary.core.tally import GROWTH

_LOG_GROWTH: Final = math.log(GROWTH)
WORSE: Final = np.log([1.03, 1.06, 1.1, 1.15, 1.22, 1.3, 1.4, 1.55, 1.75, 2, 2.5, 3.5, 6, 12])  # e^theta
EXCLUDED: Final = 0.0005  # of the mean likelihood under the reference: a law below it is left out of C
OUTSIDE: Final = math.log(10.0)  # how much likelier a law beyond the assumptions must be to be named
_PRIOR_BASELINE: Final = 200.0  # degrees of freedom that history's variance counts for
_PRIOR_CANDIDATE: Final = 50.0


@dataclass(frozen=True, slots=True)
class Arm:
    """One arm's requests in one block: how many, and the sums of their bucket numbers and of those squared."""

    n: int = 0
    k: int = 0
    kk: int = 0

    @property
    def squares(self) -> float:
        """The sum of squares about the block's mean, in log units squared; integers until the last step."""
        return max(0, self.n * self.kk - self.k * self.k) / self.n * _LOG_GROWTH**2 if self.n else 0.0

    @property
    def mean(self) -> float:
        """The mean log latency, from bucket 0."""
        return self.k / self.n * _LOG_GROWTH


@dataclass(frozen=True, slots=True)
class Block:
    """Both arms in one block that is closed; `start` in Unix seconds."""

    start: float
    candidate: Arm
    baseline: Arm

    @property
    def difference(self) -> float:
        """The candidate's mean log latency less the baseline's; both must have requests."""
        return self.candidate.mean - self.baseline.mean


@dataclass(frozen=True, slots=True)
class Spread:
    """The variance of one request's log latency within blocks, as both arms have shown it so far.

    The baseline's starts from history's `prior` as if that were 200 degrees of freedom; the candidate's from the
    baseline's as 50. Without history the baseline's own first 200 are the prior, and no block counts before.
    """

    prior: float | None = None
    baseline: float = 0.0  # sum of squares
    baseline_df: int = 0
    candidate: float = 0.0
    candidate_df: int = 0

    def take(self, block: Block) -> Spread:
        """Return it with one more block."""
        more = replace(
            self,
            baseline=self.baseline + block.baseline.squares,
            baseline_df=self.baseline_df + max(0, block.baseline.n - 1),
            candidate=self.candidate + block.candidate.squares,
            candidate_df=self.candidate_df + max(0, block.candidate.n - 1),
        )
        if more.prior is None and more.baseline_df >= _PRIOR_BASELINE:
            return replace(more, prior=more.baseline / more.baseline_df)
        return more

    def of(self, block: Block) -> float:
        """Return the sampling variance of a block's difference; there must be a prior, and requests in both arms."""
        prior = self.prior or 0.0
        baseline = (_PRIOR_BASELINE * prior + self.baseline) / (_PRIOR_BASELINE + self.baseline_df)
        candidate = (_PRIOR_CANDIDATE * baseline + self.candidate) / (_PRIOR_CANDIDATE + self.candidate_df)
        # A bucket's width is the least that is known of a time.
        least = _LOG_GROWTH**2 / 12
        return max(least, candidate) / block.candidate.n + max(least, baseline) / block.baseline.n


EMPTY: Final = Spread()


@dataclass(frozen=True, slots=True, eq=False)
class Belief:
    """What is believed of all laws before the candidate is seen: log weights p_j, and which of them are in C.

    A law that is not assumed has no weight: -inf.
    """

    log_weights: Floats
    possible: NDArray[np.bool_]

    @classmethod
    def without_reference(cls, over: Sequence[Law]) -> Belief:
        """Return the laws that are assumed without one, none likelier than another."""
        return cls.of_reference(np.zeros(len(over)), USUAL)

    @classmethod
    def of_reference(cls, level: Floats, assumed: int = ASSUMED) -> Belief:
        """Return what a reference tells by its log likelihoods at theta = 0: `level` of the filter that has seen it.

        Only the first so many laws are assumed at all: those of a half-hour noise take a long reference.
        """
        known = level[:assumed]
        total = log_total(known)
        log_weights, possible = np.full(len(level), -math.inf), np.zeros(len(level), dtype=bool)
        log_weights[: len(known)] = known - total
        possible[: len(known)] = known >= math.log(EXCLUDED) + total - math.log(len(known))
        return cls(log_weights, possible)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Belief) and self.to_plain() == other.to_plain()

    __hash__ = None  # type: ignore[assignment]  # arrays

    def to_plain(self) -> list[list[float]]:
        """Plain lists for JSON: the log weights of the laws that are assumed, and whether each is in C."""
        known = np.isfinite(self.log_weights)
        return [self.log_weights[known].tolist(), self.possible[known].astype(float).tolist()]

    @classmethod
    def from_plain(cls, value: Sequence[Sequence[float]], laws: int) -> Belief:
        """Read what `to_plain` wrote, of so many laws."""
        log_weights, possible = np.full(laws, -math.inf), np.zeros(laws, dtype=bool)
        log_weights[: len(value[0])] = value[0]
        possible[: len(value[1])] = np.array(value[1]) > 0
        return cls(log_weights, possible)


def log_e_slower(seen: Filter, belief: Belief) -> float:
    """Return ln E against theta <= 0 under any law that is possible."""
    return _mixture(seen, belief, WORSE) - float(np.max(seen.best_up_to(0.0)[belief.possible]))


def log_e_within(seen: Filter, belief: Belief, log_margin: float) -> float:
    """Return ln E against theta >= `log_margin`."""
    least = float(np.max(seen.best_from(log_margin)[belief.possible]))
    return _mixture(seen, belief, log_margin - WORSE) - least


def log_outside(seen: Filter, belief: Belief) -> float:
    """Return by how much the likeliest of all laws fits better than the likeliest that is possible, as a log ratio.

    Each law at the effect that suits it best, so a slower candidate as such says nothing; a step does, as noise would.
    """
    best = seen.best_up_to(math.inf)
    return float(np.max(best) - np.max(best[belief.possible]))


def effect(seen: Filter, belief: Belief) -> tuple[float, float]:
    """Return the effect theta and its standard error under the likeliest law; infinite without any block."""
    peak = np.divide(seen.slope**2, 2 * seen.info, out=np.zeros_like(seen.slope), where=seen.info > 0)
    j = int(np.argmax(np.where(belief.possible, belief.log_weights + seen.level + peak, -np.inf)))
    info = float(seen.info[j])
    return (float(seen.slope[j]) / info, 1 / math.sqrt(info)) if info > 0 else (0.0, math.inf)


def _mixture(seen: Filter, belief: Belief, thetas: Floats) -> float:
    logs = belief.log_weights[:, None] + seen.log_likelihood(thetas)
    return log_total(logs) - math.log(len(thetas))
