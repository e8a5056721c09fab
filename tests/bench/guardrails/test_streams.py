from dataclasses import replace

import numpy as np
import pytest

from bench.guardrails.cases import steady
from bench.guardrails.sessions import Sessions
from bench.guardrails.streams import Late, Reports, Scene, Stream, buckets
from canary.core.tally import bucket
from canary.trials.simulate import Harm, Step, World
from tests.bench.guardrails.product import chance

EVEN = Scene(World((Step(0.5, 200),)))


def drawn(scene, runs=20, seed=1):
    """All reports of a scene."""
    return Reports.joined([second.reports for second in Stream(scene, runs, chance(seed)).seconds()])


def test_buckets_are_a_workers():
    """Whatever the time, from its logarithm."""
    times = np.exp(chance().uniform(np.log(1e-6), np.log(1e6), 10_000))
    assert buckets(np.log(times)).tolist() == [bucket(float(time)) for time in times]


def test_seeded_traffic_repeats_exactly():
    """The same seed, the same requests."""
    one, again, other = drawn(EVEN), drawn(EVEN), drawn(EVEN, seed=2)
    assert one.ttft.tolist() == again.ttft.tolist()
    assert one.ttft.tolist() != other.ttft.tolist()


@pytest.mark.parametrize("scene", [EVEN, replace(EVEN, sessions=Sessions()), replace(EVEN, late=Late())])
def test_equal_arms_are_equal_in_distribution(scene):
    """As many requests at the stated rate; the same latencies, costs and errors, but for chance."""
    reports = drawn(scene)
    arms = [reports.at(reports.arm == arm) for arm in (0, 1)]
    assert len(arms[0].run) == pytest.approx(len(arms[1].run), rel=0.1)
    for name, near in (("ttft", 2.0), ("tpot", 0.5), ("tokens", 2.0)):
        means = [getattr(arm, name)[arm.timed].mean() for arm in arms]
        assert means[0] == pytest.approx(means[1], abs=near), name
    assert reports.failed.mean() == pytest.approx(0.005, abs=0.002)


def test_harm_is_the_candidates():
    """Slower, dearer and worse by what was asked."""
    reports = drawn(Scene(World((Step(0.5, 200),), harm=Harm(ttft=2.0, cost=1.5, error=0.1))))
    baseline, candidate = (reports.at(reports.arm == arm) for arm in (0, 1))
    assert candidate.ttft.mean() - baseline.ttft.mean() == pytest.approx(35, abs=0.7)  # ln 2 / ln 1.02
    assert candidate.cost.mean() / baseline.cost.mean() == pytest.approx(1.5, rel=0.02)
    assert candidate.failed.mean() - baseline.failed.mean() == pytest.approx(0.1, abs=0.005)


def test_a_session_keeps_its_arm_and_counts_once():
    """One arm, one that is timed, at most one error that counts; about eight requests."""
    reports = drawn(replace(steady(0.5), sessions=Sessions(prone=0.5)), runs=1)
    _, places = np.unique(reports.unit, return_inverse=True)
    of = np.bincount(places)
    assert of.mean() == pytest.approx(8, rel=0.2)
    assert set(np.bincount(places, reports.arm) / of) == {0.0, 1.0}
    assert np.bincount(places, reports.timed).max() == 1
    assert np.bincount(places, reports.first_failed).max() == 1 < np.bincount(places, reports.failed).max()


def test_late_reports_keep_the_block_that_drew_them():
    """Up to a minute late; the slow more often; none is lost but at the end."""
    waits, slow = [], []
    for second in Stream(replace(EVEN, late=Late()), 20, chance()).seconds():
        waits.append((second.number - 1) // 10 - second.reports.block)
        slow.append(second.reports.ttft)
    waits, slow = np.concatenate(waits), np.concatenate(slow)
    assert waits.min() == 0
    assert waits.max() == 6
    assert slow[waits > 0].mean() > slow[waits == 0].mean() + 5
    assert len(waits) == pytest.approx(20 * 20 * 200, rel=0.05)


def test_a_stage_lasts_whole_blocks():
    """Another length is refused."""
    with pytest.raises(ValueError, match="whole blocks"):
        Scene(World((Step(0.5, 15),))).stages()
