"""What a story is made of."""

from __future__ import annotations

import numpy as np
import pytest

from canary.trials import drawing
from canary.trials.world import Step, Traffic, World


def test_what_is_usual_of_made_up_traffic_is_what_it_draws():
    """Rates and quantiles, over minutes of every load."""
    world = World([Step(0.5, 6000)], Traffic(load_tau=5.0))
    usual = world.usual()
    found = [one for second in drawing.seconds(world, np.random.default_rng(1)) for one in second.outcomes]
    assert np.quantile([one.ttft for one in found], 0.95) == pytest.approx(usual.ttft_p95, rel=0.03)
    assert np.quantile([one.ttft for one in found], 0.99) == pytest.approx(usual.ttft_p99, rel=0.05)
    assert np.quantile([one.tpot for one in found], 0.95) == pytest.approx(usual.tpot_p95, rel=0.02)
    assert np.mean([one.failed for one in found]) == pytest.approx(usual.error, rel=0.1)
    assert (usual.lacks, world.seconds) == (frozenset(), 6000)
