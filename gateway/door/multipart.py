"""An upload: multipart/form-data in which one field's value is replaced, and every other byte forwarded as it came.

The grammar is RFC 7578's in the form that browsers and SDKs write, and nothing more: what two parsers could read in two
ways (a preamble, padding after a boundary, bare LF, folded or encoded parameters, a field given twice) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.errors import ApiError

_TYPE = re.compile(
    rb'multipart/form-data[ \t]*;[ \t]*(?:charset="?utf-8"?[ \t]*;[ \t]*)?'
    rb"boundary=(?:([0-9a-z'+_.-]{1,70})|\"([0-9a-z'()+_,./:=?-]{1,70})\")"
    rb'(?:[ \t]*;[ \t]*charset="?utf-8"?)?[ \t]*',
    re.IGNORECASE,
)
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_DISPOSITION = re.compile(
    rb'form-data[ \t]*;[ \t]*name=(?:"([^"\\]{1,200})"|([^;"\\ \t]{1,200}))[ \t]*'
    rb'((?:;[ \t]*(?:filename=(?:"(?:[^"\\]|\\.)*"|[^;"\\ \t]+)|filename\*=[^;"\\ \t]+)[ \t]*){0,2})',
    re.IGNORECASE,
)
_MOST_PARTS = 64
_MOST_HEADERS = 8192  # bytes of one part's headers
_ROUTING = frozenset({"model", "stream", "user", "safety_identifier"})
_UNIT_FIELDS = ("user", "safety_identifier")
_FLAGS = {
    **dict.fromkeys(("true", "1", "on", "t", "y", "yes"), True),
    **dict.fromkeys(("", "false", "0", "off", "f", "n", "no"), False),
}
_BYTES_PER_TOKEN = 640  # 16-bit speech at 16 kHz, of which encoders make about 50 tokens a second
_USUAL_ANSWER = 256  # tokens


@dataclass(frozen=True, slots=True)
class Field:
    """One routing field: its value, and where that stands in the body."""

    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload, with the face of `Ask`. `tokens` estimates what it may cost from its length."""

    body: bytes
    content_type: bytes
    fields: Mapping[str, Field]
    model: str
    stream: bool

    @property
    def usage_asked(self) -> bool:
        """Usage comes in a stream only when the client's own field asks for it: it is the client's."""
        return True

    @property
    def tokens(self) -> int:
        """An estimate of what the request may cost."""
        return self.prompt_tokens + _USUAL_ANSWER

    @property
    def prompt_tokens(self) -> int:
        """An estimate of what it is to be read."""
        return len(self.body) // _BYTES_PER_TOKEN

    def forward(self, served_model: str) -> bytes:
        """Return the body for an engine: another `model`."""
        return self._spliced({"model": served_model})

    def forward_whole(self, served_model: str) -> bytes:
        """Return the same request, to be answered whole."""
        return self._spliced({"model": served_model, **({"stream": "false"} if self.stream else {})})

    def unit(self) -> str:
        """Return who the fields say is asking, "" if they do not say."""
        return next((field.value for name in _UNIT_FIELDS if (field := self.fields.get(name))), "")

    def opening(self) -> str:
        """An upload is no conversation."""
        return ""

    def _spliced(self, changes: Mapping[str, str]) -> bytes:
        """Put new values at their fields' places."""
        whole = memoryview(self.body)  # slices of it are no copies of the audio
        parts: list[bytes | memoryview] = []
        at = 0
        for name in sorted(changes, key=lambda name: self.fields[name].start):
            parts += [whole[at : self.fields[name].start], changes[name].encode()]
            at = self.fields[name].end
        return b"".join([*parts, whole[at:]])


def read(body: bytes, content_type: bytes) -> Upload:
    """Read an upload. Raises ApiError (400) on what cannot be routed exactly."""
    typed = _TYPE.fullmatch(content_type)
    if typed is None:
        raise _bad("the content type names no usable boundary")
    fields: dict[str, Field] = {}
    for headers, start, end in _parts(body, b"--" + (typed[1] or typed[2])):
        name, file = _name(headers)
        if name.casefold() not in _ROUTING:
            continue
        if name in fields or name.casefold() != name:
            raise _bad(f"the field {name!r} is given twice or in the wrong case")
        fields[name] = Field(_value(name, headers, body[start:end], file=file), start, end)
    model = fields.get("model")
    if model is None or not model.value:
        raise ApiError(400, "you must provide a model parameter", "missing_model", param="model")
    stream = _FLAGS.get(fields["stream"].value.lower()) if "stream" in fields else False
    if stream is None:
        raise ApiError(400, "`stream` must be true or false", "invalid_type", param="stream")
    return Upload(body, content_type, fields, model.value, stream)


def _parts(body: bytes, mark: bytes) -> Iterator[tuple[dict[bytes, bytes], int, int]]:
    """Walk the parts: the headers of each, and where its content starts and ends."""
    if not body.startswith(mark):
        raise _bad("it does not begin with its boundary")
    at = len(mark)
    for _ in range(_MOST_PARTS):
        if body[at : at + 2] != b"\r\n":
            break
        start = body.find(b"\r\n\r\n", at, at + _MOST_HEADERS) + 4
        # Wherever the boundary stands, a lenient parser could see an end: it may stand nowhere but at one.
        end = body.find(mark, at) - 2
        if start < 4 or end < start or body[end : end + 2] != b"\r\n":  # noqa: PLR2004 - found at all
            raise _bad("a part has no end, or too many headers, or a boundary inside")
        yield _headers(body[at + 2 : start - 4]), start, end
        at = end + 2 + len(mark)
    if body[at:] not in {b"--\r\n", b"--"}:
        raise _bad(f"it does not end with its boundary, or has more than {_MOST_PARTS} parts")


def _headers(raw: bytes) -> dict[bytes, bytes]:
    """Read a part's headers by their names in lower case."""
    headers = {}
    for line in raw.split(b"\r\n"):
        header = _HEADER.fullmatch(line)
        if header is None or header[1].lower() in headers:
            raise _bad("a part has a header that cannot be read, or one twice")
        headers[header[1].lower()] = header[2]
    return headers


def _name(headers: Mapping[bytes, bytes]) -> tuple[str, bool]:
    """Return a part's name, and whether it is a file."""
    named = _DISPOSITION.fullmatch(headers.get(b"content-disposition", b""))
    if named is None:
        raise _bad("a part has no plain name")
    if headers.get(b"content-type", b"").lower().startswith(b"multipart"):
        raise _bad("a part is of several parts itself")
    return _text(named[1] or named[2]), bool(named[3])


def _value(name: str, headers: Mapping[bytes, bytes], raw: bytes, *, file: bool) -> str:
    """Return a routing field's value: plain text, not a file, and not encoded."""
    if file or not headers.keys() <= {b"content-disposition", b"content-type"}:
        raise _bad(f"the field {name!r} is no plain text")
    return _text(raw)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise _bad("a name or a field is not UTF-8") from None


def _bad(message: str) -> ApiError:
    """A body that is no upload."""
    return ApiError(400, f"The upload cannot be read: {message}.", "invalid_multipart")
