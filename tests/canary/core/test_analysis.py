"""What is remembered between looks."""

from __future__ import annotations

import pytest

from canary.core.analysis import Analysis, closed, follow, shift_of
from canary.core.course import Course
from canary.core.location import Arm, Block
from canary.core.policy import Guard, Policy
from canary.core.signals import Lag, StageView
from canary.core.stages import Machines
from canary.core.tally import Tally
from tests.canary.core.test_course import START, blocks_of
from tests.canary.core.test_reference import QUIET

LAG = Lag("ttft", 10.0, 0.5)
NOTHING = Course.begin(0.1).taken
BLOCKS = Tally({f"ttft@{number}.{word}": n for number in (100, 101) for word, n in (("n", 2), ("k", 6), ("kk", 20))})


@pytest.mark.parametrize(
    ("now", "starts"), [(1000.0, []), (1020.0, [1000.0]), (1029.9, [1000.0]), (1030.0, [1000.0, 1010.0])]
)
def test_a_block_closes_once_its_reports_have_had_their_time(now: float, starts: list[float]) -> None:
    """Ten seconds long, ten seconds' grace; an arm without requests in it is empty."""
    found = closed([StageView(1, 0.5, BLOCKS, Tally())], LAG, now, NOTHING)
    assert [start for start, _ in found] == starts
    assert all(block == Block(start, Arm(2, 6, 20), Arm()) for (start, _), block in found.items())


def test_a_block_that_was_taken_is_not_built_again() -> None:
    """Nor any that lies before it."""
    found = closed([StageView(1, 0.5, BLOCKS, Tally())], LAG, 1e9, (1000.0, 1))
    assert list(found) == [(1010.0, 1)]


def test_where_chance_divides_nothing_no_block_is_compared() -> None:
    """Before the exposure and after it."""
    assert closed([StageView(0, 0.0, BLOCKS, BLOCKS), StageView(1, 1.0, BLOCKS, BLOCKS)], LAG, 1e9, NOTHING) == {}


def test_what_a_reference_tells_before_the_first_block_is_believed() -> None:
    """A control that came with the release has spoken in its shadow; nobody looks at the candidate's blocks before."""
    policy = Policy((Guard("ttft_p95", 1.1),))
    shadow = {"": [StageView(0, 0.0, BLOCKS, BLOCKS)]}
    before = follow(Analysis.initial(), policy, shadow, Machines(4, 4), 2000.0)
    exposed = {"": [*shadow[""], StageView(1, 0.5, BLOCKS, BLOCKS)]}
    after = follow(Analysis(courses=before), policy, exposed, Machines(1, 1, {"ttft": QUIET}), 3000.0)
    assert before["ttft", ""].belief != QUIET.belief
    assert after["ttft", ""].belief == QUIET.belief
    assert after["ttft", ""].most == pytest.approx(START.most)


def test_a_reference_is_believed_from_the_first_block_on() -> None:
    """What it tells later changes nothing in a course that has begun."""
    policy = Policy((Guard("ttft_p95", 1.1), Guard("ttft_p99", 1.1)))
    views = {"": [StageView(1, 0.5, BLOCKS, BLOCKS)]}
    began = follow(Analysis.initial(), policy, views, Machines(1, 1, {"ttft": QUIET}), 2000.0)
    later = follow(Analysis(courses=began), policy, views, Machines(4, 4), 3000.0)
    assert set(began) == {("ttft", "")}
    assert began["ttft", ""].belief == later["ttft", ""].belief == QUIET.belief
    assert began["ttft", ""].most == later["ttft", ""].most
    without = follow(Analysis.initial(), policy, views, Machines(4, 4), 2000.0)["ttft", ""]
    assert without.belief != QUIET.belief
    assert without.most == pytest.approx(START.most / 2)


def test_while_blocks_are_open_nothing_is_known_of_the_whole() -> None:
    """Workers that count no blocks leave none to wait for."""
    assert shift_of(START, [StageView(1, 0.5, BLOCKS, BLOCKS)], LAG) is None
    assert shift_of(START, [StageView(1, 0.5, Tally(), Tally())], LAG) == 0
    assert shift_of(None, [StageView(1, 0.5, Tally(), Tally())], None) == 0


def test_a_slower_whole_is_a_shift_in_buckets_and_a_faster_one_none() -> None:
    """Rounded up, so that never more is left unexplained."""
    slow, fast = (START.take(blocks_of(40, shift, 5)) for shift in (0.3, -0.3))
    assert shift_of(slow, [], LAG) == pytest.approx(0.3 / 0.0198, abs=2)
    assert shift_of(fast, [], LAG) == 0


def test_an_analysis_nobody_has_made_is_empty_and_survives_json() -> None:
    """The memory of an attempt before its first look."""
    assert Analysis.from_json(Analysis.initial().to_json()) == Analysis.initial()
    some = Analysis(courses={("ttft", "a"): Course.begin(0.2, QUIET.belief, QUIET.variance).take(blocks_of(9, 0.1, 2))})
    assert Analysis.from_json(some.to_json()) == some
