"""The forecast against seeded traffic through the very tests: within a factor of 1.5 of the median of the runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core import bounds, ratios
from canary.core.bounds import Events
from canary.core.expected import failing
from canary.core.finding import OnBreach
from canary.core.forecast import until_fail, until_located, until_located_in_noise, until_pass
from canary.core.located import belief_of, course, own_noise_seconds
from canary.core.location import Belief, log_e_slower, log_e_within
from canary.core.noise import Filter, Law, laws
from canary.core.policy import Guard, Policy
from canary.core.premise import Baseline, Case, Stretch, Traffic, cases, effect_of
from canary.core.ratios import Sums
from canary.core.tails import margin_ratio

RPS, LIMIT = 20.0, 5000.0
BASE = Baseline()


def case(name: str, margin: float, *, min_samples: int = 1, rps: float = RPS, reference: float = 0.0) -> Case:
    """One guardrail alone, on all traffic; arms count as loaded alike whatever their shares."""
    policy = Policy((Guard(name, margin),), min_samples=min_samples, stages=3, max_load_ratio=math.inf)
    return cases(policy, Traffic(rps, {}, reference=reference), BASE)[0]


def noiseless(one: Case) -> Case:
    """The same, with no noise of machines assumed: then a latency passes by its quantile alone."""
    return replace(one, policy=replace(one.policy, noise={"ttft": 0.0, "tpot": 0.0}))


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
        ("pass", "stall_p99", 1.25, 0.5),
        ("fail", "stall_p99", 1.25, 0.5),
        ("fail", "ttft_p99", 1.25, 0.5),
    ],
)
def test_a_quantile_answers_when_it_was_said_to(share: float, verdict: str, name: str, margin: float, sd: float):
    """Lognormal latencies against the baseline's own quantile."""
    one = noiseless(case(name, margin))
    if not name.endswith("p95"):  # beside guardrails that test the location
        others = (Guard("ttft_p95", 1.1), Guard("tpot_p95", 1.1))
        one = replace(one, policy=replace(one.policy, guards=(*others, one.guard)))
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
                return ratios.log_e_ratio(stage, margin, sign=-1)
            return bounds.with_restarts(partial(ratios.log_e_ratio, sign=+1), stage, 3)

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
                return bounds.log_e_pairs(bounds.paired(pairs), margin, sign=+1)
            return bounds.log_e_pairs(bounds.paired(pairs), sign=-1)

        needed = one.policy.log_pass if verdict == "pass" else one.threshold
        return first(evidence, needed, 100) * said / 25

    assert 1 / 1.5 < median(run) / said < 1.5


QUIET = Law(0.0, 20.0)


def located(one: Case, share: float, belief: Belief, chance, *, noise: Law = QUIET) -> float:
    """Return the seconds until the location of a shifted latency fails; `noise` is the machines' own."""
    over = laws(one.most_noise, long=one.traffic.reference > 0)
    needed = one.threshold - math.log(one.signal.lag.part) - math.log(0.5 + 0.5 / 3)
    r = one.sd**2 * (1 / share + 1 / (1 - share)) / (10 * RPS)
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


@pytest.mark.parametrize("share", [0.25, 0.5])
@pytest.mark.parametrize(("name", "margin"), LATENCIES[1:])
def test_a_location_passes_when_it_was_said_to(share: float, name: str, margin: float):
    """Of an equal candidate on quiet machines, no reference; the quantile is sooner or as soon."""
    one = case(name, margin)
    said = (until_pass(one, (), Stretch(share, 0, 0), 50_000.0) or math.nan) - one.signal.lag.grace_s
    over, none = laws(one.most_noise), Belief.without_reference(laws(one.most_noise))
    r = one.sd**2 * (1 / share + 1 / (1 - share)) / (10 * RPS)

    def run(chance) -> float:
        seen = Filter.fresh(over)
        for number in range(1, 6000):
            seen = seen.step(over, chance.normal(0, math.sqrt(r)), r, 10.0)
            if log_e_within(seen, none, math.log(margin_ratio(margin))) >= one.policy.log_pass:
                return 10.0 * number
        return math.inf

    assert said > (until_pass(noiseless(one), (), Stretch(share, 0, 0), 50_000.0) or math.inf)
    assert 1 / 1.5 < median(run, 25) / said < 1.5


