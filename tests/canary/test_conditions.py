"""The conditions in the status: references as one replica's own noise, load by Little's law."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from canary import conditions, references
from canary.core.arms import Endpoint
from canary.core.signals import NOISE
from canary.core.state import Phase
from canary.core.tally import parse
from canary.references import Collected, Sides
from tests.canary.core.releases import opened
from tests.canary.test_references import halves

CANARY = replace(opened(), phase=Phase.CANARY, shares=(0.0, 5.0), staged=1000.0)
SUMS = parse(
    {
        "0|candidate||busy_ms": "900000",
        "1|candidate|law|busy_ms": "30000",
        "1|candidate||busy_ms": "20000",
        "1|candidate||done": "50",
        "1|candidate||prompt_tokens": "1000",
        "1|candidate||cached_tokens": "250",
        "1|baseline||busy_ms": "400000",
        "1|baseline||done": "800",
        "1|baseline||prompt_tokens": "16000",
        "1|control||busy_ms": "20000",
        "1|control||done": "40",
    }
)


def test_load_is_what_is_in_flight_at_the_present_share() -> None:
    """Seconds of work a second, over the replicas; the stages before say nothing."""
    two = replace(CANARY, baseline=replace(CANARY.baseline, replicas=("http://a", "http://b")))
    found = conditions.load(two, SUMS, 1100.0)
    assert found["candidate"] == {"in_flight": 0.5, "per_second": 0.5, "cached": 0.25, "replicas": 1}
    assert found["baseline"] == {"in_flight": 2.0, "per_second": 8.0, "cached": 0.0, "replicas": 2}


def test_a_control_stands_for_the_baseline() -> None:
    """It is what the candidate is compared with."""
    found = conditions.load(replace(CANARY, control=Endpoint("c", "base", ("http://c",), "d-base")), SUMS, 1100.0)
    assert list(found) == ["candidate", "control"]
    assert found["control"]["in_flight"] == 0.2
    assert found["control"]["cached"] is None


@pytest.mark.parametrize("release", [opened(), replace(CANARY, staged=0.0), replace(CANARY, phase=Phase.ABORTED)])
def test_nothing_is_known_without_a_share_that_lasts(release) -> None:
    """Before it, after it, and of a state that does not tell when it began; nor in its first seconds."""
    for found in (conditions.load(release, SUMS, 1100.0), conditions.load(CANARY, SUMS, 1005.0)):
        assert {one["in_flight"] for one in found.values()} == {None}
    bare = conditions.load(CANARY, parse({"1|baseline||prompt_tokens": "5"}), 1100.0)
    assert {one["cached"] for one in bare.values()} == {None}


def test_a_reference_is_told_of_one_replica() -> None:
    """The difference of two machines has more noise than one of them."""
    sums = parse({name: str(amount) for name, amount in halves(0, 100).items()})
    found = Collected().take("replicas", Sides("a", 1, 1), references.halves(sums, 2000.0), 2000.0)
    seen = conditions.reference(found, 1020.0)["ttft"]
    assert (seen["source"], seen["replicas"], seen["seconds"], seen["age_s"]) == ("replicas", [1, 1], 970.0, 20.0)
    assert (seen["tells"], seen["outside"], seen["likeliest"]["sd"]) == (True, False, 0.0)
    assert 0 < seen["largest"]["sd"] < NOISE["ttft"]
    most = found.sources["replicas"].references["ttft"].largest.sigma
    assert seen["largest"]["sd"] == pytest.approx(most / math.sqrt(2))
    assert conditions.reference(Collected(), 1020.0) == {"ttft": None, "tpot": None}
    assert conditions.reference(found, 1020.0 + 90_000) == {"ttft": None, "tpot": None}
