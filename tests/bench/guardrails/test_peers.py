import numpy as np
import pytest

from bench.guardrails.minutes import Minutes
from bench.guardrails.peers import PEERS, Argo, Flagger, Kayenta, _high
from bench.guardrails.streams import Scene, Stream
from canary.trials.simulate import Harm, Step, World
from tests.bench.guardrails.product import chance

RUNS = 5


def rolled(peers, harm, minutes=12):
    """Which part of the runs each peer has rolled back after some minutes."""
    kept, failed = Minutes(RUNS), {name: np.zeros(RUNS, bool) for name in peers}
    for second in Stream(Scene(World((Step(0.5, 60 * minutes),), harm=harm)), RUNS, chance()).seconds():
        if kept.take(second):
            for name, peer in peers.items():
                failed[name] |= peer.look(kept, second.number // 60, last=second.number == 60 * minutes)
    return {name: bool(found.all()) for name, found in failed.items()}


@pytest.mark.parametrize("name", PEERS)
def test_each_method_finds_what_nobody_can_miss(name):
    """Half of all requests fail, and the rest are four times as slow and as dear."""
    worst = Harm(error=0.5, ttft=4.0, tpot=4.0, cost=4.0)
    assert rolled({name: PEERS[name](RUNS)}, worst) == {name: True}


def test_limits_far_away_never_fail():
    """Where none is reached, nobody rolls back."""
    far = {"argo": Argo(RUNS, 5, 100), "flagger": Flagger(RUNS, 0.5, 10.0, 5), "kayenta": Kayenta(0.0, 0.0, 60)}
    assert not any(rolled(far, Harm()).values())


def test_a_shift_is_high_beyond_a_quarter_of_its_estimate():
    """Clearly shifted points are; the same ones are not."""
    points = chance().normal(0, 1, (1, 30))
    assert _high(points + 3, points).tolist() == [True]
    assert _high(points, points).tolist() == [False]
