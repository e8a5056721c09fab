"""Recorded traffic: what is read from an access log, and how it is told again."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from canary.trials.recording import RESULTS, RecordingError, read
from tests.canary.recordings import ENTRY, entries, lines


def test_a_line_of_the_gateway_is_read_as_it_was():
    """When it arrived, how it ended, how long it took and what it cost; a whole answer has no latencies."""
    whole = replace(ENTRY, stream=False, ttft_ms=None, slice="law", finish_reason="length", unix_ms=ENTRY.unix_ms + 99)
    found = read(lines([ENTRY] * 99 + [whole]), "m")
    first, last = found.requests[0], found.requests[-1]
    assert [float(first[word]) for word in ("at", "e2e", "ttft", "cost")] == pytest.approx([0.0, 1.0, 0.1, 1e-4])
    assert float(first["tpot"]) == pytest.approx(0.9 / 9)
    assert (first["prompt"], first["completion"], RESULTS[first["result"]]) == (50, 10, "ok")
    assert (found.slices[last["slice"]], found.reasons[last["reason"]]) == ("law", "length")
    assert float(last["at"]) == pytest.approx(0.099, abs=1e-3)
    assert math.isnan(last["ttft"])
    assert math.isnan(last["tpot"])
    assert found.parts() == {"": 0.99, "law": 0.01}
    assert (found.count("ttft"), found.count("cost")) == (99, 100)


def test_only_what_chance_gave_the_baseline_counts():
    """The candidate's, another model's, a client's fault, a failover and the tokenizer's are left out, and told."""
    others = {
        "of the candidate": replace(ENTRY, arm="candidate"),
        "of other models": replace(ENTRY, model="n"),
        "client error": replace(ENTRY, result="client_error"),
        "cancelled": replace(ENTRY, result="cancelled"),
        "refused": replace(ENTRY, result="refused", arm=""),
        "answered in the candidate's place": replace(ENTRY, failed_over=True),
        "to the tokenizer": replace(ENTRY, path="/tokenize"),
    }
    found = read(lines(entries(100) + list(others.values())), "m")
    assert len(found.requests) == 100
    assert found.left == dict.fromkeys(others, 1)


@pytest.mark.parametrize(
    "damaged",
    [
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        b"9" * 10_000,
        b'{"unix_ms":1}',
        lines([ENTRY])[0][:80],
        lines([ENTRY])[0].replace(b"1000.000", b"NaN"),
        lines([ENTRY])[0].replace(b"1000.000", b"-1"),
        lines([ENTRY])[0].replace(b"1000.000", b"1e999"),
        lines([ENTRY])[0].replace(b"100.000", b"1e7"),  # the first token after the last
        lines([ENTRY])[0].replace(b'"ok"', b'"fine"'),
        lines([ENTRY])[0].replace(b'"ok"', b"[]"),
        lines([ENTRY])[0].replace(b'"m"', b"{}"),
        lines([ENTRY])[0].replace(b'"slice":""', b'"slice":[]'),
        lines([ENTRY])[0].replace(b'"completion_tokens":10', b'"completion_tokens":true'),
        lines([ENTRY])[0].replace(b'"completion_tokens":10', b'"completion_tokens":1e400'),
    ],
)
def test_a_damaged_line_is_counted_and_no_more(damaged):
    """Whatever is wrong with it; an empty line is none."""
    found = read([damaged, b"\n", *lines(entries(100))], "m")
    assert (len(found.requests), found.left) == (100, {"damaged": 1})


def test_too_few_requests_are_said_with_their_number():
    """How many there are of how many, and what the others were."""
    with pytest.raises(RecordingError, match=r"99 requests of m .*\(2 damaged, 1 of other models\); 100 .* longer"):
        read([b"x", b"y", *lines([*entries(99), replace(ENTRY, model="n")])], "m")
    with pytest.raises(RecordingError, match="0 requests of m that"):
        read([], "m")
    with pytest.raises(RecordingError, match="--model"):
        read(lines(entries(100)), "n")


def test_bursts_and_quiet_hours_are_kept():
    """Arrivals come in their real seconds, again and again without a gap or a request twice."""
    busy, quiet = entries(200, gap=0.01), entries(100, 2, gap=1.0)
    found = read(lines(busy + [replace(one, unix_ms=one.unix_ms + 600_000) for one in quiet]), "m")
    assert 650 < found.seconds < 720
    assert len(found.arrivals(0.0, 10.0)) == pytest.approx(200, abs=1)
    assert len(found.arrivals(10.0, 590.0)) == 0
    assert len(found.arrivals(123.0, 123.0 + 3 * found.seconds)) == 900
    around = found.arrivals(found.seconds - 5, found.seconds + 5)
    assert (np.diff(around) >= 0).all()
    assert around[0] >= found.seconds - 5
    assert around[-1] < found.seconds + 5


def test_answers_come_from_around_the_same_minute():
    """So that what was slow then is slow for both arms."""
    first, second = entries(200, gap=0.01), entries(200, 2, gap=0.01)
    later = [replace(one, unix_ms=one.unix_ms + 300_000, slice="late") for one in second]
    found = read(lines(first + later), "m")
    times = found.arrivals(0.0, found.seconds)
    near = found.near(times, np.random.default_rng(1).random(len(times)))
    assert {found.slices[code] for code in near["slice"][times < 100]} == {""}
    assert {found.slices[code] for code in near["slice"][times > 100]} == {"late"}
    assert len(np.unique(near["e2e"])) > 200


def test_what_is_usual_is_measured():
    """Rates of good answers and quantiles; what no line has is lacking."""
    usual = read(lines(entries(5000)), "m").usual
    assert usual.error == pytest.approx(0.02, abs=0.01)
    assert usual.ttft_p95 == pytest.approx(0.1 * math.exp(1.645 * 0.5), rel=0.1)
    assert (usual.empty, usual.truncated, usual.lacks) == (0, 0, frozenset())
    bare = [replace(one, ttft_ms=None, cost_usd=None, finish_reason="length") for one in entries(100)]
    usual = read(lines(bare), "m").usual
    assert usual.lacks == {"ttft", "tpot", "cost"}
    assert usual.truncated == 1
