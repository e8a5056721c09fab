"""E-values by exact enumeration: every outcome, its chance and its evidence, summed up. Nothing here is drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import gammaln
from scipy.stats import binom

from canary.core import bounds, ratios
from canary.core.bounds import Events
from canary.core.location import WORSE, Belief, log_e_slower, log_e_within
from canary.core.noise import Filter, all_laws
from canary.core.sample_ratio import TOLERANCE, log_e_mismatch

Test = Callable[[Sequence[Events]], float]
SHARES = [0.05, 0.5, 0.9]


def sequences(length: int, share: float) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every sequence of events with its chance: 1 is the candidate's."""
    for sequence in product((0, 1), repeat=length):
        k = sum(sequence)
        yield sequence, share**k * (1 - share) ** (length - k)


def stopped(sequence: Sequence[int], share: float, test: Test, bar: float) -> float:
    """E where it is first beyond `bar` or below a third, as somebody would stop who watches it; else at the end."""
    e = 1.0
    for seen in range(1, len(sequence) + 1):
        k = sum(sequence[:seen])
        e = math.exp(test([Events(share, k, seen - k, seen)]))
        if e >= bar or e < 1 / 3:
            break
    return e


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("test", [bounds.log_e_more, bounds.log_e_fewer])
def test_events_are_fair_however_one_stops(test: Test, share: float) -> None:
    """All 2^12 sequences of twelve events under a rule that stops when it likes what it sees: the mean is 1."""
    mean = math.fsum(chance * stopped(s, share, test, bar=2.0) for s, chance in sequences(12, share))
    assert mean == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("share", SHARES)
def test_a_lower_rate_is_less_than_fair(share: float) -> None:
    """All sequences of twelve events of a candidate with half the baseline's rate: the mean is below 1."""
    less = share / 2 / (share / 2 + 1 - share)
    mean = math.fsum(chance * stopped(s, share, bounds.log_e_more, bar=2.0) for s, chance in sequences(12, less))
    assert mean < 1


@pytest.mark.parametrize("planned", [1, 2, 4])
def test_restarts_are_fair_also_where_the_stage_ends_by_what_was_seen(planned: int) -> None:
    """All sequences of ten events; the second stage, with another share, begins as soon as the first one leans."""
    mean, first, second = 0.0, 0.2, 0.6
    for draws in product((0, 1), repeat=10):
        chance, stages, k, n = 1.0, [], 0, 0
        for draw in draws:
            share = second if stages else first
            chance *= share if draw else 1 - share
            k, n = k + draw, n + 1
            if not stages and (n == 6 or k >= 2):
                stages, k, n = [Events(first, k, n - k, n)], 0, 0
        whole = [*stages, Events(second, k, n - k, n)] if stages else [Events(first, k, n - k, n)]
        e = math.exp(bounds.with_restarts(bounds.log_e_more, whole, planned))
        assert e == pytest.approx(math.exp(bounds.log_e_more_restarted(whole, planned)))
        mean += chance * e
    assert mean == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("base", [0.0, 0.02, 0.3, 0.9])
@pytest.mark.parametrize("share", SHARES)
def test_the_margin_test_is_fair_however_one_stops(share: float, base: float) -> None:
    """All 3^8 sequences of eight requests at p_c - p_b = margin, stopped as soon as E has doubled: the mean is 1."""
    margin, chances = 0.05, (share * (base + 0.05), (1 - share) * base, 1 - share * (base + 0.05) - (1 - share) * base)

    def walk(counts: tuple[int, int, int], chance: float) -> float:
        e = math.exp(bounds.log_e_within([Events(share, counts[0], counts[1], sum(counts))], margin))
        if sum(counts) == 8 or e >= 2 or chance == 0:
            return chance * e
        return math.fsum(
            walk((counts[0] + (i == 0), counts[1] + (i == 1), counts[2] + (i == 2)), chance * p)
            for i, p in enumerate(chances)
        )

    assert walk((0, 0, 0), 1.0) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize("most", [0.001, 0.02, 0.3, 0.95])
