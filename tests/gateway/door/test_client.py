from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from canary.core.arms import Split
from tests.gateway.rig import LIMITS, MODEL, House, Sim, gateway, until


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("slow", [{"ttft_ms": 5000}, {"tpot_ms": 500}])
async def test_a_client_that_leaves_frees_the_engine_at_once(alone: House, base: Sim, stream: bool, slow: dict):
    """Streaming or not, before the first token or after it."""
    base.behave(**slow)
    asking = asyncio.ensure_future(alone.ask(stream=stream, max_tokens=64, ignore_eos=True))
    await until(lambda: base.running == 1, "running")
    await asyncio.sleep(0.05)
    started = asyncio.get_running_loop().time()
    asking.cancel()
    await until(lambda: base.running == 0, "freed", seconds=2)
    assert asyncio.get_running_loop().time() - started < 0.5
    assert base.engine.counts["aborted"] == 1
    page = alone.app.desk.metrics.requests
    await until(lambda: page.labels(MODEL, "baseline", "cancelled")._value.get() == 1, "counted as cancelled")


async def test_a_body_beyond_the_limit_is_refused(tmp_path, base: Sim):
    """413, declared or not."""
    limits = replace(LIMITS, body_bytes=1000)
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), limits=limits) as house:
        declared = await house.ask("x" * 2000)

        async def parts():
            for _ in range(4):
                yield b" " * 500

        undeclared = await house.http.post("/v1/chat/completions", content=parts())
    assert (declared.status_code, undeclared.status_code) == (413, 413)
    assert declared.json()["error"]["code"] == "request_too_large"


async def test_a_slow_reader_holds_the_engine_back_not_the_memory(alone: House, base: Sim):
    """A client that stops reading, then goes, leaves nothing behind."""
    base.behave(tpot_ms=0)
    address = alone.url.removeprefix("http://").split(":")
    with socket.create_connection((address[0], int(address[1]))) as line:
        body = b'{"model":"support","prompt":"x","stream":true,"max_tokens":1500,"ignore_eos":true}'
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await until(lambda: base.engine.counts["started"] == 1)
        await asyncio.sleep(0.2)
    await until(lambda: base.running == 0, "freed")
