"""What comparing the baseline with itself has told of its machines: which slow noise is likely, which is not.

Two sets of replicas that serve the same model are compared block by block, as candidate and baseline are later on: the
halves of a baseline with several replicas, or a control and the rest. All that lies between them is noise of machines.
The last 24 hours count, in segments of six hours; each is a Kalman filter for each law (noise.py) at theta = 0, begun
afresh, and their log likelihoods add up.

A candidate's machine is taken for one of the same kind. That is an assumption, and the one that makes a reference worth
ten to forty times the traffic: without it, the whole set of laws has to be held against every difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from canary.core.location import EMPTY, OUTSIDE, Belief, Block, Spread
from canary.core.noise import ASSUMED, USUAL, Filter, Floats, Law, all_laws, most_noise
from canary.core.tally import BLOCK_S

KEPT_S: Final = 24 * 3600.0
SEGMENT_S: Final = 6 * 3600.0
LONG_S: Final = 5.9 * 3600.0  # of blocks, six hours less what was lost: from here on it speaks of half an hour too
LEAST_S: Final = 600.0  # below, it is not spoken of


@dataclass(frozen=True, slots=True)
class Segment:
    """Up to six hours: when it began and when its last block did (Unix seconds), how many blocks, the filters."""

    began: float
    last: float
    blocks: int
    seen: Filter


@dataclass(frozen=True, slots=True)
class Reference:
    """One latency's. `most` is the largest noise of the difference that is assumed, in log units; oldest first."""

    most: float
    spread: Spread = EMPTY
    segments: tuple[Segment, ...] = ()
    taken: float = -1.0  # start of the last block that was looked at

    @classmethod
    def of_replicas(cls, noise: float, even: int, odd: int) -> Reference:
        """Return an empty one of so many replicas on either side, `noise` being the most of one of them."""
        return cls(most_noise(noise, even, odd))

    def take(self, blocks: Mapping[float, Block]) -> Reference:
        """Return it with the closed blocks that are new, by start; what is older than a day is dropped."""
        found = self
        for start in sorted(start for start in blocks if start > self.taken):
            found = found._with(blocks[start])
        return found

    def at(self, now: float) -> Reference:
        """Return what still counts `now` (Unix seconds)."""
        return replace(self, segments=tuple(one for one in self.segments if one.last > now - KEPT_S))

    @property
    def seconds(self) -> float:
        """How long it has compared, in seconds of blocks in which both sides had requests."""
        return BLOCK_S * sum(one.blocks for one in self.segments)

    @property
    def last(self) -> float:
        """When the last block began, in Unix seconds; -inf without any."""
        return max((one.last for one in self.segments), default=-math.inf)

    @property
    def variance(self) -> float | None:
        """One request's variance within a block, log units squared; None before there are enough."""
        spread = self.spread
        return spread.baseline / spread.baseline_df if self.segments and spread.baseline_df else None

    @property
    def level(self) -> Floats:
        """The log likelihood of each law at theta = 0."""
        return sum((one.seen.level for one in self.segments), np.zeros(len(all_laws(self.most))))

    @property
    def belief(self) -> Belief | None:
        """What it tells of all laws up to `most`; None if it tells nothing yet."""
        if self.seconds < LEAST_S:
            return None
        return Belief.of_reference(self.level, ASSUMED if self.seconds >= LONG_S else USUAL)

    @property
    def likeliest(self) -> Law:
        """The law that fits best among those that are assumed, sigma of the difference; no noise without any block."""
        over = all_laws(self.most)
        return over[int(np.argmax(self.level[:ASSUMED]))] if self.segments else over[0]

    @property
    def largest(self) -> Law:
        """The noisiest law that it does not exclude."""
        over, belief = all_laws(self.most), self.belief
        if belief is None:
            return over[USUAL - 1]
        return max((law for law, may in zip(over, belief.possible, strict=True) if may), key=lambda law: law.sigma)

    @property
    def outside(self) -> bool:
        """Whether its machines are noisier, or for longer, than is assumed of any."""
        if self.belief is None:
            return False
        return bool(np.max(self.level) - np.max(self.level[self.belief.possible]) >= OUTSIDE)

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        spread = self.spread
        return {
            "most": self.most,
            "spread": [spread.prior, spread.baseline, spread.baseline_df, spread.candidate, spread.candidate_df],
            "segments": [[one.began, one.last, one.blocks, one.seen.to_plain()] for one in self.segments],
            "taken": self.taken,
        }

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Reference:
        """Read what `to_plain` wrote."""
        segments = (
            Segment(began, last, blocks, Filter.from_plain(rows)) for began, last, blocks, rows in value["segments"]
        )
        return cls(value["most"], Spread(*value["spread"]), tuple(segments), value["taken"])

    def _with(self, block: Block) -> Reference:
        after = replace(self, taken=block.start, spread=self.spread.take(block))
        if self.spread.prior is None or not (block.candidate.n and block.baseline.n):
            return after
        over = all_laws(self.most)
        kept = [one for one in self.segments if one.last > block.start - KEPT_S]
        if not kept or block.start - kept[-1].began >= SEGMENT_S:
            kept.append(Segment(block.start, block.start, 0, Filter.fresh(over)))
        now = kept[-1]
        seen = now.seen.step(over, block.difference, self.spread.of(block), block.start - now.last)
        kept[-1] = Segment(now.began, block.start, now.blocks + 1, seen)
        return replace(after, segments=tuple(kept))


def better(references: Sequence[Reference | None]) -> Reference | None:
    """Return the one that has compared for longest, None without any that tells something."""
    telling = [one for one in references if one is not None and one.belief is not None]
    return max(telling, key=lambda one: one.seconds, default=None)
