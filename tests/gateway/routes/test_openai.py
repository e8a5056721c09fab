from __future__ import annotations

import openai
import pytest

from tests.gateway.rig import MODEL, House, Sim


@pytest.fixture
async def client(alone: House):
    """OpenAI's own client against the gateway."""
    async with openai.AsyncOpenAI(base_url=f"{alone.url}/v1", api_key="any", max_retries=0) as client:
        yield client


async def test_openais_client_works_whole_and_streamed(client: openai.AsyncOpenAI):
    """An app needs nothing but another base URL."""
    said = [{"role": "user", "content": "hello"}]
    whole = await client.chat.completions.create(model=MODEL, messages=said, max_tokens=8)
    stream = await client.chat.completions.create(
        model=MODEL, messages=said, max_tokens=8, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.model == MODEL
    assert whole.choices[0].message.content == text
    assert chunks[-1].usage == whole.usage


async def test_openais_client_lists_and_finds_models(client: openai.AsyncOpenAI):
    """Public names only; the engine's name is nobody's business."""
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("base")


async def test_openais_client_raises_its_own_errors(client: openai.AsyncOpenAI, base: Sim):
    """Unknown model, bad request, dead engine: each as OpenAI tells it."""
    said = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="gpt-9", messages=said)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model=MODEL, messages=said, max_tokens=10**6)
    base.kill()
    with pytest.raises(openai.InternalServerError) as dead:
        await client.chat.completions.create(model=MODEL, messages=said)
    assert dead.value.status_code in {502, 503}  # nobody listens, or a kept connection ended just now
    assert base.url not in str(dead.value)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/metrics"),
        ("POST", "/v1/tokenize"),
        ("GET", "/tokenize"),
        ("GET", "/v1/chat/completions"),
        ("POST", "/v1/chat/completions/"),
        ("POST", "//v1/chat/completions"),
        ("POST", "/v1/%2e%2e/sleep"),
        ("POST", "/v1/load_lora_adapter"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
    ],
)
async def test_only_listed_routes_exist(alone: House, base: Sim, method: str, path: str):
    """Everything else is OpenAI's 404, and no engine hears of it."""
    answer = await alone.http.request(method, path, json={"model": MODEL})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"
    assert base.engine.counts["started"] == 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"x-linnet-arm": "candidate"}, 400), ({"x-linnet-arm": "mine"}, 400), ({"content-type": "text/plain"}, 415)],
)
async def test_headers_that_cannot_be_obeyed_are_refused(alone: House, base: Sim, headers: dict, status: int):
    """No candidate, no such arm, no JSON."""
    answer = await alone.http.post("/v1/chat/completions", content=b'{"model":"support"}', headers=headers)
    assert answer.status_code == status
    assert base.engine.counts["started"] == 0
