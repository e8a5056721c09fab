"""serving/simulated/: the routes beside chat and completions, adapters, and the prefix cache."""

import json

import httpx
import pytest
from openai import APIError, NotFoundError, OpenAI

from serving.plain import TranscriptReader, read_plain, read_transcript
from serving.responses import ResponsesReader, read_response
from serving.simulated.app import SERVED
from serving.sse import FrameSplitter

FAST = {"ttft_ms": 1, "tpot_ms": 0}
AUDIO = {"file": ("a.wav", b"RIFF\x00\xff\r\n", "audio/wav")}
TRANSCRIBE = "/v1/audio/transcriptions"


@pytest.fixture
def engine(simulated):
    """An engine that serves everything."""
    return simulated(serves=SERVED, adapters=("tuned",), **FAST)


@pytest.fixture
def client(engine):
    """The client most users have."""
    with OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_openai_python_streams_a_response(client):
    """Every event in its order, numbered, and the same words as in one body."""
    asked = {"model": "base", "input": "What is a canary?", "max_output_tokens": 8}
    events = list(client.responses.create(**asked, stream=True))
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    whole = client.responses.create(**asked)
    assert said == whole.output_text == events[-1].response.output_text
    assert (whole.status, whole.incomplete_details.reason, whole.usage.output_tokens) == (
        "incomplete",
        "max_output_tokens",
        8,
    )


def test_a_response_is_read_as_vllms_are(engine):
    """Both forms are good answers by the rule of the gateway."""
    body = {"model": "tuned", "input": [{"role": "user", "content": "x"}], "instructions": "be brief"}
    assert read_response(httpx.post(f"{engine.url}/v1/responses", json=body).content).complete
    reader = ResponsesReader(1000)
    raw = httpx.post(f"{engine.url}/v1/responses", json={**body, "stream": True}).content
    for frame in FrameSplitter().feed(raw):
        reader.frame(frame)
    assert (reader.complete, reader.finish_reason) == (True, "stop")
    assert raw.count(b'"model":"tuned"') == 3


def test_a_response_that_fails_says_so(engine, client):
    """In the event that the SDK knows."""
    engine.change(midstream_error_rate=1)
    *_, last = client.responses.create(model="base", input="x", stream=True)
    assert (last.type, last.message) == ("error", "the simulated engine was told to fail")


def test_openai_python_reads_embeddings(client):
    """Packed, as the SDK asks for them, and plain: the same numbers, the same for the same text."""
    packed = client.embeddings.create(model="base", input=["a", "b", "a"])
    plain = client.embeddings.create(model="base", input=["a", "b", "a"], encoding_format="float")
    assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)
    assert plain.data[0].embedding == plain.data[2].embedding != plain.data[1].embedding
    assert (plain.model, plain.usage.prompt_tokens) == ("base", 3)


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_documents_are_put_in_order(engine, path):
    """The best first, no more than asked for."""
    body = {"model": "base", "query": "q", "documents": ["a", "b", "c"], "top_n": 2}
    answer = httpx.post(engine.url + path, json=body)
    first, second = answer.json()["results"]
    assert first["relevance_score"] >= second["relevance_score"]
    assert first["document"]["text"] == body["documents"][first["index"]]
    assert read_plain(answer.content).usage.prompt_tokens > 0


@pytest.mark.parametrize(
    ("body", "count"),
    [
        ({"queries": "q", "documents": ["a", "b"]}, 2),
        ({"text_1": ["q", "r"], "text_2": ["a", "b"]}, 2),
        ({"text_1": ["q", "r", "s"], "text_2": ["a", "b"]}, 0),
        ({"text_1": 7, "text_2": "a"}, 0),
    ],
)
def test_pairs_are_scored(engine, body, count):
    """One query for all or one for each; anything else is the request's fault."""
    for path in ("/score", "/v1/score"):
        answer = httpx.post(engine.url + path, json=body)
        assert answer.status_code == (200 if count else 400)
        assert len(answer.json().get("data", [])) == count


def test_openai_python_transcribes(client):
    """JSON, text, and chunks as vLLM streams them."""
    whole = client.audio.transcriptions.create(model="base", file=AUDIO["file"])
    text = client.audio.transcriptions.create(model="base", file=AUDIO["file"], response_format="text")
    verbose = client.audio.transcriptions.create(model="base", file=AUDIO["file"], response_format="verbose_json")
    assert whole.text == text == verbose.text != ""
    chunks = client.audio.transcriptions.create(model="base", file=AUDIO["file"], stream=True)
    assert "".join(chunk.choices[0]["delta"]["content"] for chunk in chunks) == whole.text


