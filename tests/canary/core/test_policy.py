"""What guardrails are held to: impossible margins are refused, weights are parts of one whole."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.finding import OnBreach
from canary.core.policy import Guard, GuardError, Policy
from canary.core.signals import SIGNALS

MARGINS = {"rate": 0.05, "difference": -0.1, "ratio": 1.2, "limit": 0.05, "seconds": 1.0}


def guard(name: str, **more) -> Guard:
    """A guard with a margin that can be; advice warns."""
    warns = {} if SIGNALS[name].weight or "weight" in more else {"on_breach": OnBreach.WARN}
    return Guard(name, MARGINS[SIGNALS[name].unit], **(warns | more))


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("error_rate", {"weight": 0.0}, "weight"),
        ("error_rate", {"weight": -1.0}, "weight"),
        ("error_rate", {"weight": math.nan}, "weight"),
        ("error_rate", {"weight": math.inf}, "weight"),
        ("e2e_p95", {"on_breach": OnBreach.ROLLBACK}, "advice"),
    ],
)
def test_an_impossible_guard_is_refused_in_one_line(name: str, more, words: str) -> None:
    """A weight that is none, and advice that would roll back."""
    with pytest.raises(GuardError, match=words) as caught:
        guard(name, **more)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "margin"), [("error_rate_limit", 1.0), ("error_rate_limit", 0.0), ("ttft_p95_limit", 0.0)]
)
def test_an_impossible_limit_is_refused(name: str, margin: float) -> None:
    """A rate of all, or no seconds at all."""
    with pytest.raises(GuardError):
        Guard(name, margin)


@pytest.mark.parametrize(
    "change",
    [
        {"noise": {"ttft": 0.1}},
        {"noise": {"ttft": 0.1, "tpot": math.nan}},
        {"noise": {"ttft": -0.1, "tpot": 0.1}},
        {"noise": {"ttft": 0.1, "tpot": 0.1, "e2e": 0.1}},
        {"max_load_ratio": 0.9},
        {"max_load_ratio": math.nan},
    ],
)
def test_an_impossible_assumption_is_refused(change) -> None:
    """Noise is one number for each latency, a load ratio one from 1 on."""
    with pytest.raises(GuardError):
        Policy((guard("error_rate"),), **change)


@given(
    names=st.lists(st.sampled_from(sorted(SIGNALS)), unique=True, min_size=1),
    weights=st.lists(st.none() | st.floats(0.001, 1000), min_size=len(SIGNALS), max_size=len(SIGNALS)),
    slices=st.integers(1, 4),
)
def test_weights_sum_to_one_and_slices_share(names: list[str], weights: list[float | None], slices: int) -> None:
    """Whatever is chosen and however it is weighed; advice alone has none and stands beside the family."""
    some = tuple(f"s{number}" for number in range(slices))
    policy = Policy(
        tuple(
            guard(name, slices=some) if weight is None else guard(name, slices=some, weight=weight)
            for name, weight in zip(names, weights, strict=False)
        )
    )
    found = policy.weights()
    total = math.fsum(found.values())
    only_advice = all(not one.share for one in policy.guards)
    assert total == pytest.approx(0.0 if only_advice else 1.0)
    for one in policy.guards:
        assert len({found[key] for key in one.keys}) == 1


def test_a_heavier_guardrail_fails_sooner_and_advice_by_the_familys_bar() -> None:
    """The threshold is ln 1/(alpha_E w); what stands beside the family has one of its own."""
    policy = Policy((guard("error_rate", weight=3.0), guard("empty", weight=1.0), guard("e2e_p95")), alpha=0.01)
    weights = policy.weights()
    assert (weights["error_rate", ""], weights["e2e_p95", ""]) == (0.75, 0.0)
    assert policy.threshold(0.75) == pytest.approx(math.log(1 / (0.01 * 0.85 * 0.75)))
    assert policy.threshold(0.0) == policy.log_bar == pytest.approx(math.log(1 / (0.01 * 0.85)))


def test_advice_with_a_weight_is_of_the_family() -> None:
    """Whoever weighs it lets it roll back."""
    assert Policy((guard("e2e_p95", weight=0.1),)).weights() == {("e2e_p95", ""): 1.0}
