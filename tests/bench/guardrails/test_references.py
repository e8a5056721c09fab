import numpy as np
import pytest

from bench.guardrails import references
from bench.guardrails.references import References, blocks, referred
from canary.core.location import Arm, Block
from canary.core.noise import ASSUMED, all_laws
from canary.core.reference import Reference
from canary.simulate import Traffic
from tests.bench.guardrails.product import chance

RUNS = 2


def test_a_reference_tells_what_the_products_does(monkeypatch):
    """On the same blocks: the same weights, the same laws excluded, the same variance."""
    monkeypatch.setattr(references, "COUNTED", 100)
    monkeypatch.setattr("canary.core.reference.LONG_S", 1000.0)
    ours, theirs = References(0.18, RUNS), [Reference.of_replicas(0.18, 1, 1)] * RUNS
    for number, halves in zip(range(110), blocks(20, 0.5, (0.1, 60.0), chance(), RUNS), strict=False):
        start = 10.0 * number
        for run in np.flatnonzero(ours.blocks < 100):
            arms = (Arm(*map(int, (halves.n[run, i], halves.k[run, i], halves.kk[run, i]))) for i in (0, 1))
            theirs[run] = theirs[run].take({start: Block(start, *arms)})
        ours.take(halves)
    beliefs = ours.beliefs()
    for run, reference in enumerate(theirs):
        assert beliefs.log_weights[run] == pytest.approx(reference.belief.log_weights[:ASSUMED], abs=1e-9)
        assert beliefs.possible[run].tolist() == reference.belief.possible[:ASSUMED].tolist()
        assert beliefs.variances[run] == pytest.approx(reference.variance)


def test_quiet_machines_leave_little_noise_possible():
    """After six hours, none or nearly none."""
    told = referred(Traffic(), None, {"ttft": 0.18, "tpot": 0.10}, 3, chance())
    quiet = [law.sigma for law in all_laws(0.18 * 2**0.5)[:ASSUMED]]
    assert (told["ttft"].possible @ quiet).max() < 0.1
