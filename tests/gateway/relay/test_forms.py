"""Every proxied route through a worker: what its answers look like, and what they leave behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from canary.core.arms import Endpoint, Split
from canary.storage.store import Store
from serving.simulated.app import SERVED
from tests.gateway.conftest import acknowledged
from tests.gateway.rig import MODEL, House, Sim, events, gateway, publish, simulated, until

AUDIO = {"file": ("a.wav", b"RIFF\x00\xff\r\n--x", "audio/wav")}
TRANSCRIBE = "/v1/audio/transcriptions"
PLAIN: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": ["a", "b"]},
    "/rerank": {"query": "q", "documents": ["a", "b"]},
    "/v1/rerank": {"query": "q", "documents": ["a", "b"]},
    "/score": {"queries": "q", "documents": ["a", "b"]},
    "/v1/score": {"text_1": "q", "text_2": "a"},
    "/tokenize": {"prompt": "some words"},
    "/detokenize": {"tokens": [353]},
}


@pytest.fixture
async def able() -> AsyncIterator[Sim]:
    """An engine that serves everything, an adapter too."""
    async with simulated("base", serves=SERVED, adapters=("tuned",)) as sim:
        yield sim


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where the access log is."""
    return tmp_path / "access.log"


@pytest.fixture
async def front(able: Sim, tmp_path: Path, log: Path) -> AsyncIterator[House]:
    """A worker in front of it, under the public name."""
    async with gateway(tmp_path, Split(MODEL, 0, able.endpoint()), access_log=str(log)) as house:
        yield house


@pytest.fixture
async def client(front: House) -> AsyncIterator[AsyncOpenAI]:
    """The SDK most users have."""
    async with AsyncOpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def results(log: Path) -> list[str]:
    """How the requests ended, as soon as one is known."""
    text = await until(log.read_text, "a line of the log")
    return [json.loads(line)["result"] for line in text.splitlines()]


@pytest.mark.parametrize(("path", "body"), PLAIN.items())
async def test_plain_routes_answer_as_the_engine_does(front: House, able: Sim, path: str, body: dict[str, Any]):
    """The engine's own bytes but for the model's name, asked for by the name it is served under."""
    direct = (await front.http.post(able.url + path, json={"model": "base", **body})).json()
    answer = await front.http.post(path, json={"model": MODEL, **body})
    told = answer.json()
    varying = {"id": None, "created": None}
    assert answer.status_code == 200
    assert {**told, **varying, "model": None} == {**direct, **varying, "model": None}
    assert told.get("model", MODEL) == MODEL


@pytest.mark.parametrize("path", ["/v1/embeddings", "/rerank", "/score", TRANSCRIBE])
async def test_what_the_engine_does_not_serve_answers_as_the_engine_does(alone: House, base: Sim, path: str):
    """Its status and its words: the route is the client's choice, and no failure of an arm."""
    kind = (
        {"files": AUDIO, "data": {"model": MODEL}} if path == TRANSCRIBE else {"json": {"model": MODEL, "input": "x"}}
    )
    direct = await alone.http.post(base.url + path, **kind)
    answer = await alone.http.post(path, **kind)
    assert (answer.status_code, answer.content) == (direct.status_code, direct.content)
    assert answer.status_code == 404


async def test_a_response_streams_under_the_public_name(front: House, client: AsyncOpenAI, log: Path):
    """openai-python reads every event; nothing of chat's protocol is added."""
    stream = await client.responses.create(model=MODEL, input="What is a canary?", stream=True, max_output_tokens=8)
    said = [event async for event in stream]
    assert [event.sequence_number for event in said] == list(range(len(said)))
    assert {event.response.model for event in said if hasattr(event, "response")} == {MODEL}
    assert (said[-1].type, said[-1].response.usage.output_tokens) == ("response.completed", 8)
    assert await results(log) == ["ok"]
    raw = await front.http.post("/v1/responses", json={"model": MODEL, "input": "x", "stream": True})
    assert b"[DONE]" not in raw.content


async def test_a_whole_response_is_good_too(client: AsyncOpenAI, log: Path):
    """Its usage and its end are read in its own words."""
    response = await client.responses.create(model=MODEL, input="What is a canary?")
    assert (response.model, response.status, bool(response.output_text)) == (MODEL, "completed", True)
    assert await results(log) == ["ok"]


