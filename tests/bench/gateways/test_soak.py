from __future__ import annotations

from datetime import UTC, datetime

from bench.gateways.soak import STREAMS, Idle, Sample, most_streams, page

MB = 2**20


def test_the_memory_of_a_stream_is_its_share_of_the_growth():
    """What was there before is nobody's."""
    assert Idle(10, 10, 50 * MB, 60 * MB, 55 * MB).each == MB


def test_the_page_tells_the_ends_and_the_way_between():
    """So that a slow leak shows."""
    samples = [Sample(number * 10_000, 60 * MB + number * 1024) for number in range(101)]
    text = page(samples, Idle(9000, 9000, 60 * MB, 240 * MB, 200 * MB), datetime(2026, 1, 1, tzinfo=UTC))
    assert "| 0 | 60.0 |" in text
    assert "| 1,000,000 | 60.1 |" in text
    assert "9,000 streams open at once on one worker (as many as" in text


def test_no_more_streams_are_asked_for_than_the_machine_has_files():
    """Two files a stream."""
    assert 0 < most_streams() <= STREAMS
