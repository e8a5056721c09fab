import math
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.special import comb

from canary.core import bounds, ratios
from canary.core.bounds import Events
from canary.core.ratios import Sums

shares = st.floats(0.02, 0.98)


def mean_e(events: int, share: float, process) -> float:
    """E[e] by enumeration: of a number of events, each is the candidate's with probability `share`."""
    return math.fsum(
        comb(events, k, exact=True) * share**k * (1 - share) ** (events - k) * math.exp(process(k, events - k))
        for k in range(events + 1)
    )


@pytest.mark.parametrize("test", [bounds.log_e_more, bounds.log_e_fewer])
@given(events=st.integers(0, 40), share=shares)
def test_the_event_tests_are_fair_at_equal_rates(test, events: int, share: float) -> None:
    """Exactly enumerated, the mean of E is 1 where both arms have events at the same rate."""
    got = mean_e(events, share, lambda c, b: test([Events(share, c, b, 100)]))
    assert got == pytest.approx(1.0, rel=1e-9)


@given(events=st.tuples(st.integers(0, 8), st.integers(0, 8)), share=st.tuples(shares, shares))
def test_stages_with_other_shares_stay_fair_with_restarts(events: tuple[int, int], share: tuple[float, float]) -> None:
    """Two stages, each with its own share, enumerated together: the mean of E with restarts is 1."""
    total = 0.0
    for first, second in product(range(events[0] + 1), range(events[1] + 1)):
        stages = [Events(s, k, n - k, n) for s, k, n in zip(share, (first, second), events, strict=True)]
        chance = math.prod(
            comb(n, k, exact=True) * s**k * (1 - s) ** (n - k)
            for s, k, n in zip(share, (first, second), events, strict=True)
        )
        total += chance * math.exp(bounds.with_restarts(bounds.log_e_more, stages, 3))
    assert total == pytest.approx(1.0, rel=1e-9)


@given(
    n=st.integers(0, 12),
    share=st.floats(0.05, 0.95),
    base=st.floats(0, 0.9),
    margin=st.floats(0.001, 0.5),
    excess=st.floats(0, 0.5),
)
def test_the_margin_test_is_fair_at_and_beyond_its_margin(n, share, base, margin, excess) -> None:
    """Over every outcome of n requests, the mean of E is 1 at the margin and at most 1 beyond."""
    assume(base + margin + excess <= 1)
    p_c, p_b = share * (base + margin + excess), (1 - share) * base
    total = 0.0
    for c, b in product(range(n + 1), range(n + 1)):
        if c + b <= n:
            ways = comb(n, c, exact=True) * comb(n - c, b, exact=True)
            chance = ways * p_c**c * p_b**b * max(0.0, 1 - p_c - p_b) ** (n - c - b)
            total += chance * math.exp(bounds.log_e_within([Events(share, c, b, n)], margin))
    assert total <= 1 + 1e-9
    if excess == 0:
        assert total == pytest.approx(1.0, rel=1e-9)


@given(n=st.integers(0, 30), low=st.integers(-1000, 999), data=st.data(), sign=st.sampled_from([-1, 1]))
def test_the_paired_test_is_fair_at_its_boundary(n: int, low: int, data: st.DataObject, sign: int) -> None:
    """For differences of two values whose mean is the boundary, enumerated, the mean of E is 1."""
    high = data.draw(st.integers(low + 1, 1000))
    p = data.draw(st.floats(0, 1))
    boundary = (p * high + (1 - p) * low) / 1000
    got = mean_e(n, p, lambda k, rest: bounds.log_e_pairs(bounds.paired({high: k, low: rest}), boundary, sign=sign))
    assert got == pytest.approx(1.0, rel=1e-8)


def test_far_tails_neither_overflow_nor_vanish() -> None:
    """Millions of events and a z of 1e8 give finite logs that still grow with the evidence."""
    more = [bounds.log_e_more([Events(0.05, n, 10, 10**8)]) for n in (10**5, 10**6, 10**7)]
    far = [ratios.log_e_student(z, nu=1e4, t=15) for z in (-1e8, -40.0, 0.0, 40.0, 1e8)]
    assert all(map(math.isfinite, [*more, *far]))
    assert more == sorted(more)
    assert far == sorted(far)


def test_no_evidence_is_no_bet() -> None:
    """Empty sums leave E at 1, in every test."""
    empty = [Events(0.3, 0, 0, 0)]
    sums = Sums(0, 0, 0, 0, 0, 0)
    got = [
        bounds.log_e_more(empty),
        bounds.log_e_fewer([]),
        bounds.log_e_within(empty, 0.1),
        bounds.log_e_pairs(bounds.paired({}), sign=1),
        ratios.log_e_ratio([(sums, sums)], sign=1),
    ]
    assert got == pytest.approx([0.0] * 5, abs=1e-12)


