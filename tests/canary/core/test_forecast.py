"""The forecast against seeded traffic through the very tests: within a factor of 1.5 of the median of the runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core import bounds
from canary.core.bounds import Events, Sums
from canary.core.forecast import (
    Baseline,
    Case,
    Stretch,
    Traffic,
    _course,
    cases,
    effect_of,
    own_noise_seconds,
    until_fail,
    until_located,
    until_located_in_noise,
    until_pass,
)
from canary.core.location import Belief, log_e_slower
from canary.core.noise import Filter, Law, laws
from canary.core.policy import Guard, Policy
from canary.core.tails import margin_ratio

RPS, LIMIT = 20.0, 5000.0
BASE = Baseline()


def case(name: str, margin: float, *, min_samples: int = 1, rps: float = RPS, reference: float = 0.0) -> Case:
    """One guardrail alone, on all traffic."""
    policy = Policy((Guard(name, margin),), min_samples=min_samples, stages=3)
    return cases(policy, Traffic(rps, {}, reference=reference), BASE)[0]


def first(evidence: Callable[[int], float], needed: float, most: int) -> float:
    """Return the first of 1..most at which the evidence is enough, infinity if none is."""
    return next((n for n in range(1, most) if evidence(n) >= needed), math.inf)


def median(run: Callable[[np.random.Generator], float], runs: int = 150) -> float:
    """Return the median of seeded runs."""
    return float(np.median([run(np.random.default_rng(seed)) for seed in range(runs)]))


def stop(test: Callable[[list[Events]], float], needed: float, each: float, *, share, rates, chance) -> float:
    """Look after every `each` requests; return how many requests it took. `rates` of events: candidate, baseline."""
    drawn = chance.poisson(each, 500)
    mine = chance.binomial(drawn, share)
    events = chance.binomial(mine, rates[0]), chance.binomial(drawn - mine, rates[1])
    n, k_c, k_b = (np.cumsum(counts) for counts in (drawn, *events))
    return each * first(lambda i: test([Events(share, int(k_c[i]), int(k_b[i]), int(n[i]))]), needed, 500)


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("margin", [0.005, 0.02, 0.08])
def test_a_rate_passes_when_it_was_said_to(share: float, margin: float):
    """An equal candidate's errors, within a difference of rates."""
    one = case("error_rate", margin)
    said = RPS * (until_pass(one, (), Stretch(share, 0, 0), LIMIT) or math.nan)
    test = partial(bounds.log_e_within, margin=margin)
    run = partial(stop, test, one.policy.log_pass, said / 25, share=share, rates=(0.005, 0.005))
    took = median(lambda chance: run(chance=chance))
    assert 1 / 1.5 < took / said < 1.5


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("margin", [0.005, 0.02, 0.08])
def test_a_rate_fails_when_it_was_said_to(share: float, margin: float):
    """Errors of a candidate that is worse by twice the margin, restarts and all."""
    one = case("error_rate", margin)
    said = RPS * (until_fail(one, Stretch(share, 0, 0), LIMIT) or math.nan)
    more = partial(bounds.with_restarts, bounds.log_e_more, planned=3)
    worse = 0.005 + 2 * margin
    run = partial(stop, more, one.threshold, said / 25, share=share, rates=(worse, 0.005))
    took = median(lambda chance: run(chance=chance))
    assert 1 / 1.5 < took / said < 1.5


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize(
    ("verdict", "name", "margin", "sd"),
    [
        ("pass", "ttft_p95", 1.1, 0.5),
        ("pass", "tpot_p95", 1.5, 0.2),
        ("pass", "ttft_p99", 1.25, 0.5),
        ("fail", "ttft_p99", 1.25, 0.5),
    ],
)
def test_a_quantile_answers_when_it_was_said_to(share: float, verdict: str, name: str, margin: float, sd: float):
    """Lognormal latencies against the baseline's own quantile."""
    one = case(name, margin)
    q = one.signal.tail.q
    slower = 1.0 if verdict == "pass" else one.effect
    normal = 1 - 0.5 * math.erfc((math.log(margin_ratio(margin) / slower) / sd + _z(q)) / math.sqrt(2))
    if verdict == "pass":
        said, test, needed = until_pass(one, (), Stretch(share, 0, 0), LIMIT), bounds.log_e_fewer, one.policy.log_pass
    else:
        said = until_fail(one, Stretch(share, 0, 0), LIMIT)
        test = partial(bounds.with_restarts, bounds.log_e_more, planned=3)
        needed = one.threshold
    requests = RPS * (said or math.nan)
    run = partial(stop, test, needed, requests / 25, share=share, rates=(1 - normal, 1 - q))
    took = median(lambda chance: run(chance=chance))
    assert 1 / 1.5 < took / requests < 1.5


def _z(q: float) -> float:
    return {0.95: 1.6449, 0.99: 2.3263}[q]


