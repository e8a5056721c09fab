"""Laws of request bodies: what the gateway reads is what an engine will read, and what it changes is all that changes.

The second reader of JSON is Python's, which vLLM's server uses too; of uploads, the standard library's mail parser.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from email import policy
from email.message import Message
from email.parser import BytesParser
from random import Random

from bench.fuzz.laws import Members, hold, members, refusal
from gateway.door import ask, multipart
from gateway.door.ask import Ask
from gateway.door.multipart import Upload
from gateway.errors import ApiError
from serving.quick import loads

SERVED = "served-name"
_ROUTING = frozenset({"model", "stream", "stream_options"})
_FIELDS = frozenset({"model", "stream", "user", "safety_identifier"})
_FEW = 20  # brackets
_PYTHON = json.JSONDecoder()
_TOO_DEEP = "too deep"
_CHAT = (
    b'{"model":"support","messages":[{"role":"system","content":"x"},{"role":"user","content":"hello"}],"stream":true}'
)
_LONG = b'{"messages":[{"role":"user","content":"' + b'a\\"b\\\\ ' * 3000 + b'"}],"model":"support","n":2}'

JSON_SEEDS = (
    _CHAT,
    b'{"model":"support","prompt":["a","b"],"stream":true,"stream_options":{"include_usage":false,"x":1.50}}',
    b'{"model": "support", "prompt": "\\u00e9\\ud83d\\ude00", "max_tokens": 16, "temperature": 0.7, "user": "u1"}',
    b' {\n "model" : "support" ,\r\n "input" : [1, 2.5e3, -0, true, false, null] ,\t"stream":false } ',
    b'{"tools":[{"type":"function","function":{"parameters":{"model":"inner","stream":true}}}],"model":"support"}',
    b'{"model":"support","stream":null,"stream_options":null,"n":1,"best_of":3}',
    b'{"mod\\u0065l":"support","safety_identifier":"s","documents":[{},[],""]}',
)
JSON_WORDS = (
    b'"model":"other",', b'"Model":"x",', b'"stream":true,', b'"stream":false,', b'"STREAM":1,', b'"\\u006dodel":"x",',
    b'"stream_options":{"include_usage":true},', b'"stream_options":null,', b'"user":"\\ud800",', b'"n":99999999999,',
    b"NaN", b"-Infinity", b"1e999", b"1" * 30, b"[" * 70, b"]" * 70, b'{"a":' * 70, b"}" * 70, b"\\u0000", b"\\ud800",
    b"\\", b'\\"', b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"\xc3\xa9", b"\xed\xa0\x80", b"\xef\xbb\xbf",
    b"\xff\xfe", b"/*", b"*/", b"'", b"\x00", b'":"', b'","', b'},{"role":"user"', b'"role":"user"', b" " * 40,
    b'"' + b"x" * 17000 + b'",', b'"max_tokens":' + b"9" * 400 + b",", b'"max_completion_tokens":1e400,',
    b'"max_output_tokens":-5,', b'"n":' + b"9" * 400 + b",", b'"best_of":NaN,', b'"n":-1e400,', b'"n":128,',
)  # fmt: skip
_TOKENS_MOST = 2**31 * 128  # of an answer, times the answers
TEXT_SEEDS = (
    *JSON_SEEDS,
    b"[1, 1.0, -0, -0.0, 1e23, 1E400, -1e-400, 9007199254740993, 18446744073709551616, 0.1]",
    b'{"a": 1, "b": [true, false, null, {}], "a": "\\ud83d\\ude00 \\ud800 \\u0000 \\/"}',
    b'["\xc3\xa9\xf0\x9f\x98\x80\xed\xa0\x80", NaN, Infinity, -Infinity]',
    b'"text"', b"-12.5e+3", b" null\n", b"[[[[]]],{}]",
)  # fmt: skip
TEXT_WORDS = (
    *JSON_WORDS, b"Infinity", b"-", b"+", b".", b"e", b"E", b"e+", b"0", b"00", b"e308", b"e-324", b"\\ude00",
    b"\x7f", b"\x1f", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x0b", b"\x0c", b"tru", b"True", b"9" * 400,
    b"0." + b"3" * 60, b'"a":', b"[1,]", b"\xe2\x80\xa8",
)  # fmt: skip


def asked(raw: bytes, chance: Random) -> str:
    """Hold a JSON body against the second reader's view of it, before and after; long or short makes no difference."""
    usage = chance.random() < 0.5
    said = _asked(raw, usage=usage)
    if chance.random() < 0.06 and (longer := _lengthened(raw)):
        told = _asked(longer, usage=usage)
        hold(said == told or not _is_json(raw), f"long or short, it is read alike: {said} {told}")
    return said


