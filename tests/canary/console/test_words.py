"""Conditions in words."""

from __future__ import annotations

import pytest

from canary.console import words
from tests.canary.console.test_render import LOAD, REFERENCE


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (None, "none; a slow machine and a slow model look alike for long"),
        (
            REFERENCE,
            "6.2 h of 2 replicas, last block 12 s ago: own noise of TTFT at most 4.5 %, most likely none",
        ),
        (
            {**REFERENCE, "likeliest": {"sd": 0.02, "tau_s": 180.0}, "source": "control"},
            "of the control and the baseline, last block 12 s ago: own noise of TTFT at most 4.5 %, most likely 2 %",
        ),
        ({**REFERENCE, "tells": False, "seconds": 300.0}, "5 min 0 s of 2 replicas, last block 12 s ago: too little"),
        ({**REFERENCE, "outside": True}, "raise analysis.own_noise.ttft, or use more replicas"),
    ],
)
def test_a_reference_says_how_old_and_how_good_it_is(known, said) -> None:
    """Hours, machines, the last block, and the noise."""
    assert said in words.reference(known, "ttft")


def test_all_latencies_fit_in_one_line() -> None:
    """The longest reference's age, and each bound."""
    both = {"ttft": REFERENCE, "tpot": {**REFERENCE, "outside": True}}
    assert words.references(both).endswith("own noise of TTFT at most 4.5 %, TPOT beyond what is assumed")
    young = {"ttft": {**REFERENCE, "tells": False}, "tpot": None}
    assert words.references(young).endswith("last block 12 s ago: too little to tell")
    half = {"ttft": REFERENCE, "tpot": {**REFERENCE, "tells": False}}
    assert words.references(half).endswith("own noise of TTFT at most 4.5 %, TPOT not known yet")
    assert words.references({"ttft": None}) == words.references(None) == ""


def test_what_is_not_known_of_the_load_is_not_said() -> None:
    """No cache that reports, or no time yet."""
    plain = {"candidate": {**LOAD["candidate"], "cached": None}, "baseline": {**LOAD["baseline"], "in_flight": None}}
    assert words.load(plain) == "candidate 1.2 in flight a replica (1)"
    assert words.load(None) == ""
