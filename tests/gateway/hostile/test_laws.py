"""The laws of every parser, over inputs that Hypothesis builds: whole JSON values, streams, uploads, and plain bytes.

The laws are those of `bench.fuzz`, which mutates; here inputs are mostly right, and shrink to the smallest that is not.
"""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bench.fuzz import bodies, lines, streams
from bench.fuzz.__main__ import TARGETS

MANY = settings(max_examples=150, deadline=None)
SEEDS = st.integers(0, 1 << 16)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["model", "stream", "stream_options", "user", "messages", "Model", "n", "mod\u0065l", "\u017ftream", ""]
) | st.text(max_size=8)


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """A JSON object as some client might write it: any members, twice perhaps, any spacing, escaped or not."""
    members = draw(st.lists(st.tuples(NAMES, VALUES), max_size=6))
    if draw(st.booleans()):
        members.insert(draw(st.integers(0, len(members))), ("model", draw(st.text(min_size=1, max_size=9))))
    space = st.sampled_from(["", " ", "\n", "\r\n\t"])
    plain = draw(st.booleans())
    parts = [
        f"{draw(space)}{json.dumps(name, ensure_ascii=plain)}{draw(space)}:{draw(space)}"
        f"{json.dumps(value, ensure_ascii=plain)}{draw(space)}"
        for name, value in members
    ]
    return f"{draw(space)}{{{','.join(parts) or draw(space)}}}{draw(space)}".encode("utf-8", "surrogatepass")


@MANY
@given(objects(), SEEDS)
@example(b'{"model":"a","\\ud800":1,"stream":true,"stream_options":{}}', 0)
@example(b'{"model":"a","stream":true,"stream_options":null}', 0)
@example(b'{"n":' + b"9" * 5000 + b',"model":"a"}', 1)
def test_two_readers_see_one_body(raw: bytes, seed: int) -> None:
    """What is forwarded says what the client said, but for the model and the usage that was asked for."""
    bodies.asked(raw, Random(seed))


FIELD = st.sampled_from([b"model", b"stream", b"user", b"file", b"language", b"Model"])


@st.composite
def uploads(draw: st.DrawFn) -> bytes:
    """A content type and an upload: any fields, files among them, any bytes."""
    boundary = draw(st.sampled_from([b"b", b"----WebKitFormBoundaryAbc", b"b-1"]))
    parts = draw(st.lists(st.tuples(FIELD, st.binary(max_size=30), st.booleans()), max_size=5))
    if draw(st.booleans()):
        parts.append((b"model", b"support", False))
    body = b"".join(
        b'--%b\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (boundary, name, b'; filename="f"' if file else b"", content)
        for name, content, file in parts
    )
    return b"multipart/form-data; boundary=%b\n%b--%b--\r\n" % (boundary, body, boundary)


@MANY
@given(uploads(), SEEDS)
def test_two_readers_see_one_upload(raw: bytes, seed: int) -> None:
    """The fields that route are the mail parser's too, and the model alone changes."""
    bodies.uploaded(raw, Random(seed))


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A stream as engines send them, and as none does: chunks, events, errors, comments, any line ends."""
    text = st.text(max_size=12)
    chunks = st.builds(
        lambda content, finish: {
            "id": "c",
            "model": "served-name",
            "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}],
        },
        text,
        st.sampled_from([None, "stop", "abort"]),
    )
    usage = st.just({"model": "served-name", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    error = st.just({"error": {"message": "gone", "code": 500}})
    events = st.builds(
        lambda delta, number: {"delta": delta, "sequence_number": number, "type": "response.output_text.delta"},
        text,
        st.integers(0, 9),
    )
    datas = draw(st.lists(chunks | usage | error | events | VALUES | st.just("[DONE]"), max_size=8))
    end = draw(st.sampled_from(["\n\n", "\r\n\r\n", "\r\r", "\n: c\n\n"]))
    ascii_ = draw(st.booleans())
    frames = [
        f"data: {data if data == '[DONE]' else json.dumps(data, ensure_ascii=ascii_, separators=(',', ':'))}{end}"
        for data in datas
    ]
    return "".join(frames).encode("utf-8", "surrogatepass")


@MANY
@pytest.mark.parametrize("law", [streams.split, streams.chat, streams.responses])
@given(raw=answers(), seed=SEEDS)
def test_cuts_and_short_cuts_make_no_difference(law, raw: bytes, seed: int) -> None:
    """Frames, what the client gets and what the reader knows depend on the bytes alone."""
    law(raw, Random(seed))


@MANY
@given(objects(), SEEDS)
def test_the_model_alone_is_renamed(raw: bytes, seed: int) -> None:
    """Whatever else an answer says, in any nesting."""
    streams.named(raw.replace(b'"model": "', b'"model": "served-name'), Random(seed))


HEADERS = st.sampled_from([
    b"Content-Length: 32", b"Content-Length: 0", b"content-length:32", b"Transfer-Encoding: chunked",
    b"Connection: close",
    b"Transfer-Encoding: identity", b"Content-Length: 5", b"Expect: 100-continue", b"X: y", b"Host: b", b" folded",
    b"TE : x", b"Transfer-Encoding:chunked", b"Content-Type: application/json", b"Content-Encoding: gzip",
])  # fmt: skip


@pytest.mark.source
@MANY
@given(st.lists(HEADERS, max_size=5), st.sampled_from([b"\r\n", b"\n"]), st.binary(max_size=40), SEEDS)
def test_two_readers_see_one_request(headers: list[bytes], end: bytes, tail: bytes, seed: int) -> None:
    """Whatever the headers say of its length, and whatever follows it."""
    head = end.join([b"POST /v1/completions HTTP/1.1", b"Host: a", *headers]) + end + end
    for body in (b'{"model":"support","prompt":"x"}', b'20\r\n{"model":"support","prompt":"x"}\r\n0\r\n\r\n'):
        lines.requested(head + body + tail, Random(seed))


REPLIES = st.sampled_from([
    b"content-length: 8", b"content-length: 9", b"content-length: 0", b"transfer-encoding: chunked",
    b"connection: close",
    b"content-length:8", b"transfer-encoding: gzip", b"x: y", b" folded", b"content-encoding: gzip", b"upgrade: x",
])  # fmt: skip


@MANY
@given(st.integers(0, 999), st.lists(REPLIES, max_size=4), st.binary(max_size=30), SEEDS)
def test_two_readers_see_one_answer(status: int, headers: list[bytes], tail: bytes, seed: int) -> None:
    """Whatever an engine says of its length, and whatever it says behind it."""
    head = b"\r\n".join([b"HTTP/1.1 %03d X" % status, *headers]) + b"\r\n\r\n"
    for body in (b'{"ok":1}', b'8\r\n{"ok":1}\r\n0\r\n\r\n'):
        lines.replied(head + body + tail, Random(seed))


@pytest.mark.source
@MANY
@pytest.mark.parametrize("name", TARGETS)
@given(raw=st.binary(max_size=60), seed=SEEDS)
def test_plain_bytes_are_refused_or_read(name: str, raw: bytes, seed: int) -> None:
    """Nothing but the laws' own verdicts comes out of a parser, whatever goes in."""
    TARGETS[name].law(raw, Random(seed))
