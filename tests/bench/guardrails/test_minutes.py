import numpy as np
import pytest
from scipy.stats import ttest_ind

from bench.guardrails.minutes import Minutes
from bench.guardrails.streams import Reports, Scene, Stream
from canary.trials.simulate import Harm, Step, World
from tests.bench.guardrails.product import chance

SCENE = Scene(World((Step(0.5, 120),), harm=Harm(error=0.1, ttft=1.2)))


@pytest.fixture(name="told")
def fixture_told():
    """Two minutes of two runs, and all their reports."""
    minutes, reports = Minutes(2), []
    for second in Stream(SCENE, 2, chance()).seconds():
        assert minutes.take(second) == (second.number in {60, 120})
        reports.append(second.reports)
    return minutes, Reports.joined(reports[60:]), Reports.joined(reports)


def test_a_minute_is_counted_from_its_reports(told):
    """Error rate, cost a request and quantiles of the last minute, by run and arm."""
    minutes, last, _ = told
    mine = last.at((last.run == 1) & (last.arm == 1))
    assert minutes.errors()[1, 1] == pytest.approx(mine.failed.mean())
    assert minutes.cost()[1, 1] == pytest.approx(mine.cost[mine.priced].mean() / 2**40)
    assert minutes.quantile("ttft", 0.95)[1, 1] == np.quantile(mine.ttft[mine.timed], 0.95, method="inverted_cdf")
    assert minutes.measured().all()


def test_the_last_minutes_are_taken_together(told):
    """Two of them are everything here."""
    minutes, _, every = told
    mine = every.at((every.run == 0) & (every.arm == 0))
    assert minutes.errors(2)[0, 0] == pytest.approx(mine.failed.mean())
    assert minutes.quantile("tpot", 0.5, 5)[0, 0] == np.quantile(mine.tpot[mine.timed], 0.5, method="inverted_cdf")


def test_sums_give_welchs_statistic(told):
    """Since the start, candidate over baseline."""
    minutes, _, every = told
    arms = [every.ttft[every.timed & (every.run == 0) & (every.arm == arm)] for arm in (0, 1)]
    assert minutes.sums["ttft"].z[0] == pytest.approx(ttest_ind(arms[1], arms[0], equal_var=False).statistic, rel=1e-2)
