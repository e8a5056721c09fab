import numpy as np
import pytest

from bench.guardrails.cases import POLICY
from bench.guardrails.crowd import TRIPWIRE, Crowd
from bench.guardrails.sessions import Sessions
from bench.guardrails.streams import Late, Scene, Stream
from canary.core.finding import OnBreach, Verdict
from canary.simulate import Harm, OwnNoise, Step, Traffic, World
from tests.bench.guardrails.product import Product, chance

RUNS = 2
HALF = (Step(0.5, 150),)
NOISY = OwnNoise(0.18, 0.10, 30.0)
SCENES = {
    "equal": Scene(World(HALF)),
    "noisy": Scene(World(HALF, noise=NOISY)),
    "a small share": Scene(World((Step(0.05, 200),), Traffic(pairs_per_s=0.3), noise=OwnNoise(0.4, 0.3, 60.0))),
    "a ramp": Scene(World((Step(0.05, 60), Step(0.25, 60, 1.65), Step(0.5, 60, 2.5)), noise=NOISY)),
    "late": Scene(World((Step(0.3, 70), Step(0.5, 80)), noise=NOISY), late=Late()),
    "sticky": Scene(World(HALF), sessions=Sessions()),
    "sticky in a ramp": Scene(World((Step(0.1, 60), Step(0.5, 60, 1.5), Step(0.7, 60))), sessions=Sessions(pause=30)),
    "errors": Scene(World(HALF, harm=Harm(error=0.05))),
    "slow": Scene(World(HALF, harm=Harm(ttft=3.0, tpot=1.8))),
    "stalled": Scene(World(HALF, harm=Harm(stall=5.0, stalled=0.2))),
    "dear": Scene(World(HALF, harm=Harm(cost=1.2))),
    "worse in a ramp": Scene(World((Step(0.1, 100), Step(0.5, 100, 1.5)), harm=Harm(cost=1.1, quality=0.05, ttft=1.6))),
}


BOTH = ("ttft_p95", "tpot_p95")  # beyond as a whole or at the tail: their evidence tells which


def beyond(finding):
    """Whether the estimate is worse than the margin."""
    if finding.estimate is None:  # too few yet
        return False
    worse = finding.estimate if finding.margin > 0 else -finding.estimate
    return worse > abs(finding.margin) * (1 + 1e-9)


def failing(findings):
    """The first guardrail that rolls back."""
    ours = (f for f in findings.values() if f.verdict is Verdict.FAIL and f.on_breach is OnBreach.ROLLBACK)
    return next((f.guardrail for f in ours), "")


@pytest.mark.parametrize("name", SCENES)
def test_the_crowd_decides_as_the_product_does(name):
    """On the same sums: the same evidence every second, and the same guardrail fails in the same second."""
    scene = SCENES[name]
    crowd, stream = Crowd(POLICY, scene, RUNS), Stream(scene, RUNS, chance())
    products, seen = [Product(POLICY, scene, run) for run in range(RUNS)], {}
    for second in stream.seconds():
        crowd.take(second)
        judged = crowd.judged(np.arange(RUNS))
        for run in sorted(set(range(RUNS)) - set(seen)):
            findings = products[run].take(second)
            for number, guard in enumerate(POLICY.guards):
                finding = findings[guard.name]
                if finding.evidence is not None:
                    ours = judged.over[run, number] - np.log(POLICY.weights()[guard.name, ""])
                    assert ours == pytest.approx(finding.evidence, abs=1e-9, rel=1e-9), (second.number, guard.name)
                    if guard.name not in BOTH:
                        assert judged.counts[run, number] == beyond(finding), (second.number, guard.name)
            if failed := failing(findings):
                seen[run] = second.number, failed
    found = {run: (at, name) for run, (at, _, name) in crowd.failed.items() if name != TRIPWIRE}
    assert found == {run: told for run, told in seen.items() if run in found}
    assert set(crowd.failed) >= set(seen)
    assert bool(seen) == (name in {"errors", "slow", "stalled", "dear", "worse in a ramp"})