def _is_json(raw: bytes) -> bool:
    """Tell whether a body is JSON in UTF-8; Python's parser takes surrogates too, which is not."""
    try:
        return members(raw.decode()) is not None
    except UnicodeDecodeError:
        return False


def _plain(raw: bytes) -> bool:
    """Tell whether nothing in a body can be held against it: JSON, small, each name once, a model, a stream or none."""
    said = members(raw) if _is_json(raw) else None
    names = [name for name, _ in said or ()]
    if said is None or len({name.casefold() for name in names}) < len(names) or {"n", "best_of"} & set(names):
        return False
    value = dict(said)
    model, options = value.get("model"), value.get("stream_options")
    told = type(model) is str and bool(model) and type(value.get("stream", False)) is bool
    spelt = all(name in _ROUTING for name in names if name.casefold() in _ROUTING)
    return told and spelt and isinstance(options, Members | None) and raw.count(b"{") + raw.count(b"[") < _FEW


def _lengthened(raw: bytes) -> bytes:
    """Put a long member first, which sends a body the way of long ones; nothing if that would not be the same body."""
    before, brace, after = raw.partition(b"{")
    same = brace and not before.strip(b" \t\r\n") and not after.lstrip(b" \t\r\n").startswith(b"}")
    return before + b'{"padding":"' + b'x\\"' * 6000 + b'",' + after if same else b""


def _asked(raw: bytes, *, usage: bool) -> str:
    try:
        request = ask.read(raw, usage=usage)
        request.unit()
    except ApiError as error:
        hold(not _plain(raw), f"what is plain is taken: {error}")
        return refusal(error)
    request.opening()
    most = len(raw) // 4 + _TOKENS_MOST
    hold(0 <= request.prompt_tokens <= request.tokens <= most, f"an estimate has its bounds: {request.tokens}")
    float(request.tokens)
    before = members(raw)
    if before is None:
        hold(members(request.forward(SERVED)) is None, "what is no JSON is none when it is forwarded")
        return "forwarded though no JSON"
    _unambiguous(before)
    said = dict(before)
    hold(request.model == said["model"] and type(said["model"]) is str, "both readers see one model")
    hold(request.stream is (said.get("stream") is True), "both readers see one stream")
    _only_changed(before, members(request.forward(SERVED)), _expected(request, said))
    absent = dict.fromkeys(({"stream", "stream_options"} & said.keys()), None)
    _only_changed(before, members(request.forward_whole(SERVED)), {"model": SERVED, **absent})
    return f"forwarded {request.stream} {request.usage_asked} {bool(request.opening())}"


def quick(raw: bytes, chance: Random) -> str:
    """Hold the quick reading of JSON against Python's own: the same values of the same types, or both raise."""
    errors = chance.choice(("strict", "surrogatepass", "replace"))
    ours, theirs = _told(lambda: loads(raw, errors)), _told(lambda: _PYTHON.decode(raw.decode("utf-8", errors)))
    hold(ours == theirs or _TOO_DEEP in (ours, theirs), f"both parsers say the same: {ours[:200]} {theirs[:200]}")
    return ours[:40] if raw.count(b"[") + raw.count(b"{") < _FEW else ours[:8]


def _told(read: Callable[[], object]) -> str:
    """Return what a parser says, types and signs and all; each may have its own idea of what is too deep."""
    try:
        return repr(read())
    except ValueError:
        return "none"
    except RecursionError:
        return _TOO_DEEP


def _unambiguous(before: Members) -> None:
    """No member that is routed by is given twice, in whatever case or escapes; of others both readers take the last."""
    routing = [name for name, _ in before if name.casefold() in _ROUTING]
    hold(
        len(routing) == len(set(routing)) and _ROUTING.issuperset(routing), f"one of each that is routed by: {routing}"
    )


def _expected(request: Ask, said: dict[str, object]) -> dict[str, object]:
    if not request.stream or request.usage_asked:
        return {"model": SERVED}
    options = said.get("stream_options") or Members()
    hold(isinstance(options, Members), "stream_options is an object")
    return {"model": SERVED, "stream_options": options}


