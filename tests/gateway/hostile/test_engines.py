"""An engine that answers anything but HTTP: one client hears of a failure, nobody hears another's answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import time

import httpx
import pytest

from tests.gateway.hostile.conftest import Siege
from tests.gateway.hostile.wire import ANSWER, GOOD, Script, counted, line, repeating, saying, well
from tests.gateway.rig import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

N = len(ANSWER)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
FRAME = b'data: {"id":"1","model":"raw","choices":[{"index":0,"delta":{"content":"x"}}]}\n\n'
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
MEGABYTE = 1 << 20
ENDLESS = 64 * MEGABYTE
TAKEN = 8 * MEGABYTE


def framed(*headers: bytes, body: bytes = ANSWER) -> bytes:
    """A whole answer with these header lines."""
    return HEAD + b"".join(header + b"\r\n" for header in headers) + b"\r\n" + body


def chunk(body: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%s\r\n" % (len(body), body)


NO_ANSWERS = {
    "nothing": b"",
    "garbage": b"\x00\x01\x02garbage\r\n\r\n",
    "a bad status line": b"HTTP/9.9 abc OK\r\n\r\n" + ANSWER,
    "a status of two digits": b"HTTP/1.1 20 OK\r\n\r\n" + ANSWER,
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n" + ANSWER,
    "a status of 999": b"HTTP/1.1 999 OK\r\ncontent-length: 0\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (N, ANSWER),
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "half a head": HEAD,
    "half a body": framed(b"content-length: %d" % (N + 10)),
    "half a chunk": framed(b"transfer-encoding: chunked", body=b"%x\r\n%s" % (N + 10, ANSWER)),
    "chunks without an end": framed(b"transfer-encoding: chunked", body=chunk(ANSWER)),
    "TE with CL": framed(b"transfer-encoding: chunked", b"content-length: %d" % N, body=chunk(ANSWER) + b"0\r\n\r\n"),
    "two CLs": framed(b"content-length: %d" % N, b"content-length: 5"),
    "CL negative": framed(b"content-length: -1"),
    "CL with a plus": framed(b"content-length: +%d" % N),
    "CL in hex": framed(b"content-length: 0x10"),
    "CL overflow": framed(b"content-length: 99999999999999999999999"),
    "a chunk size overflow": framed(b"transfer-encoding: chunked", body=b"fffffffffffffffff\r\n" + ANSWER),
    "a chunk size that is none": framed(b"transfer-encoding: chunked", body=b"xyz\r\n" + ANSWER),
    "a header with NUL": framed(b"x-note: a\0b", b"content-length: %d" % N),
    "a header folded": framed(b"x-note: a\r\n b", b"content-length: %d" % N),
    "a bare LF": framed(b"x-note: a\ncontent-length: %d" % N),
    "a header of 1 MB": framed(b"x-note: " + b"a" * MEGABYTE, b"content-length: %d" % N),
    "10,000 headers": framed(*(b"x-%d: 1" % n for n in range(10_000)), b"content-length: %d" % N),
    "101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n" + bytes(64),
    "a status of 003": b"HTTP/1.1 003 X\r\n\r\n" + GOOD,
    "104 with a body": b"HTTP/1.1 104 X\r\ncontent-length: 5\r\n\r\nhello" + GOOD,
    "100 alone": b"HTTP/1.1 100 Continue\r\n\r\n",
    "gzip though identity was asked": framed(
        b"content-encoding: gzip", b"content-length: %d" % len(gzip.compress(ANSWER, mtime=0)),
        body=gzip.compress(ANSWER, mtime=0),
    ),
    "a bomb": framed(
        b"content-encoding: gzip", b"content-length: 65310", body=gzip.compress(bytes(64 * MEGABYTE))[:65310]
    ),
    "a redirect": b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n",
    "more than a whole answer may be": framed(b"content-length: %d" % MEGABYTE, body=b" " * MEGABYTE),
    "an answer that says it is huge": framed(b"content-length: 999999999999"),
}  # fmt: skip


FRAMED_WELL = ("a redirect", "204", "304", "a status of 999", "gzip though identity was asked")
"""Wrong, but their end is certain: the connection may be kept."""


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_what_is_no_answer_is_a_failure(siege: Siege, name: str) -> None:
    """502 or 504 in OpenAI's form and in time; not a byte of what came, no address; the next request is served."""
    siege.engine.script = saying(NO_ANSWERS[name])
    began = time.monotonic()
    answer = await siege.house.ask()
    assert time.monotonic() - began < 6
    assert answer.status_code in (502, 504), answer.text[:300]
    assert answer.json()["error"]["message"].startswith("the model's engine")
    assert "location" not in answer.headers
    assert "127.0.0.1" not in answer.text + str(answer.headers)
    await siege.unharmed(reached=len(siege.engine.requests))


