"""Only the listed routes reach an engine, by their exact bytes."""

from __future__ import annotations

import pytest

from gateway.routes.table import PROXIED
from tests.gateway.hostile.conftest import Siege
from tests.gateway.hostile.wire import CHAT, counted, line

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENGINE_ONLY = (
    "/metrics", "/sleep", "/wake_up", "/is_sleeping", "/pause", "/resume", "/collective_rpc", "/docs", "/redoc",
    "/openapi.json", "/invocations", "/ping", "/version", "/load", "/server_info", "/health", "/is_paused",
    "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/reset_prefix_cache", "/reset_mm_cache", "/start_profile",
    "/stop_profile", "/inference/v1/generate", "/abort_requests", "/scale_elastic_ep", "/update_weights", "/pooling",
    "/classify", "/v1/messages", "/simulated", "/tokenizer_info", "/generate", "/init_weight_transfer_engine",
)  # fmt: skip
DISGUISED = (
    "/v1/%63hat/completions", "/v1/chat%2Fcompletions", "/%76%31/chat/completions", "//v1/chat/completions",
    "/v1//chat/completions", "/v1/chat//completions", "/v1/chat/completions/", "/v1/./chat/completions",
    "/v1/x/../chat/completions", "/v1/chat/completions/../../../metrics", "/v1/../metrics", "/v1/..%2fmetrics",
    "/v1/%2e%2e/metrics", "/v1/chat/completions/..;/metrics", "/v1/chat/completions;x=y", "/V1/chat/completions",
    "/v1/Chat/Completions", "/v1/chat/completions%00", "/v1/chat/completions%20", "/v1/chat/completions%0d%0aX: y",
    "/v1\\chat\\completions", "v1/chat/completions", "*", "/", "", "/metrics%3f/v1/chat/completions",
    "/v1/models/../chat/completions",
)  # fmt: skip
ABSOLUTE = (
    "http://gateway/v1/chat/completions", "http://evil.example/v1/chat/completions", "HTTP://127.0.0.1:1/metrics",
    "https://evil.example/", "ftp://evil.example/v1/chat/completions", "http:/v1/chat/completions",
    "http://user:pass@evil.example/v1/chat/completions", "//evil.example/v1/chat/completions", "evil.example:80",
)  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("target", ENGINE_ONLY)
async def test_what_only_an_engine_serves_is_not_there(siege: Siege, target: str, method: str) -> None:
    """404, told by the gateway itself."""
    heard = await _one(siege, counted(target=target, method=method))
    assert heard[:1] == [404]
    assert siege.engine.requests == []


@pytest.mark.parametrize("target", DISGUISED)
async def test_a_path_in_disguise_is_another_path(siege: Siege, target: str) -> None:
    """Paths are compared as they came: nothing is decoded, folded, joined or cut on the way."""
    heard = await _one(siege, counted(target=target))
    assert heard[0] in (400, 404), heard
    assert siege.engine.requests == []
    await siege.unharmed()


@pytest.mark.parametrize("target", ABSOLUTE)
async def test_an_absolute_target_is_refused(siege: Siege, target: str) -> None:
    """This is no forward proxy: a target with a host of its own has two, and one of them is a lie."""
    heard = await _one(siege, counted(target=target))
    assert heard[0] in (400, 404), heard
    assert siege.engine.requests == []
    await siege.unharmed()


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
@pytest.mark.parametrize("target", [CHAT, "/v1/responses", "gateway:80"])
async def test_other_methods_reach_no_engine(siege: Siege, method: str, target: str) -> None:
    """The proxied routes are POST; TRACE echoes nothing, CONNECT opens nothing."""
    heard = await _one(siege, counted("X-Secret: echo-me", target=target, method=method), body=method != "HEAD")
    assert 400 <= heard[0] < 500 or (method, heard[0]) == ("OPTIONS", 200)
    assert siege.engine.requests == []
    await siege.unharmed()


@pytest.mark.parametrize("target", sorted(path.decode() for path in PROXIED))
async def test_a_query_does_not_reach_the_engine(siege: Siege, target: str) -> None:
    """What is forwarded is the route's own path: a query could carry a second meaning."""
    await _one(siege, counted(target=f"{target}?api-version=1&x=/metrics"))
    for sent in siege.engine.requests:
        assert sent.split(b" ")[1] == target.encode()


UPGRADES = {
    "h2c": ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    "websocket": (
        "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "TLS": ("Upgrade: TLS/1.2", "Connection: Upgrade"),
}  # fmt: skip


@pytest.mark.parametrize("name", UPGRADES)
async def test_an_offer_to_upgrade_is_declined(siege: Siege, name: str) -> None:
    """Answered in HTTP/1.1, body and all: Java's client makes such an offer with every first request."""
    async with line(siege.house.url) as client:
        await client.say(counted(*UPGRADES[name]))
        heard = await client.answers(1)
    assert heard.statuses == [200]
    [sent] = siege.engine.requests
    assert b"upgrade" not in sent.lower()
    assert b"hello" in sent


@pytest.mark.parametrize("name", UPGRADES)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nothing_is_upgraded(siege: Siege, name: str, method: str) -> None:
    """Never 101: no tunnel past the door; what is smuggled behind the offer is not another client's request."""
    async with line(siege.house.url) as client:
        await client.say(counted(*UPGRADES[name], method=method) + counted(target="/metrics"))
        heard = await client.answers(1)
    assert heard.statuses[0] == (200 if method == "POST" else 404)
    assert 101 not in heard.statuses
    assert all(b"upgrade" not in sent.lower() and b"/metrics" not in sent for sent in siege.engine.requests)
    await siege.unharmed(reached=len(siege.engine.requests))


async def _one(siege: Siege, raw: bytes, *, body: bool = True) -> list[int]:
    """Send one request and return the statuses heard for it."""
    async with line(siege.house.url) as client:
        await client.say(raw)
        if body:
            return (await client.answers(1)).statuses
        client.finish()
        return (await client.until_closed()).statuses
