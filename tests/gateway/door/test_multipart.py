from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.door.multipart import read
from gateway.errors import ApiError

TYPE = b"multipart/form-data; boundary=b-1"
AUDIO = b"\x00\xff\r\n--b-2\r\n\r\nRIFF"


def part(name: str, value: bytes, more: str = "") -> bytes:
    """One part as SDKs write it."""
    return b'--b-1\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name.encode(), more.encode(), value)


def upload(*parts: bytes) -> bytes:
    """A body of these parts."""
    return b"".join(parts) + b"--b-1--\r\n"


FILE = part("file", AUDIO, '; filename="a.wav"\r\nContent-Type: audio/wav')
MODEL = part("model", b"whisper")


def encoded(data: dict[str, str | list[str]], audio: bytes) -> tuple[bytes, bytes]:
    """A body and its content type, as the HTTP client under openai-python makes them."""
    request = httpx.Request("POST", "http://x", data=data, files={"file": ("a.wav", audio, "audio/wav")})
    return request.read(), request.headers["content-type"].encode()


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(words, words, st.binary(max_size=200), st.sampled_from([None, "true", "false"]), words)
def test_only_the_model_changes(model: str, served: str, audio: bytes, stream: str | None, prompt: str):
    """What leaves is what the client would have sent had it asked for the served model."""
    data: dict[str, str | list[str]] = {
        "prompt": prompt,
        "model": model,
        "timestamp_granularities[]": ["word", "segment"],
    }
    data |= {"stream": stream} if stream else {}
    body, kind = encoded(data, audio)
    asked = read(body, kind)
    assert (asked.model, asked.stream, asked.content_type, asked.forward(model)) == (
        model,
        stream == "true",
        kind,
        body,
    )
    other, _ = encoded({**data, "model": served}, audio)
    boundary, others = kind.rpartition(b"=")[2], other[2:34]
    assert asked.forward(served) == other.replace(others, boundary)
    whole, _ = encoded({**data, "model": served} | ({"stream": "false"} if stream else {}), audio)
    assert asked.forward_whole(served) == whole.replace(whole[2:34], boundary)


@pytest.mark.parametrize(
    "kind",
    [
        TYPE,
        b'Multipart/Form-Data;boundary="b-1"',
        b"multipart/form-data; charset=utf-8; boundary=b-1",
        b'multipart/form-data; boundary=b-1; charset="UTF-8"',
    ],
)
def test_the_usual_ways_to_name_a_boundary(kind: bytes):
    """Browsers, SDKs and curl differ a little."""
    assert read(upload(MODEL, FILE), kind).model == "whisper"


@pytest.mark.parametrize(
    "disposition",
    [b'form-data; name="model"', b"form-data; name=model", b'FORM-DATA;name="model" '],
)
def test_the_usual_ways_to_name_a_part(disposition: bytes):
    """Some frameworks do not quote."""
    body = upload(b"--b-1\r\ncontent-disposition: " + disposition + b"\r\nContent-Type: text/plain\r\n\r\nw\r\n", FILE)
    assert read(body, TYPE).model == "w"


def test_a_file_may_have_any_name_and_any_bytes():
    """Neither is read."""
    names = ('; filename="m\\"odel"', "; filename=a.wav; filename*=utf-8''a.wav", '; filename="name=model"')
    for more in names:
        assert read(upload(part("file", AUDIO, more), MODEL), TYPE).model == "whisper"
    assert read(upload(part("file", b"", names[0]), MODEL)[:-2], TYPE).model == "whisper"