@pytest.mark.parametrize(("test", "beyond"), [(bounds.log_e_over, 0.5), (bounds.log_e_under, 1.0)])
def test_one_arm_against_a_limit_is_fair_at_it(test: Callable[..., float], beyond: float, most: float) -> None:
    """All counts of forty requests at the limit: the mean is the part of the bets that can be, and less within it."""
    possible = np.mean(bounds.WORSE * most < 1) if test is bounds.log_e_over else 1.0

    def mean(p: float) -> float:
        return math.fsum(binom.pmf(k, 40, p) * math.exp(test(k, 40, most)) for k in range(41))

    assert mean(most) == pytest.approx(possible, rel=1e-9)
    within = most * beyond if test is bounds.log_e_over else min(1.0, 1.05 * most)
    assert mean(within) <= possible + 1e-12


POINTS = [((-1000, 0, 1000), (0.2, 0.5, 0.3)), ((-300, -20, 900), (0.7, 0.25, 0.05)), ((-40, 10, 35), (0.2, 0.3, 0.5))]


@pytest.mark.parametrize(("values", "chances"), POINTS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_pairs_are_fair_at_their_mean_however_one_stops(values, chances, sign: int) -> None:
    """All 3^7 sequences of seven differences with three values, `above` being their mean exactly: the mean is 1."""
    above = math.fsum(v * p for v, p in zip(values, chances, strict=True)) / 1000

    def walk(counts: tuple[int, ...], chance: float) -> float:
        e = math.exp(bounds.log_e_pairs(bounds.paired(dict(zip(values, counts, strict=True))), above, sign=sign))
        if sum(counts) == 7 or e >= 1.3:
            return chance * e
        more = (tuple(n + (i == j) for j, n in enumerate(counts)) for i in range(3))
        return math.fsum(walk(after, chance * p) for after, p in zip(more, chances, strict=True))

    assert walk((0, 0, 0), 1.0) == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(("nu", "t"), [(9, 0.2), (49, 0.75), (63, 1.0), (5000, 80.0)])
def test_the_mixture_for_means_is_fair_over_the_whole_line(nu: float, t: float) -> None:
    """Integrated against Student's density over the whole line: 1, to six figures."""
    norm = gammaln((nu + 1) / 2) - gammaln(nu / 2) - math.log(nu * math.pi) / 2

    def weighted(u: float) -> float:  # z = sinh u: a heavy tail becomes a short one
        z = math.sinh(u)
        log_density = norm - (nu + 1) / 2 * math.log1p(z * z / nu)
        return math.exp(ratios.log_e_student(z, nu=nu, t=t) + log_density) * math.cosh(u)

    got = quad(weighted, -40, 40, limit=500, points=[-2, 0, 2, 5])[0]
    assert got == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("n", [1, 7, 60])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("off", [-1.0, -0.3, 0.0, 1.0])
def test_the_sample_ratio_is_at_most_fair_within_its_tolerance(n: int, share: float, off: float) -> None:
    """All counts of n units at the share, and at the ends of what is tolerated: the mean is at most 1."""
    p = min(share * (1 + off * TOLERANCE), 1 - 1e-9)
    mean = math.fsum(binom.pmf(k, n, p) * math.exp(log_e_mismatch([(share, k, n - k)])) for k in range(n + 1))
    assert mean <= 1 + 1e-9


def test_the_sample_ratio_over_two_stages_is_the_product() -> None:
    """All counts of two stages with shares of their own: at most 1, and stages never pool."""
    stages = ((0.1, 20), (0.5, 15))
    mean = math.fsum(
        math.prod(binom.pmf(k, n, share) for k, (share, n) in zip(ks, stages, strict=True))
        * math.exp(log_e_mismatch([(share, k, n - k) for k, (share, n) in zip(ks, stages, strict=True)]))
        for ks in product(range(21), range(16))
    )
    assert 0 < mean <= 1 + 1e-9


def grid(low: float, high: float, sd: float) -> list[float]:
    """Points a fifth of a standard deviation apart, from eight below `low` to eight above `high`."""
    return [float(y) for y in np.arange(low - 8 * sd, high + 8 * sd, sd / 5)]


def density(y: float, mean: float, sd: float) -> float:
    """The normal density, a fifth of a standard deviation wide."""
    return math.exp(-(((y - mean) / sd) ** 2) / 2) / math.sqrt(2 * math.pi) / 5


@pytest.mark.parametrize("theta", [0.0, -0.05, -0.3])
@pytest.mark.parametrize("law", [0, 5, 16])
def test_one_block_of_any_law_is_at_most_fair(law: int, theta: float) -> None:
    """One Gaussian block of a law of the set without harm, summed up as far as any bet reaches: at most 1."""
    over = all_laws(0.25)
    belief, r = Belief.without_reference(over), 0.1**2
    sd = math.sqrt(r + over[law].sigma ** 2)
    mean = math.fsum(
        density(y, theta, sd) * math.exp(log_e_slower(Filter.fresh(over).step(over, y, r, 0.0), belief))
        for y in grid(theta, float(WORSE[-1]), sd)
    )
    assert 0.01 < mean <= 1 + 1e-9


@pytest.mark.parametrize("test", ["slower", "within"])
def test_two_blocks_without_noise_are_at_most_fair(test: str) -> None:
    """Two Gaussian blocks of different size, at no effect and at the margin: the mean is at most 1."""
    over, margin = all_laws(0.25), math.log(1.1)
    belief, (one, two), total = Belief.without_reference(over), (0.7, 0.5), 0.0
    theta = 0.0 if test == "slower" else margin
    low, high = sorted((theta, theta + float(WORSE[-1]) * (1 if test == "slower" else -1)))
    for x in grid(low, high, one)[::2]:
        began = Filter.fresh(over).step(over, x, one**2, 0.0)
        for y in grid(low, high, two)[::2]:
            seen = began.step(over, y, two**2, 10.0)
            log_e = log_e_slower(seen, belief) if test == "slower" else log_e_within(seen, belief, margin)
            total += 4 * density(x, theta, one) * density(y, theta, two) * math.exp(log_e)
    assert 0.01 < total <= 1 + 1e-9


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.19, 0.81), (0.02, 0.98)])
def test_a_family_of_weighted_evidence_is_fair(weights: tuple[float, float]) -> None:
    """All sequences of ten events that two guardrails read, one of them only the first half: the weighted mean is 1.

    They are anything but independent. What counts only where its estimate lies beyond a margin is less.
    """
    share, total, counted = 0.3, 0.0, 0.0
    for sequence, chance in sequences(10, share):
        k = (sum(sequence), sum(sequence[:5]))
        logs = [bounds.log_e_more([Events(share, n, of - n, of)]) for n, of in zip(k, (10, 5), strict=True)]
        beyond = [(log, w) for log, w, n, most in zip(logs, weights, k, (3, 2), strict=True) if n > most]
        total += chance * math.exp(bounds.log_sum(logs, weights))
        counted += chance * math.fsum(w * math.exp(log) for log, w in beyond)
    assert total == pytest.approx(1.0, rel=1e-9)
    assert counted < 1


