from dataclasses import replace

import pytest

from canary.core.state import Phase
from canary.traffic import measured
from tests.canary.materials import RELEASE

ACTIVE = replace(RELEASE, phase=Phase.CANARY, shares=(0.0, 10.0), started=1000.0, ended=0.0)


def test_the_rate_is_over_the_whole_course():
    """All stages, arms and slices; a slice's part is of all requests."""
    sums = {"0|baseline|law|assigned": "100", "1|candidate|law|assigned": "20", "1|baseline||assigned": "80"}
    found = measured(ACTIVE, sums, 1100.0)
    assert (found.rps, found.slices) == (2.0, {"law": 0.6})


def test_what_came_after_the_end_is_left_out():
    """Nobody knows how long that went on."""
    ended = replace(RELEASE, shares=(0.0, 50.0, 100.0), started=1000.0, ended=1200.0)
    sums = {"1|baseline||assigned": "400", "2|candidate||assigned": "100000"}
    assert measured(ended, sums, 9999.0).rps == pytest.approx(2)


def test_too_little_tells_nothing():
    """Fewer than a hundred requests, or no time."""
    assert measured(ACTIVE, {"1|baseline||assigned": "99"}, 1100.0) is None
    assert measured(ACTIVE, {"1|baseline||assigned": "500"}, 1000.0) is None
    assert measured(ACTIVE, {}, 1100.0) is None


def test_the_control_is_counted_once():
    """Its requests are the baseline's."""
    sums = {"1|baseline||assigned": "300", "1|candidate||assigned": "100", "1|control||assigned": "100"}
    assert measured(ACTIVE, sums, 1100.0).rps == 4.0
