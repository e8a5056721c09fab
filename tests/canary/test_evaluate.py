from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary.core.arms import Endpoint
from canary.errors import Usage
from canary.evaluate import (
    MIN_PASSAGES,
    PassageScore,
    SliceResult,
    SliceScore,
    Thresholds,
    compare,
    interval,
    judge,
    read_passages,
    report,
    summarize,
)

ARMS = (
    Endpoint("base", "base", ("http://127.0.0.1:1",), "sha256:a"),
    Endpoint("new", "new", ("http://127.0.0.1:2",), "sha256:b"),
)


def scores(rate: float, passages: int = 60, tokens: int = 40, seed: int = 1) -> list[PassageScore]:
    """Passages of which each token is right at `rate`."""
    rights = np.random.default_rng(seed).binomial(tokens, rate, size=passages)
    return [PassageScore(tokens, int(right), -2.0 * tokens) for right in rights]


def result(difference: float, low: float, high: float, passages: int = 60) -> SliceResult:
    """A slice's result with only its difference of interest."""
    return SliceResult(SliceScore(0.3, 9.0), SliceScore(0.3 + difference, 9.0), difference, low, high, passages)


def test_accuracy_pools_tokens_and_perplexity_is_the_mean_log_probability():
    """A long passage weighs as many tokens as it has."""
    pooled = summarize([PassageScore(10, 10, -10.0), PassageScore(30, 0, -50.0)])
    assert pooled.accuracy == 0.25
    assert pooled.perplexity == pytest.approx(math.exp(1.5))


def test_a_real_gain_has_an_interval_above_zero_and_around_the_estimate():
    """Ten points on 60 passages are seen."""
    found = compare(scores(0.3), scores(0.4, seed=2))
    assert 0 < found.low < found.difference < found.high


def test_identical_arms_differ_by_exactly_nothing():
    """The same scores give the zero interval: pairs are resampled together."""
    same = scores(0.3)
    assert interval(same, same) == (0.0, 0.0)


def test_the_interval_is_the_same_each_time():
    """The bootstrap is seeded: a report can be reproduced."""
    assert interval(scores(0.3), scores(0.4, seed=2)) == interval(scores(0.3), scores(0.4, seed=2))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50), st.integers(0, 50)), min_size=2, max_size=30))
def test_swapping_the_arms_mirrors_the_interval(rows):
    """Candidate minus baseline is minus baseline minus candidate."""
    first = [PassageScore(n, min(n, a), -1.0) for n, a, _ in rows]
    second = [PassageScore(n, min(n, b), -1.0) for n, _, b in rows]
    low, high = interval(first, second)
    mirrored = interval(second, first)
    assert (low, high) == pytest.approx((-mirrored[1], -mirrored[0]), abs=1e-12)


@pytest.mark.parametrize(
    ("domain", "general", "verdict"),
    [
        (result(0.05, 0.02, 0.08), result(-0.005, -0.015, 0.005), "pass"),
        (result(0.05, -0.01, 0.11), result(-0.005, -0.015, 0.005), "fail"),
        (result(0.02, 0.01, 0.03), result(-0.005, -0.015, 0.005), "fail"),
        (result(0.05, 0.02, 0.08), result(-0.005, -0.030, 0.020), "fail"),
        (result(0.05, 0.02, 0.08, passages=MIN_PASSAGES - 1), result(0.0, 0.0, 0.0), "invalid"),
    ],
)
def test_the_verdict_needs_the_gain_proved_and_the_loss_ruled_out(domain, general, verdict):
    """Estimate >= min_gain and low > 0 in the domain; low >= -max_general_loss in general."""
    found, reasons = judge({"domain": domain, "general": general}, Thresholds({"domain": 0.03}, 0.02), comparable=True)
    assert found == verdict
    assert reasons


def test_different_tokenizers_are_not_compared():
    """Next-token accuracies of different tokens say nothing about each other: invalid, not fail."""
    pair = (scores(0.3, tokens=40), scores(0.9, tokens=20))
    found = report("m", ARMS, 1, {"domain": pair}, Thresholds({}, None))
    assert found["verdict"] == "invalid"
    assert "tokenize differently" in found["reasons"][0]


def test_the_report_is_plain_json_with_both_arms_by_slice():
    """What is kept in the store can be read back as it was."""
    pairs = {"domain": (scores(0.3), scores(0.4, seed=2)), "general": (scores(0.3), scores(0.3, seed=3))}
    found = report("m", ARMS, 1, pairs, Thresholds({"domain": 0.03}, 0.05))
    assert json.loads(json.dumps(found)) == found
    assert (found["digest"], found["baseline_digest"]) == ("sha256:b", "sha256:a")
    assert found["verdict"] == "pass"
    assert found["slices"]["domain"]["candidate"].keys() == {"accuracy", "perplexity"}
    assert found["thresholds"] == {"min_gain": {"domain": 0.03}, "max_general_loss": 0.05}


def test_the_same_passages_are_drawn_each_time(tmp_path):
    """A seeded sample, not the head of the file: a sorted file must not bias it."""
    path = tmp_path / "domain.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {index}"}) + "\n" for index in range(500)))
    drawn = read_passages(path, 20)
    assert drawn == read_passages(path, 20)
    assert len(set(drawn)) == 20
    assert int(drawn[-1].split()[1]) > 250


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no passages"),
        ("{}\n", ":1: not a passage"),
        ('{"text": "a"}\nnot json\n', ":2: not a passage"),
        ('{"text": ""}\n', ":1: not a passage"),
    ],
)
def test_a_bad_evaluation_file_is_named_by_line(tmp_path, content, words):
    """The message says file, line and mend."""
    path = tmp_path / "bad.jsonl"
    path.write_text(content)
    with pytest.raises(Usage, match=words):
        read_passages(path, 5)


def test_a_missing_evaluation_file_is_a_usage_error(tmp_path):
    """Nothing there: say where, and what to name."""
    with pytest.raises(Usage, match="name a readable JSONL file"):
        read_passages(tmp_path / "none.jsonl", 5)
