"""An upload as the simulated engine understands it (pure): the standard library reads its parts."""

from __future__ import annotations

from email.parser import BytesParser
from email.policy import HTTP
from hashlib import sha256
from typing import Any

from serving.simulated.ask import Ask, AskError, known
from serving.simulated.language import encode

_FORMATS = frozenset({"json", "text", "verbose_json"})


def parse_upload(body: bytes, content_type: str, names: tuple[str, ...]) -> tuple[dict[str, Any], Ask]:
    """Read a transcription request: its text fields, and what to do. Raises AskError."""
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    if not message.is_multipart():
        raise AskError("the body is not multipart/form-data")
    fields, audio = {}, b""
    for part in message.iter_parts():
        name, raw = part.get_param("name", header="content-disposition"), part.get_payload(decode=True)
        raw = raw if isinstance(raw, bytes) else b""
        if part.get_filename() is None:
            fields[str(name)] = raw.decode("utf-8", "replace")
        elif name == "file":
            audio = raw
    if not audio:
        raise AskError("Field required", param="file")
    kind = fields.get("response_format", "json")
    if kind not in _FORMATS:
        raise AskError(f"response_format is one of {', '.join(sorted(_FORMATS))}", param="response_format")
    prompt = sha256(audio).hexdigest()
    ask = Ask(
        form="text" if kind == "text" else "transcript",
        model=known(fields.get("model"), names),
        prompt=prompt,
        ids=tuple(encode(prompt)),
        limit=None,
        stream=fields.get("stream", "").lower() == "true",
        usage=fields.get("stream_include_usage", "").lower() == "true",
    )
    return fields, ask
