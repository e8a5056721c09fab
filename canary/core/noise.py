"""Laws of a machine's own slow noise, and a Kalman filter for each: what it would have made of the differences seen.

A law (sigma, tau) says that a difference y between two machines is theta + x + e: theta is what is looked for, x a
stationary Ornstein-Uhlenbeck process with standard deviation sigma and correlation time tau (seconds), e ~ N(0, r)
with a known variance r. Given the differences so far, the log likelihood of theta is a parabola.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PARTS: Final = (0.25, 0.5, 0.75, 1.0)  # of the largest sigma that is assumed
TAUS: Final = (20.0, 60.0, 180.0, 600.0)  # seconds
LONG_TAU: Final = 1800.0  # only a long reference can speak of it
OUTSIDE_PARTS: Final = (1.5, 2.0, 3.0)  # noise that is not assumed, to be named when it is seen
OUTSIDE_TAUS: Final = (60.0, 180.0, 600.0, 1800.0)


@dataclass(frozen=True, slots=True)
class Law:
    """One law of a machine's own noise, in log units: standard deviation, correlation time in seconds."""

    sigma: float
    tau: float


def laws(most: float, *, long: bool = False) -> tuple[Law, ...]:
    """Return the set of hypotheses: no noise, or parts of `most` with each correlation time."""
    taus = (*TAUS, LONG_TAU) if long else TAUS
    return (Law(0.0, TAUS[0]), *(Law(part * most, tau) for part in PARTS for tau in taus))


@lru_cache(maxsize=64)
def all_laws(most: float) -> tuple[Law, ...]:
    """Return the set of hypotheses with the long ones, and behind them those that are beyond the assumptions."""
    beyond = (Law(part * most, tau) for part in OUTSIDE_PARTS for tau in OUTSIDE_TAUS)
    usual = laws(most)
    return (*usual, *(law for law in laws(most, long=True) if law.tau == LONG_TAU), *beyond)


USUAL: Final = len(laws(1.0))  # how many of all laws are assumed without a long reference
ASSUMED: Final = len(laws(1.0, long=True))  # with one


def most_noise(spread: float, candidates: int, baselines: int) -> float:
    """Return the largest sigma of the difference: `spread` of one replica, averaged over each arm's replicas."""
    return spread * math.sqrt(1 / max(1, candidates) + 1 / max(1, baselines))


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """A Kalman filter for each law: the noise's mean `m` and variance `p` now, and `d`, how the mean moves with theta.

    The log likelihood of theta so far is `level` + theta `slope` - theta^2 `info`/2, arrays over the laws.
    """

    m: Floats
    p: Floats
    d: Floats
    slope: Floats
    info: Floats
    level: Floats

    @classmethod
    def fresh(cls, over: Sequence[Law]) -> Filter:
        """Return the filters before any block."""
        zero = np.zeros(len(over))
        return cls(zero, np.array([law.sigma**2 for law in over]), zero, zero, zero, zero)

    def step(self, over: Sequence[Law], y: float, r: float, dt: float) -> Filter:
        """Return them one block later: difference `y` with sampling variance `r`, `dt` seconds after the last one."""
        variance = np.array([law.sigma**2 for law in over])
        a = np.array([math.exp(-dt / law.tau) for law in over])
        m, d = a * self.m, a * self.d
        p = a * a * self.p + variance * (1 - a * a)
        f = p + r
        e, g, gain = y - m, 1 - d, p / f
        return Filter(
            m + gain * e,
            (1 - gain) * p,
            d + gain * g,
            self.slope + g * e / f,
            self.info + g * g / f,
            self.level - (np.log(f) + e * e / f) / 2,
        )

    def log_likelihood(self, theta: float | Floats) -> Floats:
        """Return ln L_j(theta), one row a law."""
        thetas = np.atleast_1d(np.asarray(theta, dtype=float))
        return self.level[:, None] + np.outer(self.slope, thetas) - np.outer(self.info, thetas * thetas) / 2

    def best_up_to(self, most: float) -> Floats:
        """Return the largest ln L_j(theta) over theta <= `most`, for each law."""
        theta = np.minimum(most, self._peak())
        return self.level + theta * self.slope - theta * theta * self.info / 2

    def best_from(self, least: float) -> Floats:
        """Return the largest ln L_j(theta) over theta >= `least`, for each law."""
        theta = np.maximum(least, self._peak())
        return self.level + theta * self.slope - theta * theta * self.info / 2

    def _peak(self) -> Floats:
        return np.divide(self.slope, self.info, out=np.zeros_like(self.slope), where=self.info > 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.to_plain() == other.to_plain()

    __hash__ = None  # type: ignore[assignment]  # arrays

    def to_plain(self) -> list[list[float]]:
        """Plain lists for JSON."""
        return [[float(value) for value in row] for row in self._rows()]

    @classmethod
    def from_plain(cls, rows: Sequence[Sequence[float]]) -> Filter:
        """Read what `to_plain` wrote."""
        return cls(*(np.array(row, dtype=float) for row in rows))

    def _rows(self) -> tuple[Floats, ...]:
        return self.m, self.p, self.d, self.slope, self.info, self.level