def running(values: np.ndarray) -> np.ndarray:
    """Sums over the first n."""
    return np.concatenate([[0.0], np.cumsum(values)])


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("verdict", ["pass", "fail"])
@pytest.mark.parametrize("margin", [1.05, 1.2])
def test_a_cost_answers_when_it_was_said_to(share: float, verdict: str, margin: float):
    """Gamma-distributed costs with a relative standard deviation of 0.5."""
    one = case("cost_per_request", margin)
    at = Stretch(share, 0, 0)
    said = RPS * ((until_pass(one, (), at, LIMIT) if verdict == "pass" else until_fail(one, at, LIMIT)) or math.nan)

    def run(chance) -> float:
        most = int(4 * said)
        mine = chance.random(most) < share
        cost = chance.gamma(4, 0.25, most) * np.where(mine & (verdict == "fail"), one.effect, 1.0)
        n, x, xx = (
            [running(np.where(mine == arm, values, 0)) for arm in (True, False)] for values in (1.0, cost, cost**2)
        )

        def evidence(look: int) -> float:
            i = int(look * said / 25)
            arms = [Sums(int(n[a][i]), x[a][i], n[a][i], xx[a][i], n[a][i], x[a][i]) for a in (0, 1)]
            stage = [(arms[0], arms[1])]
            if verdict == "pass":
                return bounds.log_e_ratio(stage, margin, sign=-1)
            return bounds.with_restarts(partial(bounds.log_e_ratio, sign=+1), stage, 3)

        needed = one.policy.log_pass if verdict == "pass" else one.threshold
        return first(evidence, needed, 100) * said / 25

    assert 1 / 1.5 < median(run) / said < 1.5


@pytest.mark.parametrize("verdict", ["pass", "fail"])
@pytest.mark.parametrize("margin", [-0.02, -0.06])
def test_shadow_pairs_answer_when_they_were_said_to(verdict: str, margin: float):
    """Differences with a standard deviation of 0.25, half of the requests mirrored."""
    one = case("shadow_quality", margin)
    at = Stretch(0.0, 0.5, 0)
    seconds = until_pass(one, (), at, LIMIT) if verdict == "pass" else until_fail(one, at, LIMIT)
    said = 0.5 * RPS * (seconds or math.nan)

    def run(chance) -> float:
        d = np.clip(chance.normal(0.0 if verdict == "pass" else one.effect, 0.25, int(4 * said)), -1, 1)
        d = np.round(1000 * d).astype(int)

        def evidence(look: int) -> float:
            values, counts = np.unique(d[: int(look * said / 25)], return_counts=True)
            pairs = dict(zip(values.tolist(), counts.tolist(), strict=True))
            if verdict == "pass":
                return bounds.log_e_pairs(pairs, margin, sign=+1)
            return bounds.log_e_pairs(pairs, sign=-1)

        needed = one.policy.log_pass if verdict == "pass" else one.threshold
        return first(evidence, needed, 100) * said / 25

    assert 1 / 1.5 < median(run) / said < 1.5


QUIET = Law(0.0, 20.0)


def located(one: Case, share: float, belief: Belief, chance, *, noise: Law = QUIET) -> float:
    """Return the seconds until the location of a shifted latency fails; `noise` is the machines' own."""
    over = laws(one.most_noise, long=one.traffic.reference > 0)
    needed = one.threshold - math.log(one.signal.lag.part) - math.log(0.5 + 0.5 / 3)
    r = one.sd("sd") ** 2 * (1 / share + 1 / (1 - share)) / (10 * RPS)
    a, filter_, x = math.exp(-10 / noise.tau), Filter.fresh(over), chance.normal(0, noise.sigma)
    for number in range(1, 6000):
        y = math.log(one.effect) + x + chance.normal(0, math.sqrt(r))
        filter_ = filter_.step(over, y, r, 10.0)
        if log_e_slower(filter_, belief) >= needed:
            return 10.0 * number
        x = a * x + chance.normal(0, noise.sigma * math.sqrt(1 - a * a))
    return math.inf


LATENCIES = [("ttft_p95", 1.1), ("ttft_p95", 1.25), ("tpot_p95", 1.1)]


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize(("name", "margin"), LATENCIES)
def test_a_location_fails_when_it_was_said_to(share: float, name: str, margin: float):
    """Quiet machines, no reference."""
    one = case(name, margin)
    said = (until_located(one, Stretch(share, 0, 0), LIMIT) or math.nan) - one.signal.lag.grace_s
    none = Belief.without_reference(laws(one.most_noise))
    assert 1 / 1.5 < median(lambda chance: located(one, share, none, chance), 25) / said < 1.5


