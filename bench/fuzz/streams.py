"""Laws of answers on their way through: where the network cut them makes no difference, nor does any short cut."""

from __future__ import annotations

from functools import partial
from random import Random

from bench.fuzz.bodies import SERVED
from bench.fuzz.laws import Members, hold, members
from bench.fuzz.mutate import cut
from gateway.relay.answer import StreamedAnswer
from gateway.relay.naming import PublicName
from gateway.routes.table import Form
from serving.sse import FrameSplitter, payload
from serving.wire import read_whole, readable

PUBLIC = "support"
_NAME = PublicName(SERVED, PUBLIC)
_EVERYTHING = 1 << 40  # characters


def _frames(*datas: bytes, end: bytes = b"\n\n") -> bytes:
    return b"".join(b"data: " + data + end for data in datas)


_DELTA = b'{"id":"c-1","model":"served-name","choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}'
_TEXT = b'{"id":"c-1","model":"served-name","choices":[{"index":0,"text":"%b","finish_reason":null}]}'
_LAST = b'{"id":"c-1","model":"served-name","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
_USAGE = b'{"id":"c-1","model":"served-name","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
_EVENT = (
    b"event: response.output_text.delta\n"
    b'data: {"delta":"%b","sequence_number":%d,"type":"response.output_text.delta"}\n\n'
)
_CREATED = b'{"response":{"id":"r","model":"served-name","output":[]},"sequence_number":0,"type":"response.created"}'
_DONE = b'{"response":{"model":"served-name","usage":{"input_tokens":1,"output_tokens":2}},"type":"response.completed"}'

STREAM_SEEDS = (
    _frames(*(_DELTA % word for word in (b"a", b"b c", b"\\n", b"\xc3\xa9", b"d")), _LAST, _USAGE, b"[DONE]"),
    _frames(*(_TEXT % word for word in (b"a", b"b", b"c")), b"[DONE]", end=b"\r\n\r\n"),
    _frames(_CREATED) + b"".join(_EVENT % (word, n) for n, word in enumerate((b"a", b"b", b"c"), 4)) + _frames(_DONE),
    b": comment\n\nevent: x\ndata: {\ndata: }\n\nid: 1\nretry: 5\n\n" + _frames(_DELTA % b"x", end=b"\r\r"),
    _frames(_DELTA % b"x", b'{"error":{"message":"gone","code":500}}', b"[DONE]"),
    b"\xef\xbb\xbfdata:" + _DELTA % b"x" + b"\n\n",
)
STREAM_WORDS = (
    b"data: ", b"data:", b"data", b"event: error\n", b"[DONE]", b"\n\n", b"\r\n\r\n", b"\r", b"\n", b"\r\r", b": x\n\n",
    b'"model":"served-name"', b'"model":"other"', b'"model":null', b'"model":{}', b'"content":"x"', b'"text":"x"',
    b'"delta":"x"', b'"finish_reason":"stop"', b'"finish_reason":"abort"', b'"usage":{"prompt_tokens":1}', b"\\u0000",
    b'"sequence_number":7', b"\\ud800", b"\\", b'"', b"{", b"}", b"[", b"]", b",", b"\x85", b"\xe2\x80\xa8", b"\xff",
    b'"response":{"model":"served-name"}', b'"choices":[]', b'"error":{}', b"null", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b'{"a":' * 300, b"[" * 3000, b"9" * 5000,
)  # fmt: skip


def split(raw: bytes, chance: Random) -> str:
    """Frames are the bytes fed in, and the cuts are forgotten."""
    whole, pieces = FrameSplitter(), FrameSplitter()
    at_once = whole.feed(raw)
    in_pieces = [frame for piece in cut(raw, chance) for frame in pieces.feed(piece)]
    hold(b"".join(at_once) + whole.rest == raw, "the frames and the rest are what was fed in")
    hold(at_once == in_pieces and whole.rest == pieces.rest, "the cuts make no difference")
    first = at_once[:4]
    return f"{len(first)} {[payload(frame) is None for frame in first]} {[readable(frame) for frame in first]}"


def relayed(raw: bytes, chance: Random, *, form: Form) -> str:
    """A client gets the same bytes however they were cut, with templates and without, and the reader hears the same."""
    asked = chance.random() < 0.5
    for keep in (0, _EVERYTHING):
        told = [
            _relay(pieces, StreamedAnswer(_NAME, usage_asked=asked, keep_text=keep, form=form, lessons=lessons))
            for pieces, lessons in (([raw], 8), (cut(raw, chance), 8), ([raw], 0))
        ]
        hold(told[0] == told[1], "the cuts make no difference")
        hold(told[0] == told[2], "a template says what the parser says")
    _, _, chunks, *heard = told[0]
    return f"{min(chunks, 5)} {heard}"


def _relay(pieces: list[bytes], answer: StreamedAnswer) -> tuple[bytes, str, int, bool, bool, str, bool, bool]:
    """Relay a stream; return what the client gets, and what the reader knows at its end."""
    out = b"".join([*(answer.take(piece, 1.0) for piece in pieces), answer.end()])
    reader = answer.reader
    known = reader.done, reader.complete, reader.finish_reason[:20], reader.usage is not None, reader.error is not None
    return out, reader.text, reader.content_chunks, *known


chat = partial(relayed, form=Form.CHAT)
responses = partial(relayed, form=Form.RESPONSES)


NAME_SEEDS = (
    _DELTA % b"x", b'{"model":"served-name"}', b'{"choices":[{"model":"served-name"}],"model":"served-name","n":1.0}',
    _CREATED, b'{ "id" : 1 , "model" : "served-name" , "response" : { "model" : "served-name" } }',
    b'{"model":"served-name","a":"\\"model\\":\\"served-name\\""}',
)  # fmt: skip


def named(raw: bytes, _: Random) -> str:
    """Of an object only its own model is renamed, and what is no object stays none."""
    out = _NAME.body(raw)
    read_whole(raw, 100)
    before = _text_members(raw)
    if before is None:
        hold(_text_members(out) is None, "what is no object stays none")
        return f"no object {out == raw}"
    if b"\\u" in raw:
        return "an escape"  # no engine escapes a key's letters, and nobody looks for one that does
    hold(_read(_text_members(out)) == _renamed(before), "the model alone is renamed")
    frame = _NAME.frame(b"data: " + raw.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n\n")
    hold(members(payload(frame) or b"") == members(out.replace(b"\r", b" ").replace(b"\n", b" ")), "framed or not")
    return f"{raw == out} {[name for name, _ in before][:3]}"[:80]


def _text_members(raw: bytes) -> Members | None:
    """Read UTF-8 alone: answers come in nothing else."""
    try:
        return members(raw.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None


def _read(answer: Members | None) -> dict[str, object]:
    """Read an answer as a client does: of a member given twice, the last."""
    said: dict[str, object] = dict(answer or ())
    inner = said.get("response")
    return said | ({"response": dict(inner)} if isinstance(inner, Members) else {})


def _renamed(before: Members) -> dict[str, object]:
    """The same answer with the public name where it has its own."""
    said = _read(before)
    for place in (said, said.get("response")):
        if isinstance(place, dict) and type(place.get("model")) is str:
            place["model"] = PUBLIC
    return said