@pytest.mark.parametrize("base", [0.0, 0.3])
def test_units_that_come_again_in_the_next_stage_are_at_most_fair(base: float) -> None:
    """All outcomes of three sticky units that ask once in each of two stages, the share growing from 20 % to 60 %.

    Their first failure counts, in the stage in which it is: at equal rates E against harm has the mean 1, and with
    every request's rates apart by the margin E for it at most 1, whether one stops after the first stage or not.
    """
    margin, shares = 0.1, (0.2, 0.6)
    arms = ((("c", "c"), 0.2), (("b", "c"), 0.4), (("b", "b"), 0.4))
    harmless = margin_proved = 0.0
    for units in product(product(arms, ("first", "second", "never")), repeat=3):
        counts = [[0, 0, 0], [0, 0, 0]]  # by stage: candidate's events, the baseline's, units that are new
        chance, worse = 1.0, 1.0
        for (sides, part), when in units:
            rates = [(base, base + margin * (side == "c")) for side in sides]
            counts[0][2] += 1
            if when != "never":
                stage = 0 if when == "first" else 1
                counts[stage][sides[stage] == "b"] += 1
            for which in (0, 1):
                p, q = rates[0][which], rates[1][which]
                of = {"first": p, "second": (1 - p) * q, "never": (1 - p) * (1 - q)}[when]
                chance, worse = (chance * part * of, worse) if which == 0 else (chance, worse * part * of)
        stages = [Events(s, c, b, max(n, c + b)) for s, (c, b, n) in zip(shares, counts, strict=True)]
        harmless += chance * math.exp(bounds.log_e_more_restarted(stages, 2))
        early = math.exp(bounds.log_e_within(stages[:1], margin))
        margin_proved += worse * (early if early > 1.02 else math.exp(bounds.log_e_within(stages, margin)))
    assert harmless == pytest.approx(1.0, rel=1e-9)
    assert 0.5 < margin_proved <= 1 + 1e-9
