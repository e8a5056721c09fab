from __future__ import annotations

import asyncio
import gc
import json
import socket
from dataclasses import replace

import pytest

from canary.core.arms import Split
from gateway.pool.sending import Sending
from gateway.relay.exchange import Exchange
from gateway.relay.trial import Trial
from tests.gateway.rig import LIMITS, MODEL, House, Sim, gateway, until

STREAM = {"model": MODEL, "prompt": "x", "stream": True, "ignore_eos": True}


def line_to(house: House) -> socket.socket:
    """A connection without manners."""
    host, port = house.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=5)


def request(body: dict, version: str = "1.1", headers: str = "", **more: object) -> bytes:
    """A request to /v1/completions, as bytes."""
    raw = json.dumps({**body, **more}).encode()
    head = f"POST /v1/completions HTTP/{version}\r\nhost: x\r\ncontent-length: {len(raw)}\r\n{headers}\r\n"
    return head.encode() + raw


async def all_of(line: socket.socket) -> bytes:
    """Everything until the gateway closes."""

    def read() -> bytes:
        return b"".join(iter(lambda: line.recv(65536), b""))

    return await asyncio.get_running_loop().run_in_executor(None, read)


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
    count = alone.app.desk.metrics.series("linnet_requests_total", MODEL, "baseline", "cancelled")
    await until(lambda: count[0] == 1, "counted as cancelled")


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
    with line_to(alone) as line:
        line.sendall(request(STREAM, max_tokens=1500))
        await until(lambda: base.engine.counts["started"] == 1)
        await asyncio.sleep(0.2)
    await until(lambda: base.running == 0, "freed")


async def test_a_client_that_never_reads_is_cut(tmp_path, base: Sim):
    """A connection that only takes room ends, and frees its engine."""
    limits = replace(LIMITS, stall_s=0.2)
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), limits=limits) as house:
        with line_to(house) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.sendall(request(STREAM, max_tokens=2000))
            (door,) = await until(lambda: house.server.server_state.connections, "connected")
            door.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            await until(lambda: not house.server.server_state.connections, "cut")
            await until(lambda: base.engine.counts["aborted"] == 1, "freed")


async def test_a_stream_to_http_1_0_ends_with_its_connection(alone: House):
    """No chunks for a client that cannot read them."""
    with line_to(alone) as line:
        line.sendall(request(STREAM, "1.0", max_tokens=3))
        head, _, body = (await all_of(line)).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body.endswith(b"data: [DONE]\n\n")
    assert all(frame.startswith(b"data: ") for frame in body.split(b"\n\n")[:-1])


async def test_a_pipelined_request_is_left_to_be_sent_again(alone: House, base: Sim):
    """One answer, then the connection closes; the engine has seen one request."""
    body = {"model": MODEL, "prompt": "x", "max_tokens": 2}
    with line_to(alone) as line:
        line.sendall(request(body) + request(body))
        answer = await all_of(line)
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"connection: close" in answer
    assert base.engine.counts["started"] == 1


async def test_a_client_that_asks_is_told_to_send_its_body(alone: House):
    """Expect: 100-continue."""
    raw = request(
        {"model": MODEL, "prompt": "x", "max_tokens": 2}, headers="expect: 100-continue\r\nconnection: close\r\n"
    )
    head, _, body = raw.partition(b"\r\n\r\n")
    loop = asyncio.get_running_loop()
    with line_to(alone) as line:
        line.sendall(head + b"\r\n\r\n")
        assert await loop.run_in_executor(None, line.recv, 99) == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(body)
        assert (await all_of(line)).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{", 408),
        (b"POST /v1/completions HTTP/1.1\r\nhost: x", 408),
        (b"POST /v1/completions HTTP/1.1\r\nx: " + b"y" * 40_000, 431),
        (b"POST /v1/completions HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_ends_its_connection(tmp_path, base: Sim, sent: bytes, status: int):
    """One line in OpenAI's form, then the end; no engine hears of it."""
    limits = replace(LIMITS, head_s=0.2)
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), limits=limits) as house:
        with line_to(house) as line:
            line.sendall(sent)
            answer = await all_of(line)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert base.engine.counts["started"] == 0


