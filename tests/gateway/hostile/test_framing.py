"""Two ways to read where a request ends are one way to smuggle another: each is refused, and no engine hears of it."""

from __future__ import annotations

import pytest

from tests.gateway.hostile.conftest import Siege
from tests.gateway.hostile.wire import BODY, CHAT, counted, line, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

N = len(BODY)
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (N, BODY)
MEGABYTE = 1 << 20

FRAMINGS = {
    "TE with CL": request(f"Content-Length: {N}", "Transfer-Encoding: chunked", body=CHUNKED),
    "CL with TE": request("Transfer-Encoding: chunked", f"Content-Length: {N}", body=CHUNKED),
    "TE with CL 0": request("Content-Length: 0", "Transfer-Encoding: chunked", body=CHUNKED),
    "two equal CLs": request(f"Content-Length: {N}", f"Content-Length: {N}"),
    "two different CLs": request(f"Content-Length: {N}", "Content-Length: 5"),
    "a list of CLs": request(f"Content-Length: {N}, {N}"),
    "space before the colon": request("Transfer-Encoding : chunked", body=CHUNKED),
    "space before CL's colon": request(f"Content-Length : {N}"),
    "TE unknown": request("Transfer-Encoding: xchunked", body=CHUNKED),
    "TE unknown with CL": request("Transfer-Encoding: xchunked", f"Content-Length: {N}"),
    "TE identity": request("Transfer-Encoding: identity", f"Content-Length: {N}"),
    "TE chunked not last": request("Transfer-Encoding: chunked, gzip", body=CHUNKED),
    "TE gzip, chunked": request("Transfer-Encoding: gzip, chunked", body=CHUNKED),
    "TE chunked twice": request("Transfer-Encoding: chunked, chunked", body=CHUNKED),
    "TE in two headers": request("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=CHUNKED),
    "TE in two headers, chunked last": request(
        "Transfer-Encoding: identity", "Transfer-Encoding: chunked", body=CHUNKED
    ),
    "TE quoted": request('Transfer-Encoding: "chunked"', body=CHUNKED),
    "TE with a vertical tab": request(b"Transfer-Encoding: \x0bchunked", body=CHUNKED),
    "TE after a bare CR": request(b"X: y\rTransfer-Encoding: chunked", body=CHUNKED),
    "TE after a bare LF": request(b"X: y\nTransfer-Encoding: chunked", body=CHUNKED),
    "a folded TE": request("Transfer-Encoding:\r\n chunked", body=CHUNKED),
    "a folded header": request(f"Content-Length: {N}", "X-Note: one\r\n two"),
    "a first header folded": b"POST %s HTTP/1.1\r\n Host: a\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), N, BODY),
    "bare LF for CRLF": counted().replace(b"\r\n", b"\n"),
    "bare LF in the head": counted("X-Note: one").replace(b"one\r\n", b"one\n"),
    "bare LF before the body": counted().replace(b"\r\n\r\n", b"\r\n\n"),
    "bare CR in the head": counted("X-Note: one").replace(b"one\r\n", b"one\r"),
    "NUL in a value": counted(b"X-Note: a\0b"),
    "NUL in a name": counted(b"X-No\0te: a"),
    "a control character in a value": counted(b"X-Note: a\x01b"),
    "a name with a space": counted("X Note: a"),
    "a name of nothing": counted(": a"),
    "a line without a colon": counted("X-Note"),
    "CL negative": request("Content-Length: -1"),
    "CL with a plus": request(f"Content-Length: +{N}"),
    "CL in hex": request(f"Content-Length: {N:#x}"),
    "CL of nothing": request("Content-Length:"),
    "CL with a tail": request(f"Content-Length: {N}a"),
    "CL with a space inside": request("Content-Length: 1 0"),
    "CL overflow": request("Content-Length: 18446744073709551617"),
    "CL fullwidth digits": request("Content-Length: \uff12".encode()),
    "chunk size overflow": request("Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\n" + BODY),
    "chunk size negative": request("Transfer-Encoding: chunked", body=b"-1\r\n" + BODY),
    "chunk size with 0x": request("Transfer-Encoding: chunked", body=b"0x%x\r\n%s\r\n0\r\n\r\n" % (N, BODY)),
    "chunk size of nothing": request("Transfer-Encoding: chunked", body=b"\r\n" + BODY),
    "chunk longer than said": request("Transfer-Encoding: chunked", body=b"5\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunk ended by LF": request("Transfer-Encoding: chunked", body=CHUNKED.replace(b"\r\n", b"\n")),
    "chunk size ended by LF": request("Transfer-Encoding: chunked", body=CHUNKED.replace(b"\r\n", b"\n", 1)),
    "a chunk extension of 1 MB": request(
        "Transfer-Encoding: chunked", body=b"%x;%s\r\n%s\r\n0\r\n\r\n" % (N, b"x" * MEGABYTE, BODY)
    ),
    "a trailer of 1 MB": request(
        "Transfer-Encoding: chunked", body=CHUNKED[:-2] + b"X-Note: " + b"x" * MEGABYTE + b"\r\n\r\n"
    ),
    "a refused head, then a chunk that is none": request(
        "Content-Encoding: br", "Transfer-Encoding: chunked", body=b"x\r\n"
    ),
    "a refused head, then a head without end": request("Content-Encoding: br", "Content-Length: 2", body=b"{}")
    + b"POST / HTTP/1.1\r\nX: "
    + b"a" * 50_000,
    "a refused head, then CONNECT": request("Content-Encoding: br", "Content-Length: 2", body=b"{}")
    + b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a refused head, then no request": request("Content-Encoding: br", "Content-Length: 2") + b"\0\0\0",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0": counted(version="2.0"),
    "HTTP/0.9": b"POST " + CHAT.encode() + b"\r\n\r\n",
    "a version of many digits": counted(version="1.11111"),
    "a lower-case method": counted(method="post"),
    "an unknown method": counted(method="POSTS"),
    "a tab in the request line": counted(method="POST\t"),
}


@pytest.mark.parametrize("name", FRAMINGS)
async def test_a_framing_with_two_meanings_is_refused(siege: Siege, name: str) -> None:
    """400 or its like, the connection ends, the engine hears nothing, the next client is served."""
    await siege.refused(FRAMINGS[name])


async def test_what_hides_behind_a_refused_request_is_never_read(siege: Siege) -> None:
    """A whole request after the ambiguous one goes down with it."""
    await siege.refused(FRAMINGS["TE with CL"] + counted())


async def test_a_request_hidden_in_a_body_stays_a_body(siege: Siege) -> None:
    """The body's length is the header's; what looks like a request inside is one client's bytes."""
    hidden = BODY[:-1] + b',"note":"GET /metrics HTTP/1.1"}'
    async with line(siege.house.url) as client:
        await client.say(counted(body=hidden))
        heard = await client.answers(1)
    assert heard.statuses == [200]
    await siege.unharmed(reached=1)
    assert b"GET /metrics" in siege.engine.requests[0].partition(b"\r\n\r\n")[2]


async def test_a_body_longer_than_its_length_is_cut_there(siege: Siege) -> None:
    """The first request is answered by its length; what is over is no request, and ends the connection."""
    async with line(siege.house.url) as client:
        await client.say(counted() + b"}}}} garbage\r\n\r\n")
        heard = await client.until_closed()
    assert [status // 100 for status in heard.statuses] in ([2], [2, 4], [4])
    assert heard.closed
    reached = len(siege.engine.requests)
    assert all(sent.endswith(b"4}") for sent in siege.engine.requests)
    await siege.unharmed(reached=reached)


async def test_a_body_shorter_than_its_length_reaches_nobody(siege: Siege) -> None:
    """A client that ends half-way asked for nothing."""
    async with line(siege.house.url) as client:
        await client.say(request(f"Content-Length: {N + 10}"))
        client.finish()
        heard = await client.until_closed()
    assert heard.closed
    assert 200 not in heard.statuses
    await siege.unharmed()


async def test_chunks_of_one_byte_are_one_body(siege: Siege) -> None:
    """Chunked bodies are read to their end and forwarded with a length."""
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
    async with line(siege.house.url) as client:
        await client.say(request("Transfer-Encoding: chunked", body=chunks))
        heard = await client.answers(1)
    assert heard.statuses == [200]
    [sent] = siege.engine.requests
    assert b"transfer-encoding" not in sent.lower()
    assert b"hello" in sent
