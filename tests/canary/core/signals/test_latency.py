"""Latencies: an upper quantile, and the latency as a whole."""

from __future__ import annotations

import pytest

from canary.core.signals import StageView
from canary.core.tails import Memory
from canary.core.tally import Tally
from tests.canary.core.signals.arms import arm, histogram, read


def test_a_tail_says_its_quantiles_and_counts_its_events() -> None:
    """Quantiles in milliseconds against the whole-bucket margin; the evidence is the memory's events."""
    view = StageView(1, 0.5, histogram("ttft", {370: 100}), histogram("ttft", {349: 100}))
    memory = Memory(events={1: (60, 5)}, unexplained={1: (60, 5)})
    got = read("ttft_p95", view, margin=1.1, memory=memory)
    assert got.facts == "152 ms against 100 ms, x1.52 > x1.10 allowed"
    assert got.beyond
    assert got.fail > 20
    assert got.passing < 0
    quiet = read("ttft_p95", view, margin=2.0, memory=Memory(events={1: (0, 12)}))
    assert not quiet.beyond
    assert quiet.passing > 3


@pytest.mark.parametrize(
    ("candidate", "baseline", "words"),
    [
        (histogram("tpot", {300: 5}), histogram("ttft", {300: 5}), "no ttft measured on the candidate"),
        (histogram("ttft", {300: 5}), arm(5), "no ttft measured on the baseline"),
    ],
)
def test_a_latency_nobody_measured_is_unknown(candidate: Tally, baseline: Tally, words: str) -> None:
    """Without streamed answers there is no TTFT to judge."""
    assert words == read("ttft_p95", StageView(1, 0.5, candidate, baseline), margin=1.1).unknown


def test_latencies_of_two_stages_do_not_compare() -> None:
    """A candidate measured in one stage and a baseline in another are two loads."""
    views = [
        StageView(1, 0.5, histogram("ttft", {300: 5}), arm(5)),
        StageView(2, 0.5, arm(5), histogram("ttft", {300: 5})),
    ]
    assert read("ttft_p95", *views, margin=1.1).unknown == "no stage in which both arms have a ttft"
