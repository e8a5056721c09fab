"""gateway/relay/trial.py, told by an engine's bytes as a connection tells it; through a worker: test_exchange.py."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from canary.core.arms import Arm, Endpoint, Split
from canary.core.outcome import Outcome, Result
from gateway.door.ask import Ask, read
from gateway.door.client import Client
from gateway.errors import LateError, LostError, UpstreamError
from gateway.pool.admission import Gate
from gateway.pool.balance import Rings
from gateway.pool.options import PoolOptions
from gateway.pool.retry import RetryBudget
from gateway.pool.seats import Pool
from gateway.pool.sending import Carrier, Errand, Sending
from gateway.pool.sink import Headers, Patience
from gateway.relay.trial import Trial
from gateway.routes.table import PROXIED, Route
from gateway.split.choice import Choice
from serving.sse import FrameSplitter

RECORDED = Path(__file__).parent / "recorded"
ALL = ("refusal", "malformed", "repetition")
STREAM: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
WHOLE: Headers = [(b"content-type", b"application/json")]
ENDPOINT = Endpoint("e", "served/base-model", ("http://127.0.0.1:1",))
PATHS = {"chat": b"/v1/chat/completions", "completion": b"/v1/completions", "responses": b"/v1/responses"}


@dataclass
class Wire:
    """The client's connection: what went out on it."""

    out: bytes = b""

    def write(self, data: bytes) -> None:
        """Keep the bytes."""
        self.out += data

    def dated(self) -> bytes:
        """No date."""
        return b""

    def finished(self) -> None:
        """No more."""


@dataclass
class Told:
    """Whose trial it is: what it was told."""

    ask: Ask
    route: Route
    wire: Wire
    head: bytes = b""
    ends: list[Any] = field(default_factory=list)

    def heard(self, at: float) -> None:
        """The first byte."""

    def done(self, trial: Trial) -> None:
        """The answer is out: to the client, too."""
        assert self.wire.out.endswith((b"0\r\n\r\n", b"}"))
        self.ends.append(trial.outcome(trial.result))

    def failed(self, trial: Trial, error: UpstreamError) -> None:
        """No byte went out."""
        self.ends.append(error)


def a_pool() -> Pool:
    """A pool that nobody is sent to."""
    options = PoolOptions()
    gate = Gate(options, lambda _, __: pytest.fail("nobody waits"), lambda: 0.0, lambda: 0.5)
    return Pool("public", options, gate, RetryBudget(options, 0.0), rings=Rings(), chance=lambda: 0.5)


def trial(
    kind: str = "chat", names: tuple[str, ...] = ALL, *, evidence: bool = True, **members: Any
) -> tuple[Trial, Told]:
    """A trial that has been sent, and what is told of it."""
    route = PROXIED[PATHS[kind]]
    ask = read(json.dumps({"model": "public", "stream": True, **members}).encode())
    wire = Wire()
    told = Told(ask, route, wire)
    choice = Choice(Split("public", 1, ENDPOINT, examined=names), Arm.BASELINE, ENDPOINT, "", "id", False, evidence)
    client = Client(wire, "id", chunked=True, keep_alive=True)
    one = Trial(told, client, choice, a_pool(), began=100.0)
    one._most = 1 << 20
    return one, told


def stream(name: str) -> list[bytes]:
    """The frames of a recording."""
    return FrameSplitter().feed((RECORDED / f"{name}.sse").read_bytes())


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    """One chunk of a chat answer."""
    value = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def called(piece: str | None, **function: str) -> bytes:
    """A piece of a tool call, as vLLM streams it."""
    arguments = {} if piece is None else {"arguments": piece}
    return chunk(tool_calls=[{"index": 0, "function": {**function, **arguments}}])


USAGE = {"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 6}}
END = [b'data: {"choices":[],"usage":%s}\n\n' % json.dumps(USAGE).encode(), b"data: [DONE]\n\n"]


def streamed(frames: list[bytes], **more: Any) -> Outcome:
    """What a stream leaves behind; a frame every half a second, the first after two."""
    one, told = trial(**more)
    one.head(200, STREAM, 101.0)
    for number, frame in enumerate(frames):
        one.body(frame, 102.0 + number / 2)
    one.ended(102.0 + len(frames) / 2)
    (outcome,) = told.ends
    assert isinstance(outcome, Outcome)
    return outcome


def whole(message: dict[str, Any], finish: str = "stop", **more: Any) -> Outcome:
    """What a whole answer leaves behind."""
    one, told = trial(**more)
    one.head(200, WHOLE, 101.0)
    choices = [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}]
    one.body(json.dumps({"choices": choices, "usage": USAGE}).encode(), 102.0)
    one.ended(102.0)
    (outcome,) = told.ends
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.parametrize("names", [(), ALL])
@pytest.mark.parametrize("name", ["chat", "completion", "responses"])
def test_a_recorded_answer_has_a_stall_and_no_flaw(name: str, names: tuple[str, ...]):
    """Every piece is timed, whether it is parsed, compared or kept."""
    outcome = streamed(stream(name), kind=name, names=names)
    assert (outcome.result, outcome.flaws, outcome.stall) == (Result.OK, (), 0.5)
    assert outcome.completion_tokens in {8, 16}


