"""What each part of a spec alone cannot know, and what its limits become."""

from __future__ import annotations

from datetime import datetime

import pytest

from canary.card.spec import SpecError, parse
from canary.core.plan import AtEnd, Limits, Step
from tests.canary.specs import SPEC, changed

STEP = "{percent: 5, min_duration: 2s, min_samples: 20}"


def step(more: str) -> str:
    """The spec with something more on its first step."""
    return changed(STEP, f"{STEP[:-1]}, {more}}}")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (step("max_duration: 2s"), "r.yaml:19: 2 s at most, and 2 s at least; raise max_duration"),
        (step("max_duration: 5s, ramp: 5s"), "r.yaml:19: 5 s at most, and 5 s at least; raise max_duration"),
        (changed("bake: {duration: 2s}", "bake: {duration: 1h, max_duration: 10m}"), "r.yaml:21: 600 s at most"),
        (changed("min_pairs: 30", "min_pairs: 30, min_duration: 9s, max_duration: 8s"), "r.yaml:17: 8 s at most"),
        (step("on_timeout: abort"), "r.yaml:19: the step has no time; add max_duration to it"),
        (SPEC + "on_inconclusive: rollback\n", "no place has a time; add max_duration to a step"),
        (SPEC + "on_timeout: rollback\n", "nothing has a time; add max_duration"),
        (SPEC + "on_timeout: explode\n", "on_timeout: Input should be 'hold', 'rollback' or 'abort'"),
        (step("max_duration: 0s"), "steps.0.max_duration: Input should be greater than 0"),
        (
            changed("domain_accuracy: {min", "latency: {min"),
            "r.yaml:10: nothing measures latency; write one of domain_accuracy",
        ),
        (SPEC + "preflight: {max_rollback: 0s}\n", "preflight.max_rollback: Input should be greater than 0"),
    ],
)
def test_a_contradiction_is_told_with_its_line_and_mend(text: str, line: str) -> None:
    """Where time and success do not go together."""
    with pytest.raises(SpecError) as caught:
        parse(text, "r.yaml")
    assert any(line in one for one in caught.value.lines), caught.value.lines


def test_limits_ramps_and_preflight_reach_the_plan() -> None:
    """Durations are seconds; what is not said holds, and for ever."""
    text = step("max_duration: 10m, on_inconclusive: rollback, ramp: 2m") + "max_duration: 7d\non_timeout: abort\n"
    text += "preflight: {max_rollback: 800ms, known_capacity: true}\n"
    spec = parse(text)
    assert spec.plan().steps[0] == Step(5, 2, 20, max_duration=600, on_inconclusive=AtEnd.ROLLBACK, ramp=120)
    assert spec.plan().limits == Limits(604_800, AtEnd.ABORT, AtEnd.HOLD)
    assert (spec.plan().max_rollback, spec.plan().known_capacity) == (0.8, True)
    assert spec.policy().stages == 12
    plain = parse(SPEC)
    assert (plain.plan().limits, plain.plan().max_rollback, plain.policy().stages) == (Limits(), 5.0, 3)


def test_a_control_that_is_there_for_the_release_alone_has_its_price() -> None:
    """Else its machines are paid for anyhow."""
    line = "  candidate: {engine: new, served_model: new, usd_per_hour: 0.2}\n"
    text = changed(line, line + "  control: {engine: spare, usd_per_hour: 0.1}\n")
    assert parse(text).plan().money.per_hour == pytest.approx(0.3)
    assert parse(SPEC).plan().money.per_hour == 0.2


@pytest.mark.parametrize(
    ("moment", "open_"),
    [("2026-12-24T03:59:59-05:00", False), ("2026-12-24T04:00:00-05:00", True), ("2026-12-26T23:30:00Z", False)],
)
def test_a_freeze_window_is_the_same_moment_in_every_time_zone(moment: str, open_: bool) -> None:
    """It is written in the office's zone, read in the machine's; one without a zone is refused."""
    window = "freeze:\n  - {from: 2026-12-24T10:00:00+01:00, to: 2026-12-27T00:00:00+01:00, reason: holidays}\n"
    assert bool(parse(SPEC + window).frozen_at(datetime.fromisoformat(moment).timestamp())) == open_
    with pytest.raises(SpecError, match="timezone"):
        parse(SPEC + window.replace("+01:00", ""))
