"""serving/simulated/."""

import itertools
import json
import socket
import subprocess
import sys
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import InternalServerError, NotFoundError, OpenAI

from serving.simulated.behaviour import Behaviour, BehaviourError
from serving.simulated.language import Speaker, decode, encode
from serving.sse import FrameSplitter
from serving.teacher import teacher_forced
from serving.wire import AnswerReader, read_whole

MESSAGES = [{"role": "user", "content": "What is a canary?"}]


def ask(**more):
    """A chat request's body."""
    return {"model": "base", "messages": MESSAGES, "max_tokens": 8, **more}


def read_stream(url, body):
    """Read a stream; return its reader and when (seconds) each content frame came."""
    reader, times, splitter, start = AnswerReader(1000), [], FrameSplitter(), time.perf_counter()
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=10) as answer:
        for data in answer.iter_raw():
            for frame in splitter.feed(data):
                content = reader.frame(frame) == "content"
                times += [time.perf_counter() - start] * content
    return reader, times


def connected(engine, body):
    """Send a chat request on a socket of its own; leaving the block hangs up."""
    request = json.dumps(body).encode()
    client = socket.create_connection(("127.0.0.1", int(engine.url.rpartition(":")[2])))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    client.sendall(head % len(request) + request)
    return client


STREAM = {"stream": True, "stream_options": {"include_usage": True}}


@given(st.text())
def test_text_survives_its_tokens(text):
    """Taken apart and put together again; surrogates, which JSON may carry, become question marks."""
    assert decode(encode(text)) == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("token", [-1, 0, 1, 2, 255, 2**40])
def test_foreign_token_ids_are_refused(token):
    """Only what encode gives can be decoded."""
    with pytest.raises(ValueError, match="token id"):
        decode([token])


def test_more_accurate_engines_agree_more():
    """Accuracy shows in the words and in the ranks, so both shadow scorers can see it."""

    def said(accuracy, seed):
        return list(itertools.islice(Speaker(accuracy, seed).words("a prompt"), 400))

    def shared(accuracy):
        return sum(a == b for a, b in zip(said(accuracy, 1), said(accuracy, 2), strict=True)) / 400

    assert shared(0.2) < shared(0.6) < shared(1.0) == 1.0
    ranks = [rank for _, rank in Speaker(0.7, 1).scores(encode("any text at all " * 100))]
    assert ranks.count(1) / len(ranks) == pytest.approx(0.7, abs=0.1)


@pytest.mark.parametrize(
    "change", [{"speed": 1}, {"error_rate": 2}, {"stall": 1}, {"ttft_ms": "5"}, {"ttft_ms": -1}, {"accuracy": True}]
)
def test_impossible_behaviour_is_refused(change):
    """A test that misspells its fault must not pass."""
    with pytest.raises(BehaviourError):
        Behaviour().changed(change)


def test_openai_python_streams_and_reads_whole_answers(simulated):
    """The client most users have."""
    engine = simulated(ttft_ms=2, tpot_ms=1)
    with OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        whole = client.chat.completions.create(**ask())
        stream = list(client.chat.completions.create(**ask(**STREAM)))
        text = client.completions.create(model="base", prompt="Once", max_tokens=4)
        assert [model.id for model in client.models.list()] == ["base"]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert said == whole.choices[0].message.content
    assert (whole.usage.completion_tokens, whole.choices[0].finish_reason, whole.model) == (8, "length", "base")
    assert (stream[-1].choices, stream[-1].usage.completion_tokens) == ([], 8)
    assert len(text.choices[0].text.split()) == 4


def test_openai_python_sees_errors_as_errors(simulated):
    """404 for another model, 500 when told to fail."""
    engine = simulated(ttft_ms=1, tpot_ms=0)
    with OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(NotFoundError, match="does not exist"):
            client.chat.completions.create(**ask(model="other"))
        engine.change(error_rate=1)
        with pytest.raises(InternalServerError, match="told to fail"):
            client.chat.completions.create(**ask())


def test_tokens_come_when_they_are_due(simulated):
    """50 ms to the first, 10 ms between them, whatever the machine does."""
    _, times = read_stream(simulated(ttft_ms=50, tpot_ms=10).url, ask(**STREAM))
    assert times[0] >= 0.05
    assert times[-1] >= 0.05 + 7 * 0.01
    assert times[-1] < 1.0


def test_a_good_stream_is_a_good_answer(simulated):
    """Law 6 holds for both forms, and their texts are one."""
    engine = simulated(ttft_ms=1, tpot_ms=0)
    reader, _ = read_stream(engine.url, ask(**STREAM))
    answer = read_whole(httpx.post(f"{engine.url}/v1/chat/completions", json=ask()).content, 1000)
    assert reader.complete
    assert answer.complete
    assert reader.text == answer.text


def test_without_include_usage_there_is_none(simulated):
    """As with vLLM, usage must be asked for."""
    reader, _ = read_stream(simulated(ttft_ms=1, tpot_ms=0).url, ask(stream=True))
    assert (reader.done, reader.usage, reader.complete) == (True, None, False)


@pytest.mark.parametrize("body", [{**ask(), "max_tokens": 5000}, {**ask(**STREAM), "max_tokens": 5000}])
def test_a_client_that_goes_away_stops_the_work(simulated, body):
    """Streamed or not: the engine runs nothing for nobody."""
    engine = simulated(ttft_ms=5, tpot_ms=5)
    with connected(engine, {**body, "ignore_eos": True}):
        engine.until("running", 1)
    engine.until("aborted", 1)
    assert engine.counts["running"] == 0