def test_the_course_is_the_filters_mean():
    """Level and information of every law, against the filter itself over quiet blocks of two variances."""
    over, variances = laws(0.25), [0.01] * 30 + [0.04] * 10
    chance, ends = np.random.default_rng(6), []
    for _ in range(400):
        filter_ = Filter.fresh(over)
        for number, r in enumerate(variances):
            filter_ = filter_.step(over, chance.normal(0, math.sqrt(r)), r, 10.0 if number else 0.0)
        ends.append(filter_.level)
    levels, infos = _course(over, variances, 10.0)
    assert infos[-1] == pytest.approx(filter_.info)
    assert np.all(np.abs(levels[-1] - np.mean(ends, axis=0)) < 3 * np.std(ends, axis=0) / 20)


@pytest.mark.parametrize(("name", "margin"), LATENCIES)
def test_a_quiet_reference_makes_it_as_quick_as_was_said(name: str, margin: float):
    """Six hours of blocks without noise, then the candidate; to a block."""
    one = case(name, margin, reference=6 * 3600.0)
    said = (until_located(one, Stretch(0.05, 0, 0), LIMIT) or math.nan) - one.signal.lag.grace_s
    over, r = laws(one.most_noise, long=True), one.sd("sd") ** 2 * 4 / (10 * RPS)

    def run(chance) -> float:
        history = Filter.fresh(over)
        for _ in range(2160):
            history = history.step(over, chance.normal(0, math.sqrt(r)), r, 10.0)
        return located(one, 0.05, Belief.of_reference(history.level), chance)

    assert median(run, 5) == pytest.approx(said, abs=10, rel=0.5)


@pytest.mark.parametrize(("name", "margin"), LATENCIES)
def test_own_noise_takes_as_long_as_was_said(name: str, margin: float):
    """Replicas as noisy as assumed, and for as long; whatever the traffic."""
    one = case(name, margin)
    none = Belief.without_reference(laws(one.most_noise))
    noise = Law(one.most_noise, 600.0)
    took = median(lambda chance: located(one, 0.5, none, chance, noise=noise), 9)
    assert 1 / 1.5 < took / until_located_in_noise(one) < 1.5


def test_the_law_of_own_noise():
    """TTFT x1.2 on a machine with 18 % for 3 minutes at a time: 72 minutes at alpha 1 %, weight .15; 0 if plain."""
    assert own_noise_seconds(math.log(1.2), math.log(1 / (0.0085 * 0.15)), 0.18, 180) / 60 == pytest.approx(72, abs=1)
    assert own_noise_seconds(math.log(8), 6.7, 0.18, 180) == 0
    assert own_noise_seconds(0.0, 6.7, 0.18, 180) == math.inf
    assert own_noise_seconds(0.1, 6.7, 0.0, 180) == 0


@given(st.sampled_from(["error_rate", "ttft_p95", "cost_per_request"]), st.floats(0.02, 0.5), st.floats(1.1, 4))
def test_more_traffic_takes_less_time(name: str, share: float, more: float):
    """The same requests come sooner; the limit is far."""
    margin, at = (0.02 if name == "error_rate" else 1.2), Stretch(share, 0, 0)
    slow, fast = (until_pass(case(name, margin, rps=rps), (), at, 1e6) or math.inf for rps in (RPS, RPS * more))
    assert fast == pytest.approx(slow / more, rel=0.01)


def test_what_came_before_counts():
    """Evidence of an earlier step is carried along, and its requests count towards the smallest sample."""
    one, at = case("error_rate", 0.02, min_samples=400), Stretch(0.5, 0, 0)
    alone = until_pass(one, (), at, LIMIT)
    after = until_pass(one, [Stretch(0.25, 0, 30)], at, LIMIT)
    assert alone == pytest.approx(40, abs=0.1)
    assert 0 < after < alone
    assert until_pass(one, [Stretch(0.5, 0, 2 * alone)], at, LIMIT) == 0


def test_never_is_said():
    """No traffic in the slice, no pairs, an effect of nothing, or more than the limit."""
    at = Stretch(0.5, 0, 0)
    assert until_pass(case("shadow_quality", -0.02), (), at, LIMIT) is None
    assert until_fail(case("shadow_quality", -0.02), at, LIMIT) is None
    assert until_pass(case("error_rate", 0.005), (), at, 10) is None
    assert until_pass(case("cost_per_token", 0.9), (), at, LIMIT) is None
    policy = Policy((Guard("ttft_p95", 1.1, slices=("legal",)),))
    nobody = cases(policy, Traffic(RPS, {}), BASE)[0]
    assert until_pass(nobody, (), at, LIMIT) is until_fail(nobody, at, LIMIT) is None


def test_harm_is_twice_the_margin_in_its_own_unit():
    """Points, ratios and scores; never beyond what there is."""
    assert effect_of(Guard("error_rate", 0.005), 2) == 0.01
    assert effect_of(Guard("ttft_p95", 1.1), 2) == pytest.approx(1.2)
    assert effect_of(Guard("shadow_quality", -0.02), 2) == -0.04
    assert effect_of(Guard("shadow_quality", -0.6), 2) == -1.0
    assert effect_of(Guard("error_rate", 0.6), 3) == 1.0