async def test_a_response_that_dies_ends_in_an_error_event(able: Sim, client: AsyncOpenAI, log: Path):
    """The SDK sees an error, not a short answer, and the arm is blamed."""
    able.behave(cut_rate=1)
    stream = await client.responses.create(model=MODEL, input="x", stream=True)
    *_, before, last = [event async for event in stream]
    assert (last.type, last.code) == ("error", "engine_failed")
    assert last.sequence_number == before.sequence_number + 1
    assert await results(log) == ["error"]


@pytest.mark.parametrize("kind", ["json", "text", "verbose_json"])
async def test_a_transcript_comes_in_the_form_that_was_asked_for(front: House, able: Sim, log: Path, kind: str):
    """The upload reaches the engine with its served name, and nothing else changed."""
    fields = {"model": "base", "response_format": kind, "prompt": "names"}
    direct = await front.http.post(able.url + TRANSCRIBE, files=AUDIO, data=fields)
    answer = await front.http.post(TRANSCRIBE, files=AUDIO, data={**fields, "model": MODEL})
    assert (answer.status_code, answer.content) == (200, direct.content)
    assert answer.headers["content-type"] == direct.headers["content-type"]
    assert able.engine.last["body"] == fields
    assert await results(log) == ["ok"]


async def test_a_transcript_streams(front: House, log: Path):
    """Chunks under the public name, and a good answer without usage, which nobody asked for."""
    answer = await front.http.post(TRANSCRIBE, files=AUDIO, data={"model": MODEL, "stream": "true"})
    *chunks, done = events(answer.content)
    assert {chunk["model"] for chunk in chunks} == {MODEL}
    assert (done, chunks[-1]["choices"][0]["finish_reason"]) == ("[DONE]", "stop")
    assert await results(log) == ["ok"]


@pytest.mark.parametrize(
    ("data", "code", "status"),
    [
        ({}, "missing_model", 400),
        ({"model": "nobody"}, "model_not_found", 404),
        ({"model": [MODEL, MODEL]}, "invalid_multipart", 400),
    ],
)
async def test_an_upload_that_cannot_be_routed_is_refused(front: House, able: Sim, data: Any, code: str, status: int):
    """In OpenAI's form, and no engine hears of it."""
    answer = await front.http.post(TRANSCRIBE, files=AUDIO, data=data)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert able.engine.counts["started"] == 0


async def test_an_adapter_is_an_arm_on_the_same_engine(able: Sim, store: Store, valkey_url: str, tmp_path: Path):
    """Two arms by served name: each request reaches the name of its arm, and the client sees one model."""
    base, tuned = able.endpoint(), Endpoint("tuned", "tuned", (able.url,))
    await publish(store, Split(MODEL, 1, base, tuned, release="r1", attempt=1, stage=1, phase="canary", percent=50))
    seen = set()
    async with gateway(tmp_path, Split(MODEL, 0, base), valkey_url) as house:
        await until(lambda: acknowledged(store, 1), "acknowledgement")
        for turn in range(40):
            answer = await house.ask(headers={"x-request-id": f"r-{turn}"})
            assert answer.json()["model"] == MODEL
            seen.add((answer.headers["x-linnet-arm"], able.engine.last["body"]["model"]))
    assert seen == {("baseline", "base"), ("candidate", "tuned")}


async def test_a_client_that_leaves_an_upload_frees_the_engine(front: House, able: Sim):
    """As for a chat."""
    able.behave(ttft_ms=5000)
    with pytest.raises(httpx.ReadTimeout):
        await front.http.post(TRANSCRIBE, files=AUDIO, data={"model": MODEL}, timeout=0.3)
    await until(lambda: able.engine.counts["aborted"] == 1, "the abort")
    assert able.running == 0


async def test_streams_of_many_forms_at_once_stay_apart(front: House):
    """Each answer is the one its own request would get alone."""

    async def chat(text: str) -> str:
        answer = await front.ask(text, stream=True, max_tokens=30)
        return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in events(answer.content)[:-1])

    async def response(text: str) -> str:
        body = {"model": MODEL, "input": text, "stream": True, "max_output_tokens": 30}
        answer = await front.http.post("/v1/responses", json=body)
        datas = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
        return "".join(json.loads(data).get("delta", "") for data in datas)

    texts = [f"text {number}" for number in range(8)]
    alone = [await chat(text) for text in texts]
    both = await asyncio.gather(*(ask(text) for text in texts for ask in (chat, response)))
    assert list(both) == [said for said in alone for _ in range(2)]