async def test_a_header_that_decides_is_given_once(alone: House, base: Sim):
    """Two of one mean two things to two readers."""
    with line_to(alone) as line:
        line.sendall(request({"model": MODEL, "prompt": "x"}, headers="x-linnet-session: a\r\nX-Linnet-Session: b\r\n"))
        assert (await all_of(line)).startswith(b"HTTP/1.1 400 ")
    assert base.engine.counts["started"] == 0


async def test_a_compressed_body_is_refused_unread(alone: House):
    """No bomb is ever opened."""
    answer = await alone.http.post("/v1/completions", content=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


async def test_a_client_that_offers_http_2_is_served_in_http_1_1(alone: House):
    """Java's client offers it with every first request, body and all."""
    offer = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAA\r\n"
    with line_to(alone) as line:
        line.sendall(request({"model": MODEL, "prompt": "x", "max_tokens": 2}, headers=offer))
        line.sendall(request({"model": MODEL, "prompt": "x", "max_tokens": 2}, headers="connection: close\r\n"))
        answer = await all_of(line)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") >= 1
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_what_was_served_leaves_nothing_to_be_collected(alone: House, base: Sim):
    """Requests that end, well or not, are freed at once: nobody waits for the collector."""
    await alone.ask(stream=True)
    gc.collect()
    gc.disable()
    try:
        for stream in (False, True):
            for rate in (0.0, 1.0):
                base.behave(error_rate=rate)
                await alone.ask(stream=stream)
        kinds = (Exchange, Trial, Sending)
        await until(lambda: not [kept for kept in gc.get_objects() if isinstance(kept, kinds)], "nothing left")
    finally:
        gc.enable()


async def test_a_mistake_of_our_own_is_told(alone: House, base: Sim, monkeypatch: pytest.MonkeyPatch):
    """Whatever it is, nobody waits for an answer that nobody will send."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(alone.app.parts.splits, "route", fail)
    with line_to(alone) as line:
        line.sendall(request({"model": MODEL, "prompt": "x"}))
        assert (await all_of(line)).startswith(b"HTTP/1.1 500 ")
    assert base.engine.counts["started"] == 0


async def test_the_limit_of_one_request_is_not_the_next_ones(tmp_path, base: Sim):
    """The clock of a head that came in two pieces stops with it, whoever serves it."""
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), limits=replace(LIMITS, head_s=0.4)) as house:
        raw = request({"model": MODEL, "prompt": "x", "max_tokens": 2}, headers="connection: close\r\n")
        with line_to(house) as line:
            for part in (b"GET /livez HTTP/1.1\r\n", b"host: x\r\n\r\n", raw[:-5], raw[-5:]):
                line.sendall(part)
                await asyncio.sleep(0.17)
            assert b"HTTP/1.1 408" not in await all_of(line)


async def test_small_writes_leave_at_once_on_both_sides(alone: House):
    """Without TCP_NODELAY an answer in two writes waits 40 ms for an acknowledgement."""
    await alone.ask()
    (door,), (replica,) = alone.server.server_state.connections, alone.app.desk.pools.replicas
    for transport in (door.transport, replica._idle[0]._transport):
        assert transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


async def test_who_takes_no_answer_gets_no_second(alone: House, base: Sim):
    """A client that has not taken one answer holds the next one's engine back, not the gateway's memory."""
    base.behave(tpot_ms=2)
    with line_to(alone) as line:
        line.sendall(request(STREAM, max_tokens=4))
        (door,) = await until(lambda: alone.server.server_state.connections, "connected")
        await until(lambda: base.engine.counts["started"] == 1 and door._client is None, "the first answer")
        door.pause_writing()
        line.sendall(request(STREAM, max_tokens=500))
        await until(lambda: base.engine.counts["started"] == 2, "the second request")
        connection = door._exchange._trial._sending._connection
        await until(lambda: connection._paused, "the engine waits")
        door.resume_writing()
        await until(lambda: door._client is None, "the second answer")


async def test_readyz_names_nothing_where_keys_are_needed(alone: House):
    """Anybody may ask whether a worker is ready; what it serves is not everybody's business."""
    alone.app.parts.splits.models_file = "refused: /etc/models.yaml:3: models.m"
    open_ = (await alone.http.get("/readyz")).json()
    alone.app.parts.keys._needed = True
    closed = (await alone.http.get("/readyz")).json()
    assert open_["models_file"] == "refused: /etc/models.yaml:3: models.m"
    assert closed == {"status": "ok", "baseline_only": 0, "models_file": "refused"}
