"""The controller's clock: the wall's, measured against a steady one, so that no jump is acted on unknown."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from canary.core.events import Cause, ClockJumped
from canary.core.state import Release

TOLERANCE_S: Final = 2.0  # what the wall clock may gain or lose on the steady one unnoticed
Reading: TypeAlias = Callable[[], float]


@dataclass(slots=True)
class _Watched:
    """An attempt: what the wall clock was ahead of the steady one when it came into sight, and when it was in order."""

    attempt: tuple[str, int]
    ahead: float
    seen: float


class Clock:
    """Unix seconds that go on steadily: the wall clock is followed only where `jumped` reads it.

    Both clocks give seconds. The steady one never jumps, and means nothing in another process: what happened before an
    attempt came into sight, or after it was lost from it, is not measured.
    """

    def __init__(self, wall: Reading = time.time, steady: Reading = time.monotonic) -> None:
        self._wall, self._steady = wall, steady
        self._ahead = self._least = wall() - steady()
        self._watched: dict[str, _Watched] = {}

    def __call__(self) -> float:
        """Return Unix seconds; between two looks no jump shows."""
        return self._ahead + self._steady()

    def earliest(self) -> float:
        """Return Unix seconds by the slowest of the wall clock's settings so far: what is old by it is old."""
        return self._least + self._steady()

    def jumped(self, release: Release, actor: str) -> ClockJumped | None:
        """Read the wall clock; return by what it jumped since an active attempt was in order, None for nothing.

        What has been told to the release counts no more, so a jump whose telling failed is found again.
        """
        self._read()
        if not release.active:
            return None
        attempt, known = (release.release, release.attempt), self._watched.get(release.model)
        if known is None or known.attempt != attempt:
            known = _Watched(attempt, self._ahead - release.jumped, 0.0)
            self._watched[release.model] = known
        by = self._ahead - known.ahead - release.jumped
        if abs(by) > TOLERANCE_S:
            why = f"the {actor}'s clock jumped by {by:+,.0f} s; the release's times were shifted with it"
            return ClockJumped(Cause(actor, why, self()), by, known.seen + self._ahead)
        known.seen = self._steady()
        return None

    def lose_sight(self) -> None:
        """Forget every attempt: another controller leads, and times are what its clock says."""
        self._watched.clear()

    def _read(self) -> None:
        """Read both clocks at one moment; a process that was stopped between them reads at its next look."""
        before, wall, after = self._steady(), self._wall(), self._steady()
        if after - before < TOLERANCE_S / 2:
            self._ahead = wall - after
            self._least = min(self._least, self._ahead)
