"""One latency's way through an attempt: what its closed blocks have said, since the start and stage by stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from canary.core import location
from canary.core.bounds import restarted
from canary.core.location import EMPTY, OUTSIDE, Belief, Block, Spread, log_e_slower, log_outside
from canary.core.noise import Filter, all_laws

_DOUBT: Final = 20.0  # requests
_HALF_LIFE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Course:
    """All that is remembered of one latency in one slice: what closed blocks have said, since the start and by stage.

    `most` is the largest noise that is assumed (standard deviation in log units), `belief` what was believed of all
    laws up to it at the start. A block that was taken is final: whatever comes for it later, or again, changes nothing.
    """

    most: float
    belief: Belief
    spread: Spread = EMPTY
    whole: Filter | None = None  # since the start
    present: Filter | None = None  # since the present stage began
    ended: tuple[float, ...] = ()  # ln E of each stage that is over, from its own blocks alone
    taken: tuple[float, int] = (-1.0, -1)  # start and stage of the last block
    counted: float = 0.0  # start of the last block that told a difference
    blocks: int = 0  # that did
    lean: tuple[float, float] = (0.0, 0.0)  # the candidate's requests and its lead in them, decayed to the last block

    @classmethod
    def begin(cls, most: float, belief: Belief | None = None, variance: float | None = None) -> Course:
        """Return one that has seen nothing; a reference gives its belief, and one request's variance within a block."""
        return cls(most, belief or Belief.without_reference(all_laws(most)), Spread(variance))

    def to_plain(self) -> dict[str, Any]:
        """Plain values for JSON."""
        spread = self.spread
        return {
            "most": self.most,
            "belief": self.belief.to_plain(),
            "spread": [spread.prior, spread.baseline, spread.baseline_df, spread.candidate, spread.candidate_df],
            "whole": None if self.whole is None else self.whole.to_plain(),
            "present": None if self.present is None else self.present.to_plain(),
            "ended": list(self.ended),
            "taken": list(self.taken),
            "counted": self.counted,
            "blocks": self.blocks,
            "lean": list(self.lean),
        }

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Course:
        """Read what `to_plain` wrote."""
        return cls(
            value["most"],
            Belief.from_plain(value["belief"], len(all_laws(value["most"]))),
            Spread(*value["spread"]),
            None if value["whole"] is None else Filter.from_plain(value["whole"]),
            None if value["present"] is None else Filter.from_plain(value["present"]),
            tuple(value["ended"]),
            (value["taken"][0], value["taken"][1]),
            value["counted"],
            value["blocks"],
            (value["lean"][0], value["lean"][1]),
        )

    def take(self, blocks: Mapping[tuple[float, int], Block]) -> Course:
        """Return it with the closed blocks that are new, by (start, stage), in their order."""
        course = self
        for key in sorted(key for key in blocks if key > self.taken):
            course = course._with(key, blocks[key])
        return course

    @property
    def shift(self) -> float:
        """How much slower the candidate has been as a whole of late, in log units, at least 0; half-life a minute.

        A machine that is slow for minutes has more requests above any threshold, which is no heavier tail: the tails'
        events are counted beyond this. Twenty requests' worth of doubt keep it small at first.
        """
        requests, lead = self.lean
        return max(0.0, lead / (requests + _DOUBT))

    @property
    def outside(self) -> bool:
        """Whether the blocks speak of noise that is not assumed, or that the reference excludes."""
        return self.whole is not None and log_outside(self.whole, self.belief) >= OUTSIDE

    def log_e(self, planned: int) -> float:
        """Return ln E that the candidate is slower: half since the start, half one restart a planned stage."""
        if self.whole is None:
            return 0.0
        whole = log_e_slower(self.whole, self.belief)
        if planned <= 1:
            return whole
        present = () if self.present is None else (log_e_slower(self.present, self.belief),)
        return restarted(whole, [*self.ended, *present][:planned], planned)

    def log_e_within(self, log_margin: float, *, present: bool = False) -> float:
        """Return ln E that the candidate is not slower by the margin: of all blocks, or of the present stage's."""
        seen = self.present if present else self.whole
        return 0.0 if seen is None else location.log_e_within(seen, self.belief, log_margin)

    @property
    def effect(self) -> float:
        """The effect in log units under the likeliest law; 0 before the first block."""
        return 0.0 if self.whole is None else location.effect(self.whole, self.belief)[0]

    @property
    def noise(self) -> float:
        """The largest standard deviation of the machines' own noise that is possible, in log units."""
        over = all_laws(self.most)
        return max(law.sigma for law, possible in zip(over, self.belief.possible, strict=True) if possible)

    def effect_in(self, stage: int) -> tuple[float, float]:
        """Return the effect of the present stage's blocks alone and its standard error; infinite without any of it."""
        if self.present is None or self.taken[1] != stage:
            return 0.0, math.inf
        return location.effect(self.present, self.belief)

    def _with(self, key: tuple[float, int], block: Block) -> Course:
        began = self._in_stage(key[1])
        after = replace(began, taken=key, spread=began.spread.take(block))
        if began.spread.prior is None or not (block.candidate.n and block.baseline.n):
            return after
        over = all_laws(self.most)
        whole, present = began.whole or Filter.fresh(over), began.present or Filter.fresh(over)
        y, r = block.difference, began.spread.of(block)
        dt = block.start - began.counted if began.blocks else 0.0
        keep = 0.5 ** (dt / _HALF_LIFE_S)
        requests, lead = began.lean
        return replace(
            after,
            whole=whole.step(over, y, r, dt),
            present=present.step(over, y, r, dt),
            counted=block.start,
            blocks=began.blocks + 1,
            lean=(requests * keep + block.candidate.n, lead * keep + block.candidate.n * y),
        )

    def _in_stage(self, stage: int) -> Course:
        """Begin a stage: what the one before has said of itself stands."""
        if stage == self.taken[1] or self.taken[1] < 0:
            return self
        ended = 0.0 if self.present is None else log_e_slower(self.present, self.belief)
        return replace(self, ended=(*self.ended, ended), present=None)
