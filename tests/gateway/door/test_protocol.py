from __future__ import annotations

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from canary.core.arms import Split
from canary.storage.apikeys import ApiKey, Scope, hash_of
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


@pytest.mark.source
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


# a head that the client says again


class Blind:
    """A parser that must not be asked to read."""

    def feed_data(self, data: bytes) -> None:
        """Fail."""
        raise AssertionError(f"read again: {data!r}")


class Caller:
    """A client on one connection that says what it is told and reads answers whole."""

    def __init__(self, house: House, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        (self.door,) = house.server.server_state.connections

    async def say(self, *pieces: bytes) -> None:
        """Send pieces that arrive one by one."""
        for piece in pieces:
            self.writer.write(piece)
            await asyncio.sleep(0.03)

    async def answer(self) -> tuple[int, dict[str, str], dict]:
        """Read one answer."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)).decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:-2])
        return (
            int(head[0].split()[1]),
            headers,
            json.loads(await self.reader.readexactly(int(headers["content-length"]))),
        )

    async def ask(self, *pieces: bytes) -> tuple[int, dict[str, str], dict]:
        """Send pieces; read the answer."""
        await self.say(*pieces)
        return await self.answer()

    @asynccontextmanager
    async def unread(self) -> AsyncIterator[None]:
        """A time in which nothing may be parsed."""
        parser, self.door.parser = self.door.parser, Blind()
        yield
        self.door.parser = parser


@asynccontextmanager
async def calling(house: House) -> AsyncIterator[Caller]:
    """One connection, for as long as the block lasts."""
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await until(lambda: house.server.server_state.connections, "connected")
    try:
        yield Caller(house, reader, writer)
    finally:
        writer.close()


def asking(tokens: int, prompt: str = "x", headers: str = "", **more: object) -> bytes:
    """A request for so many tokens."""
    return request(
        {"model": MODEL, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}, headers=headers, **more
    )


def tokens(answer: tuple[int, dict[str, str], dict]) -> int:
    """How many tokens a good answer has."""
    assert answer[0] == 200
    return answer[2]["usage"]["completion_tokens"]


async def test_a_repeated_head_is_not_read_again(alone: House, base: Sim):
    """Bodies of any length, each with its own answer and its own request id; the parser hears of the first alone."""
    async with calling(alone) as caller:
        answers = [await caller.ask(asking(1))]
        async with caller.unread():
            answers += [await caller.ask(asking(n, "word " * 2 * n)) for n in (2, 30, 3, 9, 100)]
        answers += [await caller.ask(asking(4))]
    assert [tokens(answer) for answer in answers] == [1, 2, 30, 3, 9, 100, 4]
    assert len({answer[1]["x-request-id"] for answer in answers}) == 7
    assert base.engine.counts["started"] == 7


async def test_a_request_id_of_the_clients_own_is_kept(alone: House):
    """It is part of the head that is repeated."""
    async with calling(alone) as caller:
        answers = [await caller.ask(asking(1, headers="x-request-id: mine\r\n"))]
        async with caller.unread():
            answers += [await caller.ask(asking(22, headers="x-request-id: mine\r\n"))]
        answers += [await caller.ask(asking(1, headers="x-request-id: another\r\n"))]
    assert [answer[1]["x-request-id"] for answer in answers] == ["mine", "mine", "another"]


async def test_a_stream_may_follow_and_be_followed(alone: House):
    """What is asked for stands in the body, not in the head."""
    async with calling(alone) as caller:
        await caller.ask(asking(1))
        async with caller.unread():
            await caller.say(asking(3, stream=True))
            streamed = await asyncio.wait_for(caller.reader.readuntil(b"\r\n0\r\n\r\n"), 5)
            assert tokens(await caller.ask(asking(5))) == 5
    assert streamed.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"data: [DONE]" in streamed


async def test_a_repeated_head_with_a_bad_body_is_refused(alone: House, base: Sim):
    """No JSON is 400 as ever; the connection goes on."""
    bad = asking(1)[:-1] + b"]"
    async with calling(alone) as caller:
        await caller.ask(asking(1))
        async with caller.unread():
            assert (await caller.ask(bad))[0] == 400
            assert tokens(await caller.ask(asking(2))) == 2
    assert base.engine.counts["started"] == 2


async def test_a_key_that_is_revoked_opens_nothing_more(alone: House, base: Sim):
    """Who was let in by a head is not let in by the same head for ever."""
    key, secret = ApiKey("k1", "k", frozenset({Scope.INFERENCE})), "lk-secret"
    keys = alone.app.parts.keys
    keys._learn({hash_of(secret): key.to_json()})
    raw = asking(1, headers=f"authorization: Bearer {secret}\r\n")
    async with calling(alone) as caller:
        assert tokens(await caller.ask(raw)) == 1
        async with caller.unread():
            assert tokens(await caller.ask(raw)) == 1
        keys._learn({hash_of(secret): replace(key, revoked_ms=1).to_json()})
        assert (await caller.ask(raw))[0] == 401
    assert base.engine.counts["started"] == 2


async def test_another_key_is_another_head(alone: House):
    """The bytes of a key are compared with the rest."""
    keys = alone.app.parts.keys
    keys._learn({hash_of("lk-good"): ApiKey("k1", "k", frozenset({Scope.INFERENCE})).to_json()})
    async with calling(alone) as caller:
        assert tokens(await caller.ask(asking(1, headers="authorization: Bearer lk-good\r\n"))) == 1
        assert (await caller.ask(asking(1, headers="authorization: Bearer lk-evil\r\n")))[0] == 401


async def test_a_repeated_head_has_the_limit_of_the_first(tmp_path, base: Sim):
    """413, though the first body was small; at the limit itself it is served."""
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), limits=replace(LIMITS, body_bytes=1000)) as house:
        spare = 1000 - len(asking(1).partition(b"\r\n\r\n")[2])
        async with calling(house) as caller:
            await caller.ask(asking(1))
            async with caller.unread():
                assert tokens(await caller.ask(asking(1, "x" * (spare + 1)))) == 1
            status, headers, body = await caller.ask(asking(1, "x" * (spare + 2)))
            assert await caller.reader.read() == b""
    assert (status, headers["connection"], body["error"]["code"]) == (413, "close", "request_too_large")
    assert base.engine.counts["started"] == 2


async def test_a_repeated_request_in_two_pieces_is_read(alone: House):
    """Wherever it is cut; the next one in one piece is read too, and known from then on."""
    raw = asking(7, "some words")
    end = raw.index(b"\r\n\r\n")
    async with calling(alone) as caller:
        await caller.ask(asking(1))
        for at in (1, 20, raw.index(b"content-length: ") + 17, end + 2, end + 4, end + 9, len(raw) - 1):
            assert tokens(await caller.ask(raw[:at], raw[at:])) == 7
            assert tokens(await caller.ask(asking(2))) == 2
            async with caller.unread():
                assert tokens(await caller.ask(asking(33))) == 33


async def test_a_body_that_is_a_known_request_is_a_body(alone: House, base: Sim):
    """What comes behind a head belongs to it, whatever it looks like."""
    within = asking(3)
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(within)
    async with calling(alone) as caller:
        await caller.ask(asking(1))
        assert (await caller.ask(head, within))[0] == 400
    assert base.engine.counts["started"] == 1


async def test_a_pipelined_request_behind_a_repeated_head_is_left_to_be_sent_again(alone: House, base: Sim):
    """In one piece with it, or while it is being answered: one answer, then the connection closes."""
    for pieces in ((asking(2) + asking(3),), (asking(2), asking(3))):
        base.behave(ttft_ms=2)
        async with calling(alone) as caller:
            await caller.ask(asking(1))
            base.behave(ttft_ms=200)
            answer = await caller.ask(*pieces)
            assert (tokens(answer), answer[1]["connection"]) == (2, "close")
            assert await caller.reader.read() == b""
    assert base.engine.counts["started"] == 4


async def test_another_route_between_two_equal_heads(alone: House):
    """FastAPI's requests are no part of it, nor in its way."""
    models = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    async with calling(alone) as caller:
        for n in (1, 2, 33):
            assert tokens(await caller.ask(asking(n))) == n
            assert tokens(await caller.ask(asking(n + 1))) == n + 1
            status, _, body = await caller.ask(models)
            assert (status, body["data"][0]["id"]) == (200, MODEL)


async def test_a_request_while_the_application_answers_is_not_served(alone: House, base: Sim):
    """Known or not, two answers never cross on one connection."""
    async with calling(alone) as caller:
        await caller.ask(asking(1))
        for piece in (b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n", asking(2)):
            caller.door.data_received(piece)
        assert (await caller.answer())[0] == 200
        assert await caller.reader.read() == b""
    assert base.engine.counts["started"] == 1


async def test_line_ends_between_repeated_heads_are_nobodys(alone: House):
    """Behind a body, before a head, or by themselves."""
    async with calling(alone) as caller:
        await caller.ask(asking(1))
        for pieces in ((asking(5) + b"\r\n",), (b"\r\n", asking(5)), (b"\r\n" + asking(5),), (b"\r", b"\n", asking(5))):
            assert tokens(await caller.ask(*pieces)) == 5
            assert tokens(await caller.ask(asking(6))) == 6


async def test_a_changed_head_is_read_and_is_the_one_that_is_known_then(alone: House):
    """One head is remembered, the last."""
    async with calling(alone) as caller:
        for headers in ("", "x-linnet-session: a\r\n", ""):
            await caller.ask(asking(1, headers=headers))
            async with caller.unread():
                assert tokens(await caller.ask(asking(12, headers=headers))) == 12


@pytest.mark.parametrize("headers", ["connection: close\r\n", "expect: 100-continue\r\n"])
async def test_a_head_that_asks_for_more_than_an_answer_is_not_remembered(alone: House, headers: str):
    """The end of the connection, or a word before the body."""
    async with calling(alone) as caller:
        raw = asking(1, headers=headers)
        await caller.say(raw)
        await until(lambda: alone.app.desk.metrics.series("linnet_requests_total", MODEL, "baseline", "ok")[0] == 1)
        assert caller.door._known is None


async def test_http_1_0_is_not_remembered(alone: House):
    """Its streams end with their connection."""
    body = {"model": MODEL, "prompt": "x", "max_tokens": 1}
    async with calling(alone) as caller:
        assert tokens(await caller.ask(request(body, "1.0", "connection: keep-alive\r\n"))) == 1
        assert caller.door._known is None


async def test_shutdown_closes_behind_the_answer_to_a_repeated_head(alone: House, base: Sim):
    """The answer under way is the last, and says so."""
    async with calling(alone) as caller:
        await caller.ask(asking(1))
        base.behave(ttft_ms=200)
        async with caller.unread():
            await caller.say(asking(2))
            caller.door.shutdown()
            answer = await caller.answer()
        assert (tokens(answer), answer[1]["connection"]) == (2, "close")
        assert await caller.reader.read() == b""


@pytest.mark.source
async def test_a_mistake_of_our_own_behind_a_repeated_head_is_told(
    alone: House, base: Sim, monkeypatch: pytest.MonkeyPatch
):
    """500 and the end, as where the head was read."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    async with calling(alone) as caller:
        await caller.ask(asking(1))
        monkeypatch.setattr(alone.app.parts.splits, "route", fail)
        async with caller.unread():
            assert (await caller.ask(asking(2)))[0] == 500
        assert await caller.reader.read() == b""
    assert base.engine.counts["started"] == 1


async def test_a_client_that_leaves_a_repeated_request_frees_the_engine(alone: House, base: Sim):
    """Nobody answers who is gone."""
    async with calling(alone) as caller:
        await caller.ask(asking(1))
        base.behave(ttft_ms=5000)
        await caller.say(asking(2))
        await until(lambda: base.running == 1, "running")
        caller.writer.transport.abort()
        await until(lambda: base.running == 0, "freed", seconds=2)