@pytest.mark.parametrize(
    "got",
    [
        bounds.log_e_more([Events(0.5, -1, 2, 10)]),
        bounds.log_e_more([Events(1.0, 1, 2, 10)]),
        bounds.log_e_more([Events(math.nan, 1, 2, 10)]),
        bounds.log_e_fewer([Events(0.5, 6, 6, 10)]),
        bounds.log_e_within([Events(0.5, 1, 1, 10)], 0.0),
        bounds.log_e_within([Events(0.5, 1, 1, 10)], math.nan),
        bounds.log_e_within([Events(0.5, 1, 10, 10)], 0.1),
        bounds.log_e_pairs(bounds.paired({1001: 1}), sign=1),
        bounds.log_e_pairs(bounds.paired({-1001: 1}), sign=1),
        bounds.log_e_pairs(bounds.paired({0: -1}), sign=1),
        bounds.log_e_pairs(bounds.paired({0: 1}), math.nan, sign=1),
        ratios.log_e_ratio([], 0.0, sign=1),
        ratios.log_e_ratio([], math.nan, sign=1),
    ],
)
def test_what_no_traffic_leaves_proves_nothing(got: float) -> None:
    """Impossible counts, shares and margins give NaN, which is neither over nor under any threshold."""
    assert math.isnan(got)


def test_a_restart_finds_harm_that_begins_late() -> None:
    """After a long quiet stage in the candidate's favour, restarts prove late harm that the whole process misses."""
    stages = [Events(0.5, 20, 60, 10**4), Events(0.5, 40, 8, 10**4)]
    assert bounds.log_e_more(stages) < 5 < bounds.with_restarts(bounds.log_e_more, stages, 2)
    assert bounds.log_e_more(stages) == bounds.with_restarts(bounds.log_e_more, stages, 1)


@pytest.mark.parametrize(
    ("logs", "total"),
    [
        ([], -math.inf),
        ([0.0, 0.0], math.log(2)),
        ([1e5, 0.0], 1e5),
        ([-math.inf], -math.inf),
        ([math.inf, 1], math.inf),
    ],
)
def test_logs_add_without_leaving_the_log_scale(logs: list[float], total: float) -> None:
    """Sums of e-values too large or too small for a float are right."""
    assert bounds.log_sum(logs) == pytest.approx(total)


@pytest.mark.parametrize("logs", [[math.nan, 1.0], [1.0, math.nan], [math.inf, math.nan]])
def test_one_nan_makes_the_sum_nan(logs: list[float]) -> None:
    """What cannot be trusted is not lost in a sum, wherever it stands."""
    assert math.isnan(bounds.log_sum(logs))


@pytest.mark.parametrize("n", [10**9, 10**15])
@pytest.mark.parametrize("share", [1e-9, 0.05, 0.5, 1 - 1e-9])
def test_a_billion_events_have_finite_logs(n: int, share: float) -> None:
    """No overflow and no warning, whoever has them all, in every test that counts."""
    with np.errstate(all="raise", under="ignore"):
        sides = [(n, 0), (0, n), (n, n)]
        logs = [
            test([Events(share, c, b, 3 * n)]) for c, b in sides for test in (bounds.log_e_more, bounds.log_e_fewer)
        ]
        logs += [bounds.log_e_within([Events(share, c, b, 3 * n)], 0.01) for c, b in sides]
        logs += [test(k, n, 0.01) for k in (0, n // 2, n) for test in (bounds.log_e_over, bounds.log_e_under)]
        pairs = [bounds.paired({d: n}) for d in (-1000, 100, 1000)]
        logs += [bounds.log_e_pairs(counts, 0.1, sign=sign) for counts in pairs for sign in (-1, 1)]
        logs += [bounds.log_e_more_restarted([Events(share, n, 0, n)] * 3, 4)]
    assert all(map(math.isfinite, logs))


@given(st.floats(0.01, 0.99), st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_more_for_the_one_is_fewer_for_the_other(share: float, candidate: int, baseline: int) -> None:
    """More of the candidate's events are never less evidence for more, nor more evidence for fewer."""
    here, there = (Events(share, candidate + more, baseline, 10**7) for more in (0, 1))
    slack = 1e-9 * (1 + abs(bounds.log_e_more([here])))
    if candidate * (1 - share) >= share * baseline:  # where it has its part already
        assert bounds.log_e_more([there]) >= bounds.log_e_more([here]) - slack
    assert bounds.log_e_fewer([there]) <= bounds.log_e_fewer([here]) + slack


def test_weights_may_be_next_to_nothing() -> None:
    """A weight of 1e-300 of a certainty is what it is."""
    with np.errstate(all="raise", under="ignore"):
        assert bounds.log_sum([1000.0, 0.0], [1e-300, 1.0]) == pytest.approx(1000.0 + math.log(1e-300))
        assert bounds.log_sum([-1e8, -1e8]) == pytest.approx(-1e8 + math.log(2))
