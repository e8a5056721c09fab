"""The evidence of an attempt as guardrails look at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.stages import Machines, StageEvidence, paced, views_of
from canary.core.tally import Tally


def stage(share: float, number: int = 1, **arms: dict[str, int]) -> StageEvidence:
    """A stage with counts by arm, all of no slice."""
    return StageEvidence(number, share, {(name, ""): Tally(counts) for name, counts in arms.items()})


def seen(evidence: StageEvidence, machines: Machines = Machines()):  # noqa: B008 - frozen
    """One stage as latencies see it."""
    return paced(views_of([evidence], [""]), [evidence], machines)[""][0]


def test_all_traffic_is_the_sum_of_slices_and_a_slice_stands_alone() -> None:
    """The control and the replicas' halves are no slices of an arm."""
    tallies = {
        ("candidate", ""): Tally({"done": 1}),
        ("candidate", "a"): Tally({"done": 2}),
        ("baseline", "a"): Tally({"done": 4}),
        ("control", "a"): Tally({"done": 8}),
        ("even", ""): Tally({"done": 16}),
    }
    views = views_of([StageEvidence(1, 0.5, tallies)], ["", "a", "b"])
    found = [(one.candidate.count("done"), one.baseline.count("done")) for (one,) in views.values()]
    assert found == [(3, 4), (2, 4), (0, 0)]


@given(st.floats(0.001, 0.999))
def test_of_what_candidate_and_control_answer_the_candidates_part_is_what_chance_gives_it(share: float) -> None:
    """A control answers as much as the candidate or all that is left: x of 2 x, or all."""
    view = seen(stage(share, candidate={"done": 9}, baseline={"done": 90}, control={"done": 9}))
    assert view.control
    assert view.share == pytest.approx(max(0.5, share))
    assert view.baseline.count("done") == 9


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_without_chance_a_control_makes_none(share: float) -> None:
    """Before the exposure and after it nothing is random, and no share is divided by nothing."""
    assert not seen(stage(share, candidate={"done": 1}, baseline={"done": 1}, control={"done": 1})).random


def test_a_control_that_has_answered_nothing_is_none() -> None:
    """Until its first answer the whole baseline is what the candidate is compared with."""
    view = seen(stage(0.1, candidate={"done": 9}, baseline={"done": 90}, control={"assigned": 3}))
    assert (view.control, view.share, view.baseline.count("done")) == (False, 0.1, 90)


@pytest.mark.parametrize(
    ("candidate", "baseline", "machines", "load"),
    [
        (1000, 1000, Machines(), 1.0),
        (1000, 9000, Machines(1, 3), pytest.approx(1 / 3)),
        (1000, 1000, Machines(0, 0), 1.0),
        (0, 1000, Machines(), None),
        (1000, 0, Machines(), None),
    ],
)
def test_the_load_is_requests_in_flight_a_replica(candidate: int, baseline: int, machines: Machines, load) -> None:
    """Seconds in hand over replicas; what nobody measured is not known."""
    view = seen(stage(0.5, candidate={"busy_ms": candidate}, baseline={"busy_ms": baseline}), machines)
    assert view.load == load


def test_the_control_carries_the_load_that_counts() -> None:
    """A fresh control with the candidate's part is loaded as it is, whatever the rest of the baseline does."""
    evidence = stage(0.05, candidate={"busy_ms": 50}, baseline={"busy_ms": 9000}, control={"busy_ms": 50, "done": 1})
    assert seen(evidence).load == 1.0
