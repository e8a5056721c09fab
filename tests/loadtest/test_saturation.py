"""loadtest/saturation.py: a closed loop against simulated engines whose capacity is known."""

import time
from collections import Counter

import gevent
import pytest

from loadtest.capacity import capacity
from loadtest.records import Client, Job, Saturation, Trace
from loadtest.saturation import ClosedLoop
from loadtest.schedule import Line
from loadtest.users import Answer, HttpAsk

LINES = tuple(Line(f"prompt number {number}", "domain") for number in range(20))


def job(url="http://127.0.0.1:1", in_flight=4, duration=1.0, **changes):
    """Four users for one second."""
    saturation = Saturation(in_flight, duration)
    return Job(url, "base", "", "", 1.0, 1.0, 12, "s", arm="candidate", saturation=saturation, **changes)


def run(the_job, ask=None):
    """Run a job's saturation; return its records."""
    records = []
    ClosedLoop(the_job, LINES, ask or HttpAsk(the_job), records.append).run()
    return records


def cost(engine):
    """What a million tokens of an engine at capacity cost at 1 USD/h."""
    the_job = job(engine.url, duration=1.5)
    found = capacity(the_job.saturation, Trace(run(the_job), Client(0.0, 1.5, 0)))
    return found.cost(1.0)["usd_per_million_tokens"]


def test_an_engine_of_fewer_slots_or_slower_tokens_costs_more_per_token(simulated):
    """Each halves what four users get from an engine of the same price an hour."""
    fast, cramped, slow = simulated(tpot_ms=8), simulated(tpot_ms=8, slots=2), simulated(tpot_ms=16, ttft_ms=40)
    base = cost(fast)
    assert cost(cramped) / base == pytest.approx(2, rel=0.3)
    assert cost(slow) / base == pytest.approx(2, rel=0.3)


def test_each_user_waits_for_its_answer_and_asks_again(simulated):
    """Never more than so many in flight, all of them all the time, and nothing left running at the end."""
    asked = []

    def ask(line, session, max_tokens):
        asked.append((session, max_tokens))
        running[session.rsplit("-", 1)[0]] += 1
        most.append(sum(running.values()))
        gevent.sleep(0.05)
        running[session.rsplit("-", 1)[0]] -= 1
        return Answer()

    running, most = Counter(), []
    began = time.perf_counter()
    run(job(duration=0.4), ask)
    assert time.perf_counter() - began < 3
    assert max(most) == 4
    assert max(Counter(session for session, _ in asked).values()) == 1
    assert [tokens for _, tokens in asked[:5]] == [3, 6, 9, 12, 12]  # the ramp is staggered


def test_requests_are_those_of_the_schedule(simulated):
    """Streamed, of the forced arm, and let go of when the time is over."""
    engine = simulated(ttft_ms=10, tpot_ms=2)
    records = run(job(engine.url, duration=0.5))
    headers, body = engine.last["headers"], engine.last["body"]
    assert (headers["x-linnet-arm"], headers["x-linnet-slice"]) == ("candidate", "domain")
    assert headers["x-linnet-session"].startswith("s-saturation-")
    assert body["stream_options"] == {"include_usage": True}
    assert [record.error for record in records] == [""] * len(records)
    assert all(record.lag_ms == 0 and record.at + record.e2e_ms / 1000 < 0.6 for record in records)
    engine.until("running", 0)


def test_an_engine_that_refuses_is_not_hammered():
    """Each user waits a moment after a failure."""
    records = run(job(duration=0.5))
    assert 8 <= len(records) <= 4 * 6
    assert all("the connection broke" in record.error for record in records)


def test_stopping_ends_it_at_once():
    """Without waiting for what is in flight; and no users are no run."""

    def hang(line, session, max_tokens):
        gevent.sleep(60)

    loop = ClosedLoop(job(duration=60.0), LINES, hang, lambda record: None)
    running = gevent.spawn(loop.run)
    gevent.sleep(0.05)
    loop.stop()
    running.join(timeout=1)
    assert running.ready()
    assert loop.sent == 4
    assert run(job(in_flight=0, duration=0.0)) == []
