"""Bodies that mean two things, nothing, or too much; and the ordinary ways of sending one that must go on working."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from tests.gateway.hostile.conftest import Siege
from tests.gateway.hostile.wire import BODY, counted, line, request
from tests.gateway.rig import MODEL

pytestmark = pytest.mark.asyncio(loop_scope="module")

MEGABYTE = 1 << 20
TEN_MB = 10 * MEGABYTE
MESSAGES = '"messages":[{"role":"user","content":"hello"}]'

ENCODED = {
    "gzip": gzip.compress(BODY),
    "deflate": zlib.compress(BODY),
    "gzip, identity": gzip.compress(BODY),
    "br": BODY,
    "zstd": BODY,
    "x-gzip": gzip.compress(b" " * TEN_MB),
}


@pytest.mark.parametrize("encoding", ENCODED)
async def test_a_compressed_body_is_refused_before_it_is_read(siege: Siege, encoding: str) -> None:
    """415: nothing is ever unpacked, so no bomb goes off."""
    heard = await _one(siege, counted(f"Content-Encoding: {encoding}", body=ENCODED[encoding]))
    assert heard == [415]
    await siege.unharmed()


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/xml", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "*"],
)
async def test_another_content_type_is_refused(siege: Siege, kind: str) -> None:
    """415 before a byte of it is parsed."""
    raw = counted().replace(b"application/json", kind.encode())
    assert await _one(siege, raw) == [415]
    await siege.unharmed()


REFUSED = {
    "UTF-16": f'{{"model":"{MODEL}",{MESSAGES}}}'.encode("utf-16"),
    "a BOM": b"\xef\xbb\xbf" + BODY,
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "a string": b'"model"',
    "two objects": BODY + BODY,
    "an object and a tail": BODY + b"x",
    "half an object": BODY[:-5],
    "a comment": BODY[:-1] + b"/* x */}",
    "single quotes": BODY.replace(b'"', b"'"),
    "a trailing comma": BODY[:-1] + b",}",
    "no model": f"{{{MESSAGES}}}".encode(),
    "a model that is a list": f'{{"model":["{MODEL}"],{MESSAGES}}}'.encode(),
    "a model that is null": f'{{"model":null,{MESSAGES}}}'.encode(),
    "an empty model": f'{{"model":"",{MESSAGES}}}'.encode(),
    "two models": f'{{"model":"{MODEL}",{MESSAGES},"model":"other"}}'.encode(),
    "two models, one escaped": f'{{"model":"{MODEL}",{MESSAGES},"mod\\u0065l":"other"}}'.encode(),
    "two models, one in another case": f'{{"model":"{MODEL}",{MESSAGES},"Model":"other"}}'.encode(),
    "MODEL alone": f'{{"MODEL":"{MODEL}",{MESSAGES}}}'.encode(),
    "model with a long s in stream": f'{{"model":"{MODEL}",{MESSAGES},"\u017ftream":true}}'.encode(),
    "two streams": f'{{"model":"{MODEL}","stream":false,{MESSAGES},"stream":true}}'.encode(),
    "two stream_options": f'{{"model":"{MODEL}","stream_options":{{}},{MESSAGES},"stream_options":{{}}}}'.encode(),
    "stream in another case": f'{{"model":"{MODEL}","Stream":true,{MESSAGES}}}'.encode(),
    "stream that is a number": f'{{"model":"{MODEL}","stream":1,{MESSAGES}}}'.encode(),
    "stream that is a string": f'{{"model":"{MODEL}","stream":"false",{MESSAGES}}}'.encode(),
    "100,000 lists": f'{{"model":"{MODEL}","x":{"[" * 100_000}{"]" * 100_000},{MESSAGES}}}'.encode(),
    "100,000 objects": f'{{"model":"{MODEL}",{MESSAGES},"x":'.encode() + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "100,000 lists that never end": f'{{"model":"{MODEL}","x":{"[" * 100_000}'.encode(),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_body_that_cannot_be_routed_exactly_is_refused(siege: Siege, name: str) -> None:
    """400 in OpenAI's form: two parsers would read two requests, or none."""
    async with line(siege.house.url) as client:
        await client.say(counted(body=REFUSED[name]))
        heard = await client.answers(1)
    assert heard.statuses == [400], heard.raw[:300]
    assert json.loads(heard.raw.partition(b"\r\n\r\n")[2])["error"]["message"]
    await siege.unharmed()


