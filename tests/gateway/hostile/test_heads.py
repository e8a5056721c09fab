"""Heads that are too large, too slow, or meant for somebody else's log."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.gateway.hostile.conftest import Siege
from tests.gateway.hostile.wire import BODY, counted, line, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEGABYTE = 1 << 20
TAKEN = 8 * MEGABYTE
"""What the sockets' own buffers may swallow before a refusal is felt; an endless head would take all it is sent."""
ENDLESS = 64 * MEGABYTE

LARGE = {
    "10,000 headers": counted(*(f"X-{n}: {n}" for n in range(10_000))),
    "200 KB of one header": counted("X-Note: " + "a" * 200_000),
    "200 KB of one name": counted("X" * 200_000 + ": a"),
    "200 KB of path": counted(target="/v1/" + "a" * 200_000),
    "200 KB of query": counted(target="/v1/chat/completions?" + "a" * 200_000),
}

ENDLESS_PARTS = {
    "an endless header": (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nX-Note: ", b"a" * 65536),
    "an endless name": (b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n", b"a" * 65536),
    "endless headers": (b"POST /v1/chat/completions HTTP/1.1\r\n", b"X-Note: a\r\n" * 4096),
    "an endless path": (b"POST /", b"a" * 65536),
    "an endless method": (b"", b"A" * 65536),
    "endless white space in a header": (b"POST / HTTP/1.1\r\nX-Note:", b" " * 65536),
    "endless empty lines": (b"", b"\r\n" * 32768),
    "an endless chunk extension": (request("Transfer-Encoding: chunked", body=b"5;"), b"a" * 65536),
    "endless zeros of a chunk's size": (request("Transfer-Encoding: chunked", body=b""), b"0" * 65536),
    "an endless trailer": (request("Transfer-Encoding: chunked", body=b"0\r\nX-Note: "), b"a" * 65536),
    "endless trailers": (request("Transfer-Encoding: chunked", body=b"0\r\n"), b"X-Note: a\r\n" * 4096),
    "an endless chunked body": (request("Transfer-Encoding: chunked", body=b""), b"10000\r\n" + b" " * 65536 + b"\r\n"),
}

WITH_BODY = frozenset({"an endless chunked body"})


@pytest.mark.parametrize("name", LARGE)
async def test_a_head_beyond_every_need_is_refused(siege: Siege, name: str) -> None:
    """Refused before it is looked at."""
    await siege.refused(LARGE[name], 400, 404, 413, 414, 431)


@pytest.mark.parametrize("name", ENDLESS_PARTS)
async def test_what_never_ends_is_cut_early(siege: Siege, name: str) -> None:
    """The worker takes a bounded number of bytes: its memory cannot be filled from outside."""
    start, piece = ENDLESS_PARTS[name]
    async with line(siege.house.url) as client:
        heard = await client.flood(start, piece, ENDLESS)
    assert heard.sent < TAKEN + siege.house.app.desk.limits.body_bytes * (name in WITH_BODY)
    assert heard.closed
    assert 200 not in heard.statuses
    await siege.unharmed()


async def test_a_body_that_says_it_is_too_large_is_refused_unread(siege: Siege) -> None:
    """413 by the length alone: not one byte of it is waited for."""
    most = siege.house.app.desk.limits.body_bytes
    await siege.refused(request(f"Content-Length: {most + 1}", body=b""), 413)


async def test_a_head_that_comes_too_slowly_is_ended(siege: Siege) -> None:
    """A byte now and then keeps nobody's place: the head as a whole has a limit."""
    began = time.monotonic()
    async with line(siege.house.url) as client:
        await client.say(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n")
        talk = asyncio.ensure_future(client.until_closed(patience_s=10))
        while not talk.done() and time.monotonic() - began < 8:
            await client.say(b"X-Note: a\r\n")
            await asyncio.sleep(0.25)
        heard = await talk
    assert heard.closed
    assert time.monotonic() - began < 5
    await siege.unharmed()


async def test_a_body_that_comes_too_slowly_is_ended(siege: Siege) -> None:
    """A body has a limit too."""
    began = time.monotonic()
    async with line(siege.house.url) as client:
        await client.say(request("Content-Length: 10000", body=b""))
        talk = asyncio.ensure_future(client.until_closed(patience_s=10))
        while not talk.done() and time.monotonic() - began < 8:
            await client.say(b" ")
            await asyncio.sleep(0.25)
        heard = await talk
    assert heard.closed
    assert time.monotonic() - began < 5
    await siege.unharmed()


INJECTIONS = (b"a\r\nX-Evil: 1", b"a\nX-Evil: 1", b"a\rX-Evil: 1", b"a\0b", b"\x1b[31mred", b"a" * 4096, "é".encode())
CARRIERS = ("X-Request-Id", "traceparent", "tracestate", "X-Linnet-Session", "X-Linnet-Slice", "X-Linnet-Arm")


@pytest.mark.parametrize("value", INJECTIONS)
@pytest.mark.parametrize("name", CARRIERS)
async def test_no_header_carries_a_second_one(siege: Siege, name: str, value: bytes) -> None:
    """Whatever a client puts into a header that is passed on or echoed, neither side gets a header more."""
    async with line(siege.house.url) as client:
        await client.say(counted(name.encode() + b": " + value))
        heard = await client.answers(1)
    assert heard.statuses[0] in (200, 400, 431)
    head = heard.raw.partition(b"\r\n\r\n")[0]
    sent = [part.partition(b"\r\n\r\n")[0] for part in siege.engine.requests]
    for seen in (head, *sent):
        lines = seen.split(b"\r\n")
        assert not any(line.lower().startswith(b"x-evil") and name.encode() not in line for line in lines[1:]) or (
            value == INJECTIONS[0]
        )
        assert all(byte >= 0x20 for line in lines for byte in line), seen
        assert all(len(line) <= 1024 for line in lines), seen


async def test_the_engine_gets_no_header_that_was_not_meant_for_it(siege: Siege) -> None:
    """Keys, cookies, forwarding, hop-by-hop and named headers stay at the door; identity is asked for."""
    private = ("Authorization: Bearer sk-secret", "Cookie: a=b", "X-Forwarded-For: 1.2.3.4",
               "Forwarded: for=1.2.3.4", "Proxy-Authorization: Basic x", "Connection: keep-alive, X-Hop", "X-Hop: 1",
               "TE: trailers", "Accept-Encoding: gzip, br", "Range: bytes=0-1",
               "X-Api-Key: secret", "Keep-Alive: timeout=5")  # fmt: skip
    async with line(siege.house.url) as client:
        await client.say(counted(*private))
        heard = await client.answers(1)
    assert heard.statuses == [200]
    head = siege.engine.requests[0].partition(b"\r\n\r\n")[0].lower()
    for word in (b"secret", b"cookie", b"forwarded", b"proxy", b"x-hop", b"\r\nte:", b"gzip", b"range", b"keep-alive"):
        assert word not in head, word
    assert b"\r\naccept-encoding: identity\r\n" in head


async def test_a_host_header_routes_nothing(siege: Siege) -> None:
    """The upstream comes from the configuration: neither Host nor a forwarding header names it."""
    raw = counted("X-Forwarded-Host: evil.example", "X-Custom-Host: http://evil.example").replace(
        b"Host: gateway", b"Host: evil.example"
    )
    async with line(siege.house.url) as client:
        await client.say(raw)
        heard = await client.answers(1)
    assert heard.statuses == [200]
    host = siege.engine.url.removeprefix("http://").encode()
    assert b"\r\nhost: %s\r\n" % host in siege.engine.requests[0].lower()
    assert b"evil" not in siege.engine.requests[0]


@pytest.mark.parametrize("field", ["api_base", "base_url", "api_key", "custom_llm_provider", "user_config"])
async def test_no_field_of_a_body_names_an_upstream(siege: Siege, field: str) -> None:
    """Such a field is the engine's business, an unknown one like any other: it is passed on, and asked of nobody."""
    body = json.dumps(json.loads(BODY) | {field: "http://127.0.0.1:1/v1"}).encode()
    async with line(siege.house.url) as client:
        await client.say(counted(body=body))
        heard = await client.answers(1)
    assert heard.statuses == [200]
    assert len(siege.engine.requests) == 1