@pytest.mark.parametrize(
    "kind",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b"multipart/form-data; boundary=a; boundary=b-1",
        b"multipart/form-data; boundary=b-1; charset=utf-16",
        b"multipart/form-data; boundary*=utf-8''b-1",
        b'multipart/form-data; boundary="b-1 "',
        b"multipart/mixed; boundary=b-1",
        b"multipart/form-data; boundary=" + b"b" * 71,
    ],
)
def test_a_boundary_that_two_could_read_differently_is_refused(kind: bytes):
    """Or none at all."""
    with pytest.raises(ApiError, match="boundary"):
        read(upload(MODEL), kind)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b-1--\r\n" + MODEL,
        b"preamble\r\n" + upload(MODEL),
        b"\r\n" + upload(MODEL),
        upload(MODEL) + b"epilogue",
        upload(MODEL).replace(b"--b-1--", b"--b-1 --"),
        upload(MODEL).replace(b"--b-1\r\n", b"--b-1 \r\n"),
        upload(MODEL).replace(b"\r\n", b"\n"),
        b"".join([MODEL, FILE]),
        upload(MODEL, MODEL),
        upload(MODEL, part("Model", b"other")),
        upload(MODEL, part("stream", b"true"), part("stream", b"false")),
        upload(MODEL, part("stream", b"true"), part("Stream", b"false")),
        upload(part("model", b"w", '; filename="m"')),
        upload(part("model", b"w", "\r\nContent-Transfer-Encoding: base64")),
        upload(part("model", b"w", "\r\nContent-Length: 1")),
        upload(part("model", b"\xff")),
        upload(MODEL, part("x", b"y", "; name*=utf-8''model")),
        upload(MODEL, part("x", b"y", '; name="model"')),
        upload(MODEL, b"--b-1\r\nX: y\r\n\r\nno name\r\n"),
        upload(MODEL, b"--b-1\r\n\r\nno headers\r\n"),
        upload(MODEL, part("x", MODEL.replace(b"\r\n", b"\n"))),
        upload(MODEL, part("x", b"a\n" + MODEL)),
        upload(MODEL, part("x", b"--b-1")),
        upload(MODEL, part("x", b"y", '\r\nContent-Disposition: form-data; name="model"')),
        upload(MODEL, part("x", b"y", '\r\n folded: name="model"')),
        upload(MODEL, part("x", b"y", "\r\nContent-Type: multipart/mixed; boundary=c")),
        upload(MODEL, part("x\\", b"y")),
        upload(MODEL, part("x", b"y", "\r\nX: \x00")),
        upload(MODEL, part("x", b"y", "\r\nX: " + "y" * 9000)),
        upload(MODEL, *[part(f"x{i}", b"y") for i in range(64)]),
        upload(MODEL, b'--b-1\r\nContent-Disposition: form-data; name="x"\r\n\r\n--b-1\r\n'),
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(body: bytes):
    """The engine must find the model that was routed by, and no other."""
    with pytest.raises(ApiError) as refused:
        read(body, TYPE)
    assert (refused.value.status, refused.value.code) == (400, "invalid_multipart")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (upload(FILE), "missing_model", "model"),
        (upload(FILE, part("model", b"")), "missing_model", "model"),
        (upload(MODEL, part("stream", b"maybe")), "invalid_type", "stream"),
    ],
)
def test_what_is_missing_or_wrong_is_said(body: bytes, code: str, param: str):
    """As for a JSON body."""
    with pytest.raises(ApiError) as refused:
        read(body, TYPE)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, code, param)


def test_the_face_of_a_json_body():
    """Who asks, what it may cost, and no conversation to keep together."""
    asked = read(upload(MODEL, part("safety_identifier", b"s"), part("user", b"u"), part("stream", b""), FILE), TYPE)
    assert (asked.unit(), asked.opening(), asked.usage_asked, asked.stream) == ("u", "", True, False)
    assert read(upload(MODEL), TYPE).unit() == ""
    long = read(upload(MODEL, part("file", bytes(640_000), '; filename="a"')), TYPE)
    assert 1000 < long.tokens < 1500


def known(body: bytes) -> list[tuple[str | None, bytes]]:
    """What the standard library reads in a body: names and contents."""
    message = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + TYPE + b"\r\n\r\n" + body)
    parts = message.iter_parts()
    return [(part.get_param("name", header="content-disposition"), part.get_payload(decode=True)) for part in parts]


pieces = st.sampled_from(
    [
        MODEL,
        part("stream", b"true"),
        part("x", b"--b-1"),
        part("user", b"--b-"),
        b"--b-1",
        b"\r\n",
        b"--",
        b"\n",
        b'"',
        b";",
        b"name=model",
    ]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(pieces, max_size=4), st.booleans(), st.none() | st.tuples(st.integers(0, 300), st.integers(0, 255)))
def test_no_bytes_are_read_otherwise_than_by_the_standard_library(parts: list[bytes], last: bool, change: tuple | None):
    """Either refused, or the same model, for any mixture and any wrong byte."""
    body = upload(MODEL, *parts) if last else upload(*parts, MODEL)
    if change:
        at = change[0] % len(body)
        body = body[:at] + bytes([change[1]]) + body[at + 1 :]
    try:
        asked = read(body, TYPE)
    except ApiError:
        return
    models = [value for name, value in known(body) if name == "model"]
    assert [value.decode() for value in models] == [asked.model]
    assert asked.forward(asked.model) == body