UNUSUAL = {
    "a bad escape": f'{{"model":"{MODEL}","x":"\\x41",{MESSAGES}}}'.encode(),
    "a raw control character": f'{{"model":"{MODEL}","x":"a\x01b",{MESSAGES}}}'.encode(),
    "a raw surrogate": b'{"model":"support","x":"\xed\xa0\x80",' + MESSAGES.encode() + b"}",
    "UTF-8 overlong": b'{"model":"support","x":"\xc0\xaf",' + MESSAGES.encode() + b"}",
    "not UTF-8": b'{"model":"support","x":"\xff\xfe",' + MESSAGES.encode() + b"}",
    "a lone surrogate, escaped": f'{{"model":"{MODEL}","user":"\\ud800",{MESSAGES}}}'.encode(),
    "a surrogate as session": f'{{"model":"{MODEL}","safety_identifier":"\\udfff\\ud800",{MESSAGES}}}'.encode(),
    "a surrogate in the message": f'{{"model":"{MODEL}","messages":[{{"role":"user","content":"\\ud800"}}]}}'.encode(),
    "NUL, escaped": f'{{"model":"{MODEL}","user":"\\u0000",{MESSAGES}}}'.encode(),
    "a huge exponent": f'{{"model":"{MODEL}","temperature":1e999999,{MESSAGES}}}'.encode(),
    "10,000 digits": f'{{"model":"{MODEL}","seed":{"9" * 10_000},{MESSAGES}}}'.encode(),
    "minus 10,000 digits": f'{{"model":"{MODEL}","max_tokens":-{"9" * 10_000},{MESSAGES}}}'.encode(),
    "max_tokens of 1e308": f'{{"model":"{MODEL}","max_tokens":1e308,{MESSAGES}}}'.encode(),
    "max_tokens that is a list": f'{{"model":"{MODEL}","max_tokens":[1],{MESSAGES}}}'.encode(),
    "n of 10^9": f'{{"model":"{MODEL}","n":1000000000,{MESSAGES}}}'.encode(),
    "NaN": f'{{"model":"{MODEL}","temperature":NaN,{MESSAGES}}}'.encode(),
    "Infinity": f'{{"model":"{MODEL}","temperature":-Infinity,{MESSAGES}}}'.encode(),
    "messages that are no list": f'{{"model":"{MODEL}","messages":{{"role":1}}}}'.encode(),
    "a message that is no object": f'{{"model":"{MODEL}","messages":[null, 1, []]}}'.encode(),
    "content that is a number": f'{{"model":"{MODEL}","messages":[{{"role":"user","content":7}}]}}'.encode(),
    "20,000 members": f'{{"model":"{MODEL}",{MESSAGES},'.encode()
    + b",".join(b'"%d":0' % n for n in range(20_000))
    + b"}",
    "two equal members of the engine's": f'{{"model":"{MODEL}","seed":1,{MESSAGES},"seed":2}}'.encode(),
    "the user twice, streamed": f'{{"model":"{MODEL}","user":"a",{MESSAGES},"user":"b","stream":true}}'.encode(),
    "the user twice, long": f'{{"model":"{MODEL}","user":"a",{MESSAGES},"user":"b","x":"{"x" * 20_000}"}}'.encode(),
    "a model inside": f'{{"x":{{"model":"evil","stream":true}},"model":"{MODEL}",{MESSAGES}}}'.encode(),
    "a model in a string": f'{{"x":"\\",\\"model\\":\\"evil","model":"{MODEL}",{MESSAGES}}}'.encode(),
    "white space everywhere": f' \r\n\t{{ \r\n"model" \t: \n"{MODEL}" , {MESSAGES}\r\n}} \r\n'.encode(),
    "the model's name escaped": f'{{"model":"\\u0073upport",{MESSAGES}}}'.encode(),
}


