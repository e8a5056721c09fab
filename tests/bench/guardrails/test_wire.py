import numpy as np
import pytest

from bench.guardrails.wire import Wire
from canary.core.arms import Arm
from canary.core.tripwire import Tripwire
from tests.bench.guardrails.product import chance

RUNS = 40


@pytest.mark.parametrize(
    ("bad", "base", "share"), [(0.9, 0.0, 0.5), (0.5, 0.03, 0.1), (0.5, 0.05, 0.7), (0.6, 0.02, 0.3)]
)
def test_the_wire_trips_where_the_workers_does(bad, base, share):
    """Report by report: the same runs, in the same second, at the same report of the candidate."""
    source = chance(int(100 * bad))
    wire, workers, tripped = Wire(RUNS), [Tripwire() for _ in range(RUNS)], set()
    for _ in range(60):
        runs = np.repeat(np.arange(RUNS), source.poisson(4, RUNS))
        arms = (source.random(len(runs)) < share).astype(np.int64)
        failed = source.random(len(runs)) < np.where(arms, bad, base)
        expected = {}
        for run in set(range(RUNS)) - tripped:
            seen = 0
            for place in np.flatnonzero(runs == run):
                seen += int(arms[place])
                if workers[run].observe(Arm.CANDIDATE if arms[place] else Arm.BASELINE, bool(failed[place])):
                    expected[run] = seen
                    break
        assert wire.take(runs, arms, failed) == expected
        tripped |= expected.keys()
    assert tripped
