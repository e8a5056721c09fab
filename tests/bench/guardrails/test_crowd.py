import numpy as np
import pytest

from bench.guardrails.cases import policy_of
from bench.guardrails.crowd import TRIPWIRE, Crowd
from bench.guardrails.sessions import Sessions
from bench.guardrails.streams import Late, Scene, Stream
from canary.core.finding import OnBreach, Verdict
from canary.trials.simulate import Harm, OwnNoise, Step, Traffic, World
from tests.bench.guardrails.product import Product, chance, referred

RUNS = 2
HALF = (Step(0.5, 150),)
LATE = (Step(0.3, 300), Step(0.5, 100))
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
    "errors at last": Scene(World(LATE, harm=Harm(error=0.01)), since=1),
    "slow at last": Scene(World(LATE, harm=Harm(ttft=2.5, tpot=1.5)), since=1),
    "stalled at last": Scene(World(LATE, harm=Harm(stall=5.0, stalled=0.1)), since=1),
    "dear at last": Scene(World(LATE, harm=Harm(cost=1.15)), since=1),
    "worse in a ramp": Scene(World((Step(0.1, 100), Step(0.5, 100, 1.5)), harm=Harm(cost=1.1, quality=0.05, ttft=1.6))),
}
HARMED = {"errors", "slow", "stalled", "dear", "slow at last", "stalled at last", "dear at last", "worse in a ramp"}


BOTH = ("ttft_p95", "tpot_p95")  # beyond as a whole or at the tail: their evidence tells which


def beyond(finding):
    """Whether the estimate is worse than the margin and no machine's noise, or plainly that of the present stage."""
    if finding.estimate is None or "as a machine's noise may be" in finding.reason:  # None: too few yet
        return False
    worse = finding.estimate if finding.margin > 0 else -finding.estimate
    return worse > abs(finding.margin) * (1 + 1e-9) or "since the share changed" in finding.reason


def failing(findings):
    """The first guardrail that rolls back."""
    ours = (f for f in findings.values() if f.verdict is Verdict.FAIL and f.on_breach is OnBreach.ROLLBACK)
    return next((f.guardrail for f in ours), "")


@pytest.mark.parametrize("name", SCENES)
def test_the_crowd_decides_as_the_product_does(name):
    """On the same sums: the same evidence every second, and the same guardrail fails in the same second."""
    scene, policy = SCENES[name], policy_of(SCENES[name])
    crowd = Crowd(policy, scene, RUNS)
    seen = compared(scene, crowd, [Product(policy, scene, run) for run in range(RUNS)])
    found = {run: (at, name) for run, (at, _, name) in crowd.failed.items() if name != TRIPWIRE}
    assert found == {run: told for run, told in seen.items() if run in found}
    assert set(crowd.failed) >= set(seen)
    assert bool(seen) == (name in HARMED)


def test_it_believes_a_reference_as_the_product_does(monkeypatch):
    """Weights, excluded laws and the variance that is known from the first block on."""
    monkeypatch.setattr("bench.guardrails.references.COUNTED", 100)
    monkeypatch.setattr("canary.core.reference.LONG_S", 1000.0)
    beliefs, theirs = referred(0.02, 60.0, RUNS)
    scene = Scene(World(HALF, harm=Harm(ttft=3.0)))
    policy = policy_of(scene)
    products = [Product(policy, scene, run, {"ttft": theirs[run]}) for run in range(RUNS)]
    seen = compared(scene, Crowd(policy, scene, RUNS, {"ttft": beliefs}), products)
    assert {name for _, name in seen.values()} == {"ttft_p95"}


def compared(scene, crowd, products):
    """Tell a scene to both, compare what they say each second, and return when the product rolled back, and by what."""
    seen, policy = {}, policy_of(scene)
    for second in Stream(scene, RUNS, chance()).seconds():
        crowd.take(second)
        judged = crowd.judged(np.arange(RUNS))
        for run in sorted(set(range(RUNS)) - set(seen)):
            findings = products[run].take(second)
            for number, guard in enumerate(policy.guards):
                finding = findings[guard.name]
                if finding.evidence is not None:
                    ours = judged.over[run, number] - np.log(policy.weights()[guard.name, ""])
                    assert ours == pytest.approx(finding.evidence, abs=1e-9, rel=1e-9), (second.number, guard.name)
                    if guard.name not in BOTH:
                        assert judged.counts[run, number] == beyond(finding), (second.number, guard.name)
            if failed := failing(findings):
                seen[run] = second.number, failed
    return seen