def test_a_reference_makes_a_latency_pass_sooner():
    """As one that is supposed, or as what a real one says."""
    at, one = Stretch(0.5, 0, 0), case("ttft_p95", 1.25)
    blind = until_pass(one, (), at, 50_000.0)
    quiet = case("ttft_p95", 1.25, reference=6 * 3600.0)
    told = replace(one, traffic=replace(one.traffic, beliefs={"ttft": belief_of(quiet)}))
    assert until_pass(quiet, (), at, 50_000.0) == until_pass(told, (), at, 50_000.0) < blind / 3
    assert until_pass(noiseless(one), (), at, 50_000.0) <= until_pass(quiet, (), at, 50_000.0)


def test_a_latency_does_not_pass_while_the_arms_are_not_loaded_alike():
    """Five percent on as many replicas: a twentieth of the load; a control of its own share mends it."""
    one, few, even = case("ttft_p95", 1.25), Stretch(0.05, 0, 0), Stretch(0.5, 0, 0)
    strict = replace(one, policy=replace(one.policy, max_load_ratio=4.0))
    assert until_pass(strict, (), few, 1e6) is None
    assert until_pass(strict, [Stretch(0.05, 0, 9e4)], even, 1e6) == until_pass(strict, (), even, 1e6)
    assert until_pass(strict, [Stretch(0.5, 0, 9e4)], even, 1e6) == 0
    controlled = replace(strict, traffic=replace(strict.traffic, control=1))
    assert until_pass(controlled, (), few, 1e6) is not None
    rate = replace(case("error_rate", 0.02), policy=strict.policy)
    assert until_pass(rate, (), few, 1e6) is not None


def test_a_control_is_as_small_as_the_candidate():
    """Compared with it, a share of 5 % has 5 % against 5 %, and takes longer than against 95 %."""
    one = noiseless(case("ttft_p99", 1.25))
    controlled = replace(one, traffic=replace(one.traffic, control=1))
    few, even = Stretch(0.05, 0, 0), Stretch(0.5, 0, 0)
    assert until_pass(controlled, (), few, 1e6) > until_pass(one, (), few, 1e6)
    assert until_pass(controlled, (), even, 1e6) == until_pass(one, (), even, 1e6)


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize(("name", "limit"), [("error_rate_limit", 0.02), ("ttft_p95_limit", 0.8)])
@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_a_limit_answers_when_it_was_said_to(share: float, name: str, limit: float, verdict: str):
    """One arm by itself: what is over the limit among the candidate's own requests."""
    one = case(name, limit)
    at = Stretch(share, 0, 0)
    said = RPS * share * ((until_pass(one, (), at, 1e5) if verdict == "pass" else until_fail(one, at, 1e5)) or math.nan)
    most = limit if name == "error_rate_limit" else 0.05
    if name == "error_rate_limit":
        rate = 0.005 if verdict == "pass" else one.effect
    elif verdict == "pass":
        rate = 0.5 * math.erfc(math.log(limit / BASE.ttft_s) / BASE.ttft_sd / math.sqrt(2))
    else:
        rate = 0.5 * math.erfc((_z(0.95) + math.log(limit / one.effect) / BASE.ttft_sd) / math.sqrt(2))
    test, needed = (
        (bounds.log_e_under, one.policy.log_pass) if verdict == "pass" else (bounds.log_e_over, one.threshold)
    )

    def run(chance) -> float:
        events = np.cumsum(chance.random(int(4 * said)) < rate)
        looks = [int(look * said / 25) for look in range(1, 100)]
        return first(lambda i: test(int(events[looks[i] - 1]), looks[i], most), needed, 99) * said / 25

    assert 1 / 1.6 < median(run) / said < 1.6


def test_a_limit_that_the_baseline_exceeds_is_never_met():
    """Twice as many errors as allowed, on both arms."""
    one = case("error_rate_limit", 0.0025)
    assert until_pass(one, (), Stretch(0.5, 0, 0), 1e5) is None
    assert until_pass(case("ttft_p95_limit", 0.2), (), Stretch(0.5, 0, 0), 1e5) is None


