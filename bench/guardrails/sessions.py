"""Who asks: single requests, or sessions that stick to an arm while the share does, and ask again and again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bench.guardrails.bets import Bools, Floats, Ints
from canary.core.tally import GROUPS

_TIDY = 0.9  # of the sessions are under way
_WORDS = ("failed", "empty", "truncated", "timed")


@dataclass(frozen=True, slots=True)
class Sessions:
    """How sessions ask: `requests` each on average (geometric), `pause` seconds between them on average.

    Every session has a cost and a TTFT level of its own (`_sd` of the log); a part `prone` of them has all errors.
    """

    requests: float = 8.0
    pause: float = 10.0
    cost_sd: float = 0.5
    ttft_sd: float = 0.3
    prone: float = 0.05


@dataclass(frozen=True, slots=True)
class Callers:
    """Requests of one second, by run: their arm, and what is their session's own; `unit` is 0 for one of its own.

    `error` is the rate of errors, `slow` and `dear` levels of log TTFT and cost.
    """

    run: Ints
    arm: Ints
    error: Floats | float
    slow: Floats | float
    dear: Floats | float
    unit: Ints
    pool: Pool | None = None
    sessions: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def once(self, word: str, events: Bools) -> Bools:
        """Return the events that their sessions did not have before."""
        if self.pool is None:
            return events
        had = self.pool.had[word]
        new: Bools = events & ~had[self.sessions]
        had[self.sessions[new]] = True
        return new


def single(run: Ints, arm: Ints, error: float) -> Callers:
    """Return requests that stand for themselves."""
    return Callers(run, arm, error, 0.0, 0.0, np.zeros(len(run), np.int64))


class Pool:
    """The sessions under way in all runs. A session asks at most once a second."""

    def __init__(self, how: Sessions, runs: int, rate: float, error: float, chance: np.random.Generator) -> None:
        self._how, self._runs, self._chance = how, runs, chance
        self._begin = rate / how.requests  # sessions a second
        self._error = error / how.prone
        self._begun = 0
        self._run, self._unit = (np.empty(0, np.int64) for _ in range(2))
        self._left = np.empty(0, np.int64)  # requests to come
        self._point, self._error_of, self._slow, self._dear = (np.empty(0) for _ in range(4))
        self.had = {word: np.empty(0, bool) for word in _WORDS}

    def next(self, share: float, load: float) -> Callers:
        """Return who asks this second, sessions under way and new ones; who lies below the share asks the candidate."""
        chance = self._chance
        self._tidy()
        asks = (chance.random(len(self._run)) < 1 / self._how.pause) & (self._left > 0)
        again, before = np.flatnonzero(asks), len(self._run)
        self._add(np.repeat(np.arange(self._runs), chance.poisson(self._begin * load, self._runs)))
        who = np.concatenate([again, np.arange(before, len(self._run))])
        who = who[np.argsort(self._run[who], kind="stable")]
        self._left[who] -= 1
        return Callers(
            self._run[who],
            (self._point[who] < share).astype(np.int64),
            self._error_of[who],
            self._slow[who],
            self._dear[who],
            self._unit[who],
            self,
            who,
        )

    def _tidy(self) -> None:
        """Forget the sessions that are over, once they are many; callers of before are no longer valid."""
        stay = self._left > 0
        if stay.sum() > _TIDY * len(stay):
            return
        for name in ("_run", "_point", "_unit", "_left", "_error_of", "_slow", "_dear"):
            setattr(self, name, getattr(self, name)[stay])
        self.had = {word: had[stay] for word, had in self.had.items()}

    def _add(self, runs: Ints) -> None:
        chance, how, count = self._chance, self._how, len(runs)
        new = {
            "_run": runs,
            "_point": chance.random(count),
            "_unit": GROUPS * np.arange(self._begun + 1, self._begun + count + 1) + chance.integers(0, GROUPS, count),
            "_left": chance.geometric(1 / how.requests, count),
            "_error_of": np.where(chance.random(count) < how.prone, self._error, 0.0),
            "_slow": how.ttft_sd * chance.standard_normal(count),
            "_dear": how.cost_sd * chance.standard_normal(count),
        }
        self._begun += count
        for name, values in new.items():
            setattr(self, name, np.concatenate([getattr(self, name), values]))
        self.had = {word: np.concatenate([had, np.zeros(count, bool)]) for word, had in self.had.items()}
