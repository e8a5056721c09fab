"""What vLLM 0.32 really sent (tests/gateway/relay/recorded/), passed through: guessed shapes prove little."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.relay.answer import StreamedAnswer
from gateway.relay.naming import PublicName
from gateway.routes.table import Form
from serving.sse import FrameSplitter

RECORDED = Path(__file__).parent / "recorded"
NAME = PublicName("served/base-model", "public")
# How each was asked for, and in how many of its frames nothing but the text differs from the frame before.
STREAMS = {
    "chat": (Form.CHAT, 6),
    "chat_two": (Form.CHAT, 1),  # two choices, mostly turn by turn
    "chat_logprobs": (Form.CHAT, 0),
    "chat_ids": (Form.CHAT, 1),  # a token that came twice
    "chat_continuous": (Form.CHAT, 0),  # usage in every chunk
    "completion": (Form.COMPLETION, 6),
    "responses": (Form.RESPONSES, 1),
}


def answer(form: Form, *, usage_asked: bool = True) -> StreamedAnswer:
    """A new answer."""
    return StreamedAnswer(NAME, usage_asked=usage_asked, form=form)


def test_every_recording_is_read():
    """None is forgotten here."""
    assert {path.stem for path in RECORDED.glob("*.sse")} == set(STREAMS)


@pytest.mark.parametrize(("name", "form"), [(name, form) for name, (form, _) in STREAMS.items()])
def test_it_is_a_good_answer_and_passes_but_for_the_name(name: str, form: Form):
    """Complete by our rule, with usage, and the engine's name nowhere left, however the network cut it."""
    raw = (RECORDED / f"{name}.sse").read_bytes()
    for size in (1, 100, len(raw)):
        stream = answer(form)
        got = b"".join(stream.take(raw[at : at + size], 0.0) for at in range(0, len(raw), size)) + stream.end()
        assert got == raw.replace(b'"model":"served/base-model"', b'"model":"public"')
        assert stream.reader.complete
        assert stream.reader.usage is not None
        assert stream.reader.usage.completion_tokens in {8, 16}


@pytest.mark.parametrize("name", [name for name, (form, _) in STREAMS.items() if form is not Form.RESPONSES])
def test_only_the_usage_chunk_is_kept_from_a_client_that_did_not_ask(name: str):
    """Everything else comes, the end too."""
    raw = (RECORDED / f"{name}.sse").read_bytes()
    frames = FrameSplitter().feed(raw.replace(b"served/base-model", b"public"))
    stream = answer(Form.CHAT, usage_asked=False)
    assert stream.take(raw, 0.0) == b"".join(frame for frame in frames if b'"choices":[]' not in frame)
    assert stream.reader.complete


@pytest.mark.parametrize(("name", "form", "like"), [(name, *told) for name, told in STREAMS.items()])
def test_the_usual_frames_need_no_parser(name: str, form: Form, like: int):
    """The speed of a stream rests on it."""
    stream, taken = answer(form), 0
    for frame in FrameSplitter().feed((RECORDED / f"{name}.sse").read_bytes()):
        taken += stream._template is not None and stream._template.take(frame, answer(form).reader) is not None
        stream.take(frame, 0.0)
    assert taken == like