@pytest.mark.parametrize("name", UNUSUAL)
async def test_an_unusual_body_is_refused_or_forwarded_whole(siege: Siege, name: str) -> None:
    """Never a failure of the gateway's own; what is forwarded says what the client said, but for the model's name."""
    body = UNUSUAL[name]
    async with line(siege.house.url) as client:
        await client.say(counted(body=body))
        heard = await client.answers(1)
    assert heard.statuses in ([200], [400]), heard.raw[:300]
    for sent in siege.engine.requests:
        forwarded = sent.partition(b"\r\n\r\n")[2]
        assert forwarded.count(b'"raw"') == 1
        assert len(forwarded) <= len(body) + len(',"stream_options": {"include_usage": true}')
        assert b'"evil"' not in body or b"evil" in forwarded
    assert len(siege.engine.requests) == heard.statuses.count(200)
    await siege.unharmed(reached=len(siege.engine.requests))


def upload(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    """A multipart body of the boundary b."""
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF'
NAMED = b'Content-Disposition: form-data; name="model"\r\n\r\n' + MODEL.encode()
INNER = b"\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n"
UPLOADS = {
    "two models": upload(NAMED, FILE, NAMED.replace(b"support", b"other")),
    "two models, one in another case": upload(NAMED, FILE, NAMED.replace(b'"model"', b'"Model"')),
    "a model that is a file": upload(FILE, NAMED.replace(b'"model"', b'"model"; filename="m"')),
    "a model in base64": upload(FILE, NAMED.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: base64\r\n\r\n")),
    "a name that is encoded": upload(NAMED, NAMED.replace(b'name="model"', b"name*=utf-8''model")),
    "a name with an escape": upload(NAMED, NAMED.replace(b'"model"', b'"mo\\del"')),
    "no model": upload(FILE),
    "no end": upload(NAMED, FILE, end=b""),
    "an end amid the parts": upload(NAMED, FILE, end=b"--b--\r\n" + upload(NAMED)),
    "something before the first part": b"x\r\n" + upload(NAMED, FILE),
    "bare LF": upload(NAMED, FILE).replace(b"\r\n", b"\n"),
    "a boundary that is padded": upload(NAMED, FILE).replace(b"--b\r\n", b"--b \r\n", 1),
    "parts within a part": upload(NAMED, FILE.replace(b"RIFF", b"").replace(b"\r\n\r\n", INNER)),
    "a header folded": upload(NAMED.replace(b"; name", b";\r\n name"), FILE),
    "10,000 parts": upload(NAMED, *[FILE] * 10_000),
    "JSON": BODY,
}  # fmt: skip


@pytest.mark.parametrize("name", UPLOADS)
async def test_an_upload_that_cannot_be_routed_exactly_is_refused(siege: Siege, name: str) -> None:
    """400: what one reader of multipart takes for the model, another must take too."""
    body = UPLOADS[name]
    raw = counted(target="/v1/audio/transcriptions", body=body)
    raw = raw.replace(b"application/json", b"multipart/form-data; boundary=b", 1)
    async with line(siege.house.url) as client:
        await client.say(raw)
        heard = await client.answers(1)
    assert heard.statuses == [400], heard.raw[:300]
    await siege.unharmed()


async def test_a_model_nobody_knows_is_not_asked_of_anyone(siege: Siege) -> None:
    """404 for any name, whatever is in it; the name comes back as JSON."""
    for name in ("nobody", "raw", "../support", "support\\u0000", "\\ud800", "support ", 'a\\"b', "x" * 100_000):
        body = f'{{"model":"{name}",{MESSAGES}}}'.encode()
        async with line(siege.house.url) as client:
            await client.say(counted(body=body))
            heard = await client.answers(1)
        assert heard.statuses == [404], (name[:20], heard.raw[:200])
        assert json.loads(heard.raw.partition(b"\r\n\r\n")[2])["error"]["code"] == "model_not_found"
        assert len(heard.raw) < 10_000
    await siege.unharmed()


@pytest.mark.parametrize("space", [b" ", b"\n", b"\r\n\t "])
@pytest.mark.parametrize("padding", [0, 20_000])
async def test_white_space_around_a_body_is_nothing(siege: Siege, space: bytes, padding: int) -> None:
    """Before it and after it, long or short."""
    body = space + BODY[:-1] + b',"x":"%b"}' % (b"x" * padding) + space
    async with line(siege.house.url) as client:
        await client.say(counted(body=body))
        heard = await client.answers(1)
    assert heard.statuses == [200]


async def test_ten_megabytes_pass(siege: Siege) -> None:
    """A large prompt is no attack."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "a " * (TEN_MB // 2)}]}).encode()
    async with line(siege.house.url) as client:
        await client.say(counted(body=body))
        heard = await client.answers(1)
    assert heard.statuses == [200]
    assert len(siege.engine.requests[0]) > TEN_MB


async def test_expect_continue_is_answered_first(siege: Siege) -> None:
    """A client that asks before it sends is told to go on."""
    async with line(siege.house.url) as client:
        await client.say(request(f"Content-Length: {len(BODY)}", "Expect: 100-continue", body=b""))
        assert (await client.answers(1)).statuses == [100]
        await client.say(BODY)
        answered = await client.answers(2)
    assert answered.statuses == [100, 200]
    assert b"expect" not in siege.engine.requests[0].lower()


async def test_expect_something_else_is_no_hang(siege: Siege) -> None:
    """An expectation that nobody can meet is refused or ignored, at once."""
    async with line(siege.house.url) as client:
        await client.say(counted("Expect: 200-ok"))
        heard = await client.answers(1)
    assert heard.statuses in ([200], [417])


async def test_pipelined_requests_are_answered_in_order_or_not_at_all(siege: Siege) -> None:
    """Three requests in one packet: each answer is its own, and what is not answered was asked of nobody."""
    bodies = [json.dumps(json.loads(BODY) | {"user": f"u{n}"}).encode() for n in range(3)]
    async with line(siege.house.url) as client:
        await client.say(b"".join(counted(f"X-Request-Id: p{n}", body=body) for n, body in enumerate(bodies)))
        heard = await client.answers(3)
    answered = len(heard.statuses)
    assert heard.statuses == [200] * answered != []
    assert heard.closed or answered == 3
    ids = [row.split(b": ")[1] for row in heard.raw.split(b"\r\n") if row.lower().startswith(b"x-request-id:")]
    assert ids == [b"p0", b"p1", b"p2"][:answered]
    assert len(siege.engine.requests) == answered
    await siege.unharmed(reached=answered)


async def test_a_bad_request_behind_a_good_one_takes_nothing_with_it(siege: Siege) -> None:
    """The first is answered whole, the second refused, and the line ends."""
    async with line(siege.house.url) as client:
        await client.say(counted() + request("Content-Length: 5", "Transfer-Encoding: chunked"))
        heard = await client.until_closed()
    assert heard.closed
    assert heard.statuses in ([200, 400], [200])
    await siege.unharmed(reached=1)


async def test_a_client_that_never_listens_fills_nothing(siege: Siege) -> None:
    """Requests without end, no answer read: the worker stops reading, or hangs up."""
    async with line(siege.house.url) as client:
        assert await client.shout(counted() * 100, 64 * MEGABYTE) < 32 * MEGABYTE
    await siege.unharmed(reached=len(siege.engine.requests))


@pytest.mark.parametrize("stream", [False, True])
async def test_http_1_0_is_answered_and_closed(siege: Siege, stream: bool) -> None:
    """An old client knows no chunks: its answer ends with the connection."""
    body = json.dumps(json.loads(BODY) | {"stream": stream}).encode()
    async with line(siege.house.url) as client:
        await client.say(counted(version="1.0", body=body))
        heard = await client.until_closed()
    assert heard.closed
    assert heard.raw.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))
    assert b"transfer-encoding" not in heard.raw.lower()
    assert b"good" in heard.raw


async def test_connection_close_is_obeyed(siege: Siege) -> None:
    """A client that will not come back is not waited for."""
    async with line(siege.house.url) as client:
        await client.say(counted("Connection: close"))
        heard = await client.until_closed()
    assert heard.statuses == [200]
    assert heard.closed


@pytest.mark.parametrize("field", ["model", "user", "x"])
async def test_secrets_of_a_bad_body_are_not_echoed(siege: Siege, field: str) -> None:
    """An error names the fault, not the prompt."""
    async with line(siege.house.url) as client:
        await client.say(counted(body=f'{{"{field}":"my secret prompt'.encode()))
        heard = await client.answers(1)
    assert heard.statuses == [400]
    assert b"secret prompt" not in heard.raw


async def _one(siege: Siege, raw: bytes) -> list[int]:
    async with line(siege.house.url) as client:
        await client.say(raw)
        return (await client.answers(1)).statuses
