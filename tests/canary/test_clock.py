"""The controller's clock tells a jump from time that passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from canary.clock import TOLERANCE_S, Clock
from canary.core.release import Release, advance
from canary.core.state import Phase
from tests.canary.core.releases import opened

HOUR = 3600.0


class Times:
    """A wall clock and a steady one; `gap` seconds pass between reading the one and the other."""

    def __init__(self) -> None:
        self.wall, self.steady, self.gap = 1.8e9, 500.0, 0.0
        self.clock = Clock(self._wall, lambda: self.steady)

    def _wall(self) -> float:
        self.pass_(self.gap)
        return self.wall

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def times() -> Times:
    """Clocks of which an active release is in sight."""
    times = Times()
    assert times.clock.jumped(opened(), "controller") is None
    return times


@pytest.mark.parametrize("by", [HOUR, -HOUR, 3.0, -3.0])
def test_a_jump_is_told_once_with_what_may_have_been_written_since(times: Times, by: float) -> None:
    """Between the look before it and this one; a release that has heard of it hears no more."""
    times.pass_(10)
    times.clock.jumped(opened(), "controller")
    times.pass_(1)
    times.wall += by
    jump = times.clock.jumped(opened(), "controller")
    assert jump is not None
    assert (round(jump.by, 3), round(jump.since, 3)) == (by, 1.8e9 + 10 + by)
    assert (
        jump.cause.reason == f"the controller's clock jumped by {by:+,.0f} s; the release's times were shifted with it"
    )
    after = advance(opened(), jump)[0]
    times.pass_(5)
    assert times.clock.jumped(after, "controller") is None


def test_a_jump_whose_telling_failed_is_found_again_and_with_it_the_next(times: Times) -> None:
    """The store may be gone in between; or it had the answer that was lost, and then nothing is told twice."""
    times.wall += HOUR
    first = times.clock.jumped(opened(), "controller")
    times.pass_(30)
    times.wall += 60
    again = times.clock.jumped(opened(), "controller")
    assert first is not None
    assert again is not None
    assert (round(again.by), round(again.since)) == (HOUR + 60, 1.8e9 + HOUR + 60)
    rest = times.clock.jumped(advance(opened(), first)[0], "controller")
    assert rest is not None
    assert round(rest.by) == 60


def test_time_that_passes_is_no_jump_and_small_ones_add_up(times: Times) -> None:
    """A day between two looks is a day; a second here and there is no matter until it is over the tolerance."""
    times.pass_(86_400)
    assert times.clock.jumped(opened(), "controller") is None
    for seconds in (0.9, 0.9):
        times.wall += seconds
        assert times.clock.jumped(opened(), "controller") is None
    times.wall += 0.9
    jump = times.clock.jumped(opened(), "controller")
    assert jump is not None
    assert round(jump.by, 3) == 2.7 > TOLERANCE_S


def other(release: Release) -> Release:
    """The next attempt."""
    return replace(release, attempt=2)


@pytest.mark.parametrize("change", [other, None], ids=["another attempt", "out of sight"])
def test_what_comes_into_sight_is_not_measured_by_what_was_before(
    times: Times, change: Callable[[Release], Release] | None
) -> None:
    """An attempt that is new, or that another controller has led, is taken as it is."""
    times.wall += HOUR
    release = opened()
    if change is None:
        times.clock.lose_sight()
    else:
        release = change(release)
    assert times.clock.jumped(release, "controller") is None
    times.wall += HOUR
    jump = times.clock.jumped(release, "controller")
    assert jump is not None
    assert round(jump.by) == HOUR


def test_who_takes_over_counts_from_what_the_release_has_heard() -> None:
    """By the leader before it."""
    times, release = Times(), replace(opened(), jumped=HOUR)
    assert times.clock.jumped(release, "controller") is None
    times.wall -= HOUR
    jump = times.clock.jumped(release, "controller")
    assert jump is not None
    assert round(jump.by) == -HOUR


def test_an_ended_attempt_hears_of_no_jump_but_the_clock_is_followed(times: Times) -> None:
    """Its entries in the audit are by the wall clock again."""
    times.wall += HOUR
    assert times.clock() == pytest.approx(1.8e9, abs=1e-3)
    assert times.clock.jumped(replace(opened(), phase=Phase.ABORTED), "controller") is None
    assert times.clock() == pytest.approx(1.8e9 + HOUR, abs=1e-3)


def test_a_process_that_stands_still_between_both_clocks_measures_nothing(times: Times) -> None:
    """Time passed there, which was no jump."""
    times.gap = 5.0
    assert times.clock.jumped(opened(), "controller") is None
    times.gap = 0.0
    assert times.clock.jumped(opened(), "controller") is None


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_who_is_long_gone_is_so_by_the_slowest_setting(times: Times, by: float) -> None:
    """A jump makes nobody old."""
    times.wall += by
    times.clock.jumped(opened(), "controller")
    assert times.clock.earliest() == pytest.approx(1.8e9 + min(by, 0.0), abs=1e-3)
