"""loadtest/users.py: measured against a simulated engine whose times are known."""

import json
import time
from statistics import median

import gevent
import pytest

from loadtest.errors import LoadTestError
from loadtest.records import Job
from loadtest.schedule import Line, Pattern
from loadtest.users import Answer, HttpAsk, OpenLoop
from serving.wire import DONE

LINES = tuple(Line(f"prompt number {number}", "domain") for number in range(20))


def job(url="http://127.0.0.1:1", **changes):
    """A constant load of 10/s for one second."""
    plain = {"rate": 10.0, "duration": 1.0, "max_tokens": 12, "session": "s", "pattern": Pattern.CONSTANT, "drain": 0.2}
    return Job(**{"gateway": url, "model": "base", "workload": "", "out": "", **plain, **changes})


def run(the_job, ask=None):
    """Run a job; return its records."""
    records = []
    OpenLoop(the_job, LINES, ask or HttpAsk(the_job), records.append).run()
    return sorted(records, key=lambda record: record.at)


def test_times_are_those_of_a_paced_engine(simulated):
    """200 ms to the first token and 20 ms between them, though the whole answer is a few small chunks."""
    records = run(job(simulated(ttft_ms=200, tpot_ms=20).url))
    assert [record.error for record in records] == [""] * 10
    assert 200 <= median(record.ttft_ms for record in records) < 250
    assert median(record.tpot_ms for record in records) == pytest.approx(20, rel=0.2)
    assert median(record.e2e_ms for record in records) == pytest.approx(200 + 11 * 20, rel=0.15)
    assert {record.tokens for record in records} == {12}


def test_a_slow_engine_gets_no_rest(simulated):
    """Open loop: the tenth request goes out on time though the first is not answered."""
    engine = simulated(ttft_ms=3000, tpot_ms=0)
    records = run(job(engine.url, timeout=1.5))
    assert engine.counts["started"] == 10
    assert max(record.lag_ms for record in records) < 300
    assert {record.error for record in records} == {"no end after 1.5 s"}


def test_requests_carry_what_the_gateway_reads(simulated):
    """Arm, session, slice, and a streamed chat request with usage."""
    engine = simulated(ttft_ms=1, tpot_ms=0)
    the_job = job(engine.url, arm="candidate")
    answer = HttpAsk(the_job, key="k-1")(Line("hello", "domain"), "s-7", 12)
    headers, body = engine.last["headers"], engine.last["body"]
    assert answer.error("candidate") == ""
    assert (headers["x-linnet-arm"], headers["x-linnet-session"], headers["x-linnet-slice"]) == (
        "candidate",
        "s-7",
        "domain",
    )
    assert headers["authorization"] == "Bearer k-1"
    assert (body["messages"], body["max_tokens"]) == ([{"role": "user", "content": "hello"}], 12)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


def test_unforced_users_send_no_arm_and_sessions_of_their_own(simulated):
    """As any user would."""
    engine = simulated(ttft_ms=1, tpot_ms=0)
    run(job(engine.url, rate=2.0))
    assert "x-linnet-arm" not in engine.last["headers"]
    assert engine.last["headers"]["x-linnet-session"] == "s-1"


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        ({"error_rate": 1}, "status 500: the simulated engine was told to fail"),
        ({"midstream_error_rate": 1}, "the simulated engine was told to fail"),
        ({"cut_rate": 1}, "the connection ended in the middle"),
        ({"stall": True}, "no end after 0.5 s"),
    ],
)
def test_every_way_to_fail_is_told(simulated, behaviour, error):
    """A failure is a record with its reason, never an exception."""
    records = run(job(simulated(ttft_ms=1, tpot_ms=1, **behaviour).url, rate=2.0, timeout=0.5))
    assert [record.ok for record in records] == [False, False]
    assert all(error in record.error for record in records)


def test_nobody_listening_is_a_failure_too():
    """Port 1 answers nobody."""
    assert all("the connection broke" in record.error for record in run(job(rate=2.0)))


def answered(body, head=b"HTTP/1.1 200 OK\r\nX-Linnet-Arm: baseline\r\n"):
    """An answer read from bytes, one at a time."""
    answer = Answer()
    data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    for number in range(len(data)):
        answer.feed(data[number : number + 1], float(number))
    return answer


def test_another_arms_answer_is_no_answer():
    """When the gateway fails over to the baseline, the candidate has failed."""
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    body = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in (chunk, usage)) + DONE
    assert answered(body).error("candidate") == "baseline answered, not candidate"
    assert answered(body).error("baseline") == ""
    assert answered(body).error("") == ""
    assert answered(body[: -len(DONE)]).error("") == "the stream ended without finish_reason, usage or [DONE]"


def test_lateness_of_the_client_shows_and_counts():
    """A client that hangs for 300 ms sends late, says so, and measures from when the request was due."""
    asked = []

    def hang(line, session, max_tokens):
        asked.append(session)
        if len(asked) == 3:
            time.sleep(0.3)  # blocks every greenlet, as a client at its limit does
        answer = Answer()
        answer.first = answer.end = time.perf_counter()
        return answer

    records = run(job(), hang)
    assert records[0].lag_ms < 100
    assert records[3].lag_ms > 100
    assert records[3].ttft_ms >= records[3].lag_ms


def test_beyond_the_in_flight_limit_nothing_is_sent():
    """And what was not sent is in the records."""

    def slow(line, session, max_tokens):
        gevent.sleep(5)

    records = []
    loop = OpenLoop(job(in_flight=2, timeout=0.1), LINES, slow, records.append)
    loop.run()
    assert (loop.sent, [record.sent for record in records]) == (2, [False] * 8)
    loop.stop()


def test_stopping_lets_answers_finish():
    """In flight when the stop comes: answered, and nothing new goes out."""
    the_job, records = job(duration=None, drain=2.0), []

    def ask(line, session, max_tokens):
        gevent.sleep(0.2)
        return Answer()

    loop = OpenLoop(the_job, LINES, ask, records.append)
    running = gevent.spawn(loop.run)
    gevent.sleep(0.45)
    loop.stop()
    running.join(timeout=1)
    assert running.ready()
    assert len(records) == loop.sent > 0


def test_only_http_is_spoken():
    """One line with the mend."""
    with pytest.raises(LoadTestError, match="http://HOST:PORT"):
        HttpAsk(job("https://example.org"))