def test_the_longest_wait_is_found_among_usual_pieces():
    """A template times them as the parser does."""
    one, told = trial(names=())
    one.head(200, STREAM, 100.0)
    waits = [2.0, 0.1, 0.1, 3.5, 0.1, 0.1]
    for place, frame in enumerate([*[chunk(content=f"word {n}") for n in range(6)], chunk("stop"), *END]):
        one.body(frame, 100.0 + sum(waits[: place + 1]))
    one.ended(107.0)
    assert (told.ends[0].ttft, told.ends[0].stall) == (2.0, pytest.approx(3.5))
    assert (told.ends[0].prompt_tokens, told.ends[0].cached_tokens) == (9, 6)


@pytest.mark.parametrize(
    ("error", "result"), [(LateError("late"), Result.TIMEOUT), (LostError("lost", heard=True), Result.ERROR)]
)
def test_the_wait_until_a_limit_cuts_counts(error: UpstreamError, result: Result):
    """Whoever waited in vain waited longest; an engine that died was not waited for."""
    one, told = trial()
    one.head(200, STREAM, 100.0)
    one.body(chunk(content="a"), 101.0)
    one.body(chunk(content="b"), 101.5)
    one.failed(error)
    (outcome,) = told.ends
    assert outcome.result is result
    assert outcome.flaws == ()
    assert outcome.stall > 1000 or (result is Result.ERROR and outcome.stall == 0.5)  # it is long after 101.5


def test_a_client_that_takes_its_time_is_no_stall():
    """Neither the wait for it, nor its being cut off."""
    one, told = trial()
    one.head(200, STREAM, 100.0)
    one.body(chunk(content="a"), 101.0)
    one.body(chunk(content="b"), 101.5)
    one.pause()
    one.failed(LateError("in all"))
    assert told.ends[0].stall == 0.5


@pytest.mark.parametrize(
    ("frames", "members", "flaws"),
    [
        ([chunk(content="I'm sorry, "), chunk(content="but I can't help with that."), chunk("stop")], {}, ("refusal",)),
        ([chunk(refusal="No."), chunk("stop")], {"response_format": {"type": "json_object"}}, ("refusal",)),
        ([chunk(content='{"a"'), chunk(content=": 1}"), chunk("stop")], {"guided_json": {}}, ()),
        ([chunk(content='{"a"'), chunk("length")], {"guided_json": {}}, ("malformed",)),
        ([chunk(content='{"a"'), chunk("length")], {}, ()),
        ([called("", name="f"), called('{"a"'), called(": 1}"), chunk("tool_calls")], {}, ()),
        ([called("", name="f"), called('{"a"'), chunk("tool_calls")], {}, ("malformed",)),
        ([*[chunk(content="and so on, ") for _ in range(60)], chunk("length")], {}, ("repetition",)),
        ([chunk(reasoning="I can't help."), chunk(content="Yes."), chunk("stop")], {}, ()),
    ],
)
def test_flaws_of_a_stream_are_found(frames: list[bytes], members: dict[str, Any], flaws: tuple[str, ...]):
    """In its words and its calls; only in a good answer that is evidence, and only if the split says so."""
    assert streamed([*frames, *END], **members).flaws == flaws
    assert streamed([*frames, *END], names=ALL[:2], **members).flaws == tuple(set(flaws) & set(ALL[:2]))
    assert streamed([*frames, *END], names=(), **members).flaws == ()
    assert streamed([*frames, *END], evidence=False, **members).flaws == ()
    broken = streamed(frames, **members)
    assert (broken.result, broken.flaws) == (Result.ERROR, ())


@pytest.mark.parametrize(
    ("message", "members", "flaws"),
    [
        ({"content": "Yes."}, {}, ()),
        ({"content": "I cannot assist with that."}, {}, ("refusal",)),
        ({"content": None, "refusal": "No."}, {}, ("refusal",)),
        ({"content": "Yes."}, {"response_format": {"type": "json_object"}}, ("malformed",)),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, {}, ()),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, {}, ("malformed",)),
        ({"content": "la " * 400}, {}, ("repetition",)),
    ],
)
def test_flaws_of_a_whole_answer_are_found(message: dict[str, Any], members: dict[str, Any], flaws: tuple[str, ...]):
    """The same rules, and no stall."""
    outcome = whole(message, stream=False, **members)
    assert (outcome.result, outcome.flaws, outcome.stall) == (Result.OK, flaws, None)
    assert outcome.cached_tokens == 6
    assert whole(message, names=(), stream=False, **members).flaws == ()


def test_it_is_known_which_replica_had_the_request():
    """As its sending says, -1 if nothing was sent."""
    one, _ = trial()
    assert one.outcome(Result.CANCELLED).replica == -1
    errand = Errand(b"/", b"", b"", Patience(1, 1, 1))
    one._sending = Sending(cast(Carrier, None), a_pool(), errand, one)
    one._sending.replica = 3
    assert one.outcome(Result.CANCELLED).replica == 3