def test_a_length_is_held_both_ways():
    """It passes later than a cost of the same spread, which is held one way, and fails half a bet later."""
    base, at = replace(BASE, length_sd=BASE.cost_sd), Stretch(0.5, 0, 0)
    length, cost = (replace(case(name, 1.25), baseline=base) for name in ("output_length", "cost_per_request"))
    assert until_pass(length, (), at, LIMIT) >= until_pass(cost, (), at, LIMIT)
    assert failing(length, [Stretch(0.5, 0, 60.0)]) == pytest.approx(
        failing(cost, [Stretch(0.5, 0, 60.0)]) - math.log(2)
    )


def test_advice_has_a_threshold_of_its_own():
    """It stands beside the family, so nothing of it is infinite."""
    policy = Policy((Guard("error_rate", 0.01), Guard("e2e_p95", 1.2, on_breach=OnBreach.WARN)))
    one = cases(policy, Traffic(RPS, {}), BASE)[1]
    assert one.threshold == policy.log_bar
    assert until_fail(one, Stretch(0.5, 0, 0), LIMIT) is not None


def test_the_course_is_the_filters_mean():
    """Level and information of every law, against the filter itself over quiet blocks of two variances."""
    over, variances = laws(0.25), [0.01] * 30 + [0.04] * 10
    chance, ends = np.random.default_rng(6), []
    for _ in range(400):
        filter_ = Filter.fresh(over)
        for number, r in enumerate(variances):
            filter_ = filter_.step(over, chance.normal(0, math.sqrt(r)), r, 10.0 if number else 0.0)
        ends.append(filter_.level)
    levels, infos = course(over, variances, 10.0)
    assert infos[-1] == pytest.approx(filter_.info)
    assert np.all(np.abs(levels[-1] - np.mean(ends, axis=0)) < 3 * np.std(ends, axis=0) / 20)


@pytest.mark.parametrize(("name", "margin"), LATENCIES)
def test_a_quiet_reference_makes_it_as_quick_as_was_said(name: str, margin: float):
    """Six hours of blocks without noise, then the candidate; to a block."""
    one = case(name, margin, reference=6 * 3600.0)
    said = (until_located(one, Stretch(0.05, 0, 0), LIMIT) or math.nan) - one.signal.lag.grace_s
    over, r = laws(one.most_noise, long=True), one.sd**2 * 4 / (10 * RPS)

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
    both = (noiseless(case(name, margin, rps=rps)) for rps in (RPS, RPS * more))
    slow, fast = (until_pass(one, (), at, 1e6) or math.inf for one in both)
    assert fast == pytest.approx(slow / more, rel=0.01)


def test_what_came_before_counts():
    """Evidence of an earlier step is carried along, and its requests count towards the smallest sample."""
    one, at = case("error_rate", 0.02, min_samples=400), Stretch(0.5, 0, 0)
    alone = until_pass(one, (), at, LIMIT)
    after = until_pass(one, [Stretch(0.25, 0, 30)], at, LIMIT)
    assert alone == pytest.approx(40, abs=0.1)
    assert 0 < after < alone
    assert until_pass(one, [Stretch(0.5, 0, 2 * alone)], at, LIMIT) == 0


def test_a_tail_that_noise_may_make_fails_only_with_a_reference():
    """Twice a margin of a quarter; six quiet hours exclude the noise that would explain it."""
    others = (Guard("ttft_p95", 1.1), Guard("ttft_p99", 1.25))
    for reference, found in ((0.0, False), (6 * 3600.0, True)):
        one = next(
            one
            for one in cases(Policy(others, stages=3), Traffic(RPS, {}, reference=reference), BASE)
            if one.guard.name == "ttft_p99"
        )
        assert (until_fail(one, Stretch(0.5, 0, 0), LIMIT) is not None) is found


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
    assert effect_of(Guard("error_rate_limit", 0.02), 2) == 0.04
    assert effect_of(Guard("ttft_p95_limit", 0.8), 2) == 1.6
