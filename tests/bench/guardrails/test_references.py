import pytest

from bench.guardrails.references import referred
from canary.core.noise import ASSUMED, all_laws
from canary.trials.simulate import Traffic
from tests.bench.guardrails.product import chance
from tests.bench.guardrails.product import referred as referred_both


def test_a_reference_tells_what_the_products_does(monkeypatch):
    """On the same blocks: the same weights, the same laws excluded, the same variance."""
    monkeypatch.setattr("bench.guardrails.references.COUNTED", 100)
    monkeypatch.setattr("canary.core.reference.LONG_S", 1000.0)
    beliefs, theirs = referred_both(0.1, 60.0, 2)
    for run, reference in enumerate(theirs):
        assert beliefs.log_weights[run] == pytest.approx(reference.belief.log_weights[:ASSUMED], abs=1e-9)
        assert beliefs.possible[run].tolist() == reference.belief.possible[:ASSUMED].tolist()
        assert beliefs.variances[run] == pytest.approx(reference.variance)


def test_quiet_machines_leave_little_noise_possible():
    """After six hours, none or nearly none."""
    told = referred(Traffic(), None, {"ttft": 0.18, "tpot": 0.10}, 3, chance())
    quiet = [law.sigma for law in all_laws(0.18 * 2**0.5)[:ASSUMED]]
    assert (told["ttft"].possible @ quiet).max() < 0.1