def _only_changed(before: Members, after: Members | None, changes: dict[str, object]) -> None:
    hold(after is not None, "what is forwarded is JSON")
    names, added = [name for name, _ in before], [name for name in changes if name not in dict(before)]
    hold([name for name, _ in after or ()] == names + added, "members keep their order")
    for (name, value), (_, forwarded) in zip(before, after or (), strict=False):
        if name not in changes:
            hold(forwarded == value, f"{name!r} is forwarded as it came")
    now = dict(after or ())
    for name, value in changes.items():
        hold(_as_asked(now[name], value), f"{name!r} is changed as it should be")


def _as_asked(now: object, value: object) -> bool:
    """Tell whether a value was set; options keep their names and gain one."""
    if not isinstance(value, Members):
        return now == value
    wanted = dict(value).keys() | {"include_usage"}
    return isinstance(now, Members) and dict(now).keys() == wanted and dict(now)["include_usage"] is True


TYPE = b'multipart/form-data; boundary="b-1"'


def _upload(*parts: bytes, type_: bytes = TYPE) -> bytes:
    """An input of the upload's law: its content type, a line feed, its body."""
    return type_ + b"\n" + b"".join(b"--b-1\r\n" + part + b"\r\n" for part in parts) + b"--b-1--\r\n"


_MODEL = b'Content-Disposition: form-data; name="model"\r\n\r\nsupport'
_FILE = (
    b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF\x00\x01\r\n'
)
UPLOAD_SEEDS = (
    _upload(_MODEL, _FILE),
    _upload(_FILE, _MODEL, b'Content-Disposition: form-data; name="stream"\r\n\r\ntrue'),
    _upload(_FILE, b"content-disposition: form-data; name=model\r\nContent-Type: text/plain\r\n\r\nsupport"),
    _upload(
        _MODEL, b'Content-Disposition: form-data; name="user"\r\n\r\nu1', type_=b"multipart/form-data;boundary=b-1"
    ),
)
UPLOAD_WORDS = (
    b"--b-1\r\n", b"--b-1--\r\n", b"\r\n--b-1\r\n", b"\n--b-1\n", b"--b-1 \r\n", b"\r\n\r\n", b"\r\n", b"\n", b"--",
    b'Content-Disposition: form-data; name="model"\r\n\r\n', b'; name="model"', b'; name="Model"',
    b"; name*=utf-8''model", b'; filename="x"', b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Type: multipart/mixed; boundary=b-2\r\n",
    b"_charset_", b"boundary=b-2;", b'boundary="b-1";', b"; charset=utf-8", b"; charset=utf-7", b"\x00", b"\xff",
    b'\\"', b"other", b"support", b"true", b"maybe", b" ", b"\t", b":",
)  # fmt: skip


def uploaded(raw: bytes, _chance: Random) -> str:
    """Hold an upload against the second reader's view of it; its model alone changes."""
    type_, _, body = raw.partition(b"\n")
    try:
        upload = multipart.read(body, type_)
    except ApiError as error:
        return refusal(error)
    seen = _fields(type_, body)
    hold(seen == [(name, field.value) for name, field in _placed(upload)], f"both readers see the same fields: {seen}")
    forwarded = upload.forward(SERVED)
    model = upload.fields["model"]
    hold(forwarded == body[: model.start] + SERVED.encode() + body[model.end :], "the model alone changes")
    hold(multipart.read(forwarded, type_).model == SERVED, "the model is what was put there")
    hold(not multipart.read(upload.forward_whole(SERVED), type_).stream, "an answer that is asked whole is whole")
    return f"forwarded {upload.stream} {len(upload.fields)}"


def _placed(upload: Upload) -> list[tuple[str, multipart.Field]]:
    return sorted(upload.fields.items(), key=lambda item: item[1].start)


def _fields(type_: bytes, body: bytes) -> list[tuple[str, str]]:
    """The fields that matter, in their order, as the mail parser finds them."""
    parsed = BytesParser(policy=policy.HTTP).parsebytes(b"Content-Type: " + type_ + b"\r\n\r\n" + body)
    parts = parsed.get_payload() if parsed.is_multipart() else []
    found = [(_name_of(part), part) for part in parts if isinstance(part, Message)]
    return [(name, _content(part)) for name, part in found if name.casefold() in _FIELDS]


def _name_of(part: Message) -> str:
    name = part.get_param("name", header="content-disposition")
    return name if isinstance(name, str) else ""


def _content(part: Message) -> str:
    content = part.get_payload(decode=True)
    return content.decode(errors="replace") if isinstance(content, bytes) else ""