def test_an_error_in_the_middle_is_an_event_in_a_200(simulated):
    """What vLLM does when the status is out already."""
    reader, times = read_stream(simulated(ttft_ms=1, tpot_ms=1, midstream_error_rate=1).url, ask(**STREAM))
    assert (len(times), reader.error, reader.done) == (1, "the simulated engine was told to fail", True)


@pytest.mark.parametrize("more", [{}, STREAM])
def test_a_cut_answer_breaks_the_connection(simulated, more):
    """The client sees a protocol error, not a short answer."""
    engine = simulated(ttft_ms=1, tpot_ms=1, cut_rate=1)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(f"{engine.url}/v1/chat/completions", json=ask(**more))


def test_a_stalled_engine_still_says_it_is_healthy(simulated):
    """The lie that a supervisor must see through; and it goes on where it was."""
    engine = simulated(ttft_ms=1, tpot_ms=1, stall=True)
    with httpx.Client() as client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{engine.url}/v1/chat/completions", json=ask(), timeout=0.2)
    assert httpx.get(f"{engine.url}/health").status_code == 200
    engine.change(stall=False)
    assert httpx.post(f"{engine.url}/v1/chat/completions", json=ask()).status_code == 200


def test_requests_beyond_the_slots_wait(simulated):
    """The queue shows in the metrics, by vLLM's names."""
    engine = simulated(ttft_ms=1, tpot_ms=1, slots=1, stall=True)
    with connected(engine, ask()), connected(engine, ask()):
        engine.until("waiting", 1)
        metrics = httpx.get(f"{engine.url}/metrics").text
    assert 'vllm:num_requests_running{engine="0",model_name="base"} 1\n' in metrics
    assert 'vllm:num_requests_waiting{engine="0",model_name="base"} 1\n' in metrics
    engine.until("aborted", 2)


def test_teacher_forcing_scores_the_prompts_tokens(simulated):
    """One score for each token after the first, with the accuracy asked for."""
    engine = simulated(ttft_ms=1, tpot_ms=0, accuracy=0.5)
    body = {
        "model": "base",
        "prompt": "some words to score " * 20,
        "max_tokens": 1,
        "prompt_logprobs": 0,
        "return_token_ids": True,
    }
    scores = teacher_forced(httpx.post(f"{engine.url}/v1/completions", json=body).json())
    assert len(scores) == len(encode(body["prompt"])) - 1
    assert sum(score.rank == 1 for score in scores) / len(scores) == pytest.approx(0.5, abs=0.2)
    refused = httpx.post(f"{engine.url}/v1/completions", json={**body, "stream": True})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prompt_logprobs")


def test_tokenize_and_detokenize_are_inverse(simulated):
    """For texts, and for a chat as its template puts it."""
    url = simulated().url
    tokens = httpx.post(f"{url}/tokenize", json={"prompt": "héllo wörld"}).json()["tokens"]
    assert httpx.post(f"{url}/detokenize", json={"tokens": tokens}).json() == {"prompt": "héllo wörld"}
    assert httpx.post(f"{url}/tokenize", json={"messages": MESSAGES}).json()["count"] > 4
    assert httpx.post(f"{url}/detokenize", json={"tokens": ["x"]}).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"{}",
        b'{"messages": []}',
        b'{"messages": [1]}',
        b'{"messages": [{"content": "x"}], "max_tokens": 0}',
        b'{"messages": [{"content": "x"}], "max_tokens": 99999}',
    ],
)
def test_bad_requests_are_400_in_openais_shape(simulated, body):
    """The request is at fault and says how."""
    answer = httpx.post(f"{simulated().url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "BadRequestError"


def test_a_prompt_seen_before_is_cached(simulated):
    """The cached share is reported as vLLM reports it."""
    url = simulated(ttft_ms=1, tpot_ms=0).url
    body = {"model": "base", "prompt": "a prompt of some length " * 10, "max_tokens": 1}
    first, second = (httpx.post(f"{url}/v1/completions", json=body).json()["usage"] for _ in range(2))
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert 0 < second["prompt_tokens_details"]["cached_tokens"] < second["prompt_tokens"]


def test_the_request_id_goes_to_the_engine_and_back(simulated):
    """One id follows a request through the house."""
    engine = simulated(ttft_ms=1, tpot_ms=0)
    answer = httpx.post(f"{engine.url}/v1/chat/completions", json=ask(), headers={"X-Request-Id": "r-1"})
    assert answer.headers["x-request-id"] == "r-1"
    assert engine.last["headers"]["x-request-id"] == "r-1"
    assert engine.last["body"] == ask()


def test_an_engine_in_a_thread_can_die(simulated):
    """Its connections break and nothing listens any more; the test lives on."""
    engine = simulated(ttft_ms=1, tpot_ms=1, die_after=1)
    assert httpx.post(f"{engine.url}/v1/chat/completions", json=ask()).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{engine.url}/v1/chat/completions", json=ask(**STREAM))
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{engine.url}/health")


def test_an_engine_as_a_process_dies_when_told(simulated_process):
    """Hard, in the middle, without a word."""
    engine = simulated_process(ttft_ms=1)
    assert httpx.get(f"{engine.url}/v1/models").json()["data"][0]["id"] == "base"
    with pytest.raises(httpx.TransportError):
        httpx.post(f"{engine.url}/simulated", json={"die": True})
    assert engine.process.wait(5) == 1


def test_a_taken_port_and_a_bad_rate_are_one_line(simulated):
    """What, where, the mend; never a traceback."""
    port = simulated().url.rpartition(":")[2]
    for options, code, words in (
        (["--port", port], 1, "pass another --port"),
        (["--port=0", "--error-rate=7"], 2, "out of range"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "serving.simulated", "--model=base", *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.count("\n")) == (code, 1)
        assert words in done.stderr