def test_a_transcript_is_read_as_vllms_are(engine):
    """Usage only for those who ask by the form's own field."""
    asked = {"model": "tuned", "stream": "true", "stream_include_usage": "true"}
    reader = TranscriptReader(1000)
    raw = httpx.post(engine.url + TRANSCRIBE, data=asked, files=AUDIO).content
    for frame in FrameSplitter().feed(raw):
        reader.frame(frame)
    answer = httpx.post(engine.url + TRANSCRIBE, data={"model": "tuned"}, files=AUDIO)
    assert (reader.complete, reader.usage is not None) == (True, True)
    assert read_transcript(answer.content).complete
    assert reader.text == answer.json()["text"]
    assert engine.last["body"] == {"model": "tuned"}


@pytest.mark.parametrize(
    ("data", "files", "status"),
    [({"model": "base"}, None, 400), ({"model": "nobody"}, AUDIO, 404), ({"response_format": "srt"}, AUDIO, 400)],
)
def test_bad_uploads_are_refused(engine, data, files, status):
    """No file, no such model, no such format."""
    assert httpx.post(engine.url + TRANSCRIBE, data=data, files=files).status_code == status


@pytest.mark.parametrize("path", ["/v1/embeddings", "/rerank", "/score", TRANSCRIBE])
def test_what_an_engine_does_not_serve_is_404(simulated, path):
    """As vLLM answers for a model that only generates."""
    answer = httpx.post(simulated(**FAST).url + path, json={"model": "base", "input": "x"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(("behaviour", "raised"), [({"error_rate": 1}, APIError), ({"cut_rate": 1}, APIError)])
def test_one_step_answers_fail_when_told(engine, client, behaviour, raised):
    """A 500, or no answer at all."""
    engine.change(**behaviour)
    with pytest.raises(raised):
        client.embeddings.create(model="base", input="x")


def test_adapters_share_the_engine(client):
    """All names are listed, each answers by its own, and no other is known."""
    listed = client.models.list().data
    assert [(model.id, model.parent) for model in listed] == [("base", None), ("tuned", "base")]
    for name in ("base", "tuned"):
        assert client.completions.create(model=name, prompt="Once").model == name
    with pytest.raises(NotFoundError):
        client.completions.create(model="other", prompt="Once")


def test_a_process_serves_what_it_was_started_for(simulated_process):
    """The same by the command line."""
    engine = simulated_process(serves="embed", adapters="tuned", cache_blocks=9)
    assert httpx.post(f"{engine.url}/v1/embeddings", json={"model": "tuned", "input": "x"}).json()["model"] == "tuned"
    assert httpx.post(f"{engine.url}/v1/completions", json={"prompt": "x"}).status_code == 404


def cache(url):
    """Tokens asked of the prefix cache, and found there."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    values = {line.split("{")[0].removeprefix("vllm:"): float(line.split()[-1]) for line in lines if line[0] != "#"}
    return values["prefix_cache_queries_total"], values["prefix_cache_hits_total"]


def test_a_conversation_finds_its_beginning_in_the_cache(simulated):
    """Block by block from the front: what is appended is new, what another model read is not there."""
    engine = simulated(adapters=("tuned",), **FAST)
    opening = "".join(chr(97 + place % 26) for place in range(640))  # 10 blocks of 16 tokens of 4 bytes

    def cached(prompt, model="base"):
        body = {"model": model, "prompt": prompt, "max_tokens": 1}
        return httpx.post(f"{engine.url}/v1/completions", json=body).json()["usage"]["prompt_tokens_details"][
            "cached_tokens"
        ]

    assert [cached(opening), cached(opening), cached(opening + "x" * 64)] == [0, 144, 160]
    assert cached("y" * 4 + opening) == 0
    assert cached(opening, "tuned") == 0
    queries, hits = cache(engine.url)
    assert (queries, hits) == (160 + 160 + 176 + 161 + 160, 144 + 160)


def test_the_cache_forgets_what_was_used_longest_ago(simulated):
    """More conversations than it holds chase each other out."""
    engine = simulated(blocks=12, **FAST)
    for name in "abab":
        httpx.post(f"{engine.url}/v1/completions", json={"prompt": name * 640, "max_tokens": 1})
    assert cache(engine.url) == (640, 0)


def test_frames_are_written_without_spaces(engine):
    """As vLLM writes them: a gateway that is measured against this engine reads the same bytes."""
    body = {"model": "base", "messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 2}
    frames = FrameSplitter().feed(httpx.post(f"{engine.url}/v1/chat/completions", json=body).content)
    for frame in frames[:-1]:
        data = frame.removeprefix(b"data: ").strip()
        assert data == json.dumps(json.loads(data), separators=(",", ":")).encode()