@pytest.mark.parametrize("name", [name for name in NO_ANSWERS if name != "nothing"])
async def test_what_is_no_answer_ends_even_if_the_engine_stays(siege: Siege, name: str) -> None:
    """An engine that does not hang up is hung up on; its connection serves nobody else."""
    siege.engine.script = saying(NO_ANSWERS[name], then_close=False)
    began = time.monotonic()
    answer = await siege.house.ask()
    assert time.monotonic() - began < 6
    assert answer.status_code in (502, 504), answer.text[:300]
    before = siege.engine.connections
    await siege.unharmed(reached=len(siege.engine.requests))
    assert siege.engine.connections == before + 1 or name in FRAMED_WELL


WITHOUT_END = {
    "a header": (HEAD + b"x-note: ", b"a" * 65536),
    "headers": (HEAD, b"x-note: a\r\n" * 4096),
    "a reason": (b"HTTP/1.1 200 ", b"a" * 65536),
    "empty lines": (b"", b"\r\n" * 32768),
    "1xx": (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 1024),
    "zeros of a chunk's size": (HEAD + b"transfer-encoding: chunked\r\n\r\n", b"0" * 65536),
    "a chunk extension": (HEAD + b"transfer-encoding: chunked\r\n\r\n5;", b"a" * 65536),
    "a trailer": (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\nx: ", b"a" * 65536),
    "trailers": (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x-note: a\r\n" * 4096),
    "a body": (HEAD + b"transfer-encoding: chunked\r\n\r\n", chunk(b" " * 65536)),
    "a body until the connection closes": (HEAD + b"\r\n", b" " * 65536),
}


@pytest.mark.parametrize("name", WITHOUT_END)
async def test_an_answer_without_end_is_ended(siege: Siege, name: str) -> None:
    """A bounded number of bytes is taken from an engine, whatever they are meant to be."""
    told: list[int] = []
    start, piece = WITHOUT_END[name]
    siege.engine.script = repeating(start, piece, ENDLESS, told)
    answer = await siege.house.ask()
    assert answer.status_code in (502, 504), answer.text[:300]
    [taken] = await until(lambda: told)
    assert taken < TAKEN
    await siege.unharmed(reached=len(siege.engine.requests))


async def test_a_frame_without_end_is_ended(siege: Siege) -> None:
    """A streamed answer is held until its frame is whole, but not for ever."""
    told: list[int] = []
    siege.engine.script = repeating(STREAM, chunk(b"data: " + b"x" * 65536), ENDLESS, told)
    answer = await siege.house.ask(stream=True)
    assert answer.status_code in (502, 504), answer.text[:300]
    [taken] = await until(lambda: told)
    assert taken < TAKEN


BROKEN_STREAMS = {
    "cut between frames": chunk(FRAME),
    "cut amid a frame": chunk(FRAME) + chunk(FRAME[:20]),
    "a bad chunk size": chunk(FRAME) + b"zz\r\n",
    "a chunk's CRLF missing": chunk(FRAME) + b"5\r\nabcdefgh",
    "no [DONE]": chunk(FRAME) + b"0\r\n\r\n",
    "a TE of its own inside": chunk(FRAME) + b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
async def test_a_stream_that_breaks_has_an_ending(siege: Siege, name: str) -> None:
    """What came has gone out already; an error event and [DONE] follow, framed so that any client can read them."""
    siege.engine.script = saying(STREAM + BROKEN_STREAMS[name])
    answer = await siege.house.ask(stream=True)
    assert answer.status_code == 200
    datas = [frame.removeprefix("data: ") for frame in answer.text.split("\n\n") if frame]
    assert datas[-1] == "[DONE]"
    assert [list(json.loads(data)) for data in datas[-2:-1]] == [["error"]]
    assert json.loads(datas[0])["model"] == "support"
    await siege.unharmed(reached=len(siege.engine.requests))


AFTERWARDS = {
    "a second answer": GOOD.replace(b"good", b"evil"),
    "garbage": b"garbage",
    "CRLF and a second answer": b"\r\n" + GOOD.replace(b"good", b"evil"),
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-le",
}


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
@pytest.mark.parametrize("name", AFTERWARDS)
async def test_what_comes_after_an_answer_is_nobodys(siege: Siege, name: str, pause_s: float) -> None:
    """Its client gets the answer; the connection that said more is never used again."""
    spoiled: list[asyncio.StreamWriter] = []
    siege.engine.script = _and_more(AFTERWARDS[name], pause_s, spoiled)
    first = await siege.house.ask()
    assert (first.status_code, "good" in first.text) in ((200, True), (502, False))
    await until(spoiled[0].is_closing, "the end of the connection that said more")
    siege.engine.script = well
    answers = await asyncio.gather(*(siege.house.ask() for _ in range(4)))
    assert all("good" in answer.text for answer in answers)


def _and_more(more: bytes, pause_s: float, spoiled: list[asyncio.StreamWriter]) -> Script:
    """Answer well, and say something more: in the same breath, or a little later."""

    async def script(writer: asyncio.StreamWriter) -> None:
        spoiled.append(writer)
        writer.write(GOOD if pause_s else GOOD + more)
        await asyncio.sleep(pause_s)
        writer.write(more if pause_s else b"")

    return script


async def test_hints_before_an_answer_are_skipped(siege: Siege) -> None:
    """A few 1xx answers are allowed, and are not the answer."""
    hint = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    siege.engine.script = saying(b"HTTP/1.1 100 Continue\r\n\r\n" + hint + GOOD, then_close=False)
    answer = await siege.house.ask()
    assert (answer.status_code, "link" in answer.headers) == (200, False)


async def test_an_answer_in_single_bytes_is_an_answer(siege: Siege) -> None:
    """Where the network cuts makes no difference."""

    async def script(writer: asyncio.StreamWriter) -> None:
        for byte in GOOD:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    siege.engine.script = script
    answer = await siege.house.ask()
    assert (answer.status_code, answer.json()["model"]) == (200, "support")


async def test_an_answer_that_drips_is_ended_by_the_limit(siege: Siege) -> None:
    """A byte now and then resets no limit for ever: the total holds."""

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"content-length: 10000\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.1)

    siege.engine.script = script
    began = time.monotonic()
    answer = await siege.house.ask()
    assert answer.status_code == 504
    assert time.monotonic() - began < 4


HEADERS_BACK = (b"set-cookie: a=b", b"x-internal: 10.0.0.1", b"server: uvicorn", b"location: http://evil/",
                b"connection: x-evil", b"x-evil: 1", b"access-control-allow-origin: *", b"proxy-authenticate: x",
                b"content-security-policy: x", b"alt-svc: h2", b"x-linnet-arm: candidate")  # fmt: skip


async def test_an_engines_headers_stay_behind(siege: Siege) -> None:
    """The client gets what an OpenAI client needs, and the gateway's own word on the arm."""
    siege.engine.script = saying(framed(*HEADERS_BACK, b"content-length: %d" % N), then_close=False)
    async with line(siege.house.url) as client:
        await client.say(counted())
        heard = await client.answers(1)
    head = heard.raw.partition(b"\r\n\r\n")[0].lower()
    for word in (b"set-cookie", b"x-internal", b"uvicorn", b"evil", b"access-control", b"proxy-", b"alt-svc"):
        assert word not in head, word
    assert head.count(b"x-linnet-arm") == 1
    assert b"candidate" not in head


async def test_an_engine_of_http_1_0_is_understood(siege: Siege) -> None:
    """Its answer ends with the connection."""
    siege.engine.script = saying(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + ANSWER)
    answer = await siege.house.ask()
    assert (answer.status_code, answer.json()["model"]) == (200, "support")


@pytest.mark.parametrize("status", [400, 404, 422, 429, 500, 503])
async def test_an_engines_error_is_told_without_its_inside(siege: Siege, status: int) -> None:
    """A body that is no OpenAI error may be anything: a client that gets it gets it whole and framed."""
    body = b'{"error":{"message":"a\\r\\nb","type":"x","code":1}}'
    siege.engine.script = saying(
        b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)
    )
    answer = await siege.house.ask()
    assert answer.status_code in (status, 502, 503)
    assert answer.json()["error"]["message"]
    await siege.unharmed(reached=len(siege.engine.requests))


async def test_many_hostile_engines_leave_no_connection_behind(siege: Siege) -> None:
    """After a hundred failures the worker holds no more connections than it needs."""
    for name in ("garbage", "two CLs", "TE with CL", "101", "a bad status line"):
        siege.engine.script = saying(NO_ANSWERS[name], then_close=False)
        await asyncio.gather(*(siege.house.ask() for _ in range(20)))
    await until(lambda: siege.house.app.desk.pools.connections <= 5, "few connections")


async def test_a_slow_client_holds_back_the_engine(siege: Siege) -> None:
    """What a client does not read is not read from the engine either: memory is bounded by the sockets."""
    told: list[int] = []
    siege.engine.script = repeating(STREAM, chunk(FRAME * 400), ENDLESS, told)
    async with httpx.AsyncClient(base_url=siege.house.url, timeout=10) as http:
        body = {"model": "support", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200
            await asyncio.sleep(1.0)
            assert told == []
    [taken] = await until(lambda: told)
    assert taken < 2 * TAKEN
