from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.relay.answer import StreamedAnswer
from gateway.relay.naming import PublicName
from serving.wire import DONE

SAME = PublicName("m", "m")


def chunk(**more) -> bytes:
    """One frame as an engine writes it."""
    value = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", **more}
    return b"data: " + json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n\n"


def content(text: str) -> bytes:
    """A frame with text."""
    return chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])


FINISH = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = chunk(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2})
frames = st.lists(
    st.one_of(
        st.text(max_size=30).map(content),
        st.just(b": ping\n\n"),
        st.just(b"event: x\r\ndata: {}\r\n\r\n"),
        st.binary(max_size=20).map(lambda raw: b"data: " + raw.replace(b"\n", b"").replace(b"\r", b"") + b"\n\n"),
    ),
    max_size=8,
)


def cut(raw: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at any places."""
    marks = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[a:b] for a, b in pairwise(marks)]


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(frames, st.lists(st.integers(min_value=0), max_size=12), st.sampled_from([b"", b": bye", b"\n", b"data: x\n"]))
def test_bytes_pass_unchanged_wherever_the_network_cuts(between: list[bytes], places: list[int], tail: bytes):
    """What the client gets is what the engine sent, byte for byte, what comes after its end too."""
    raw = b"".join([*between, FINISH, USAGE, DONE, tail])
    answer = StreamedAnswer(SAME, usage_asked=True)
    got = b"".join(answer.take(piece, 0.0) for piece in cut(raw, places))
    assert got + answer.end() == raw


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(frames, st.lists(st.integers(min_value=0), max_size=12))
def test_only_the_usage_chunk_is_taken_out(between: list[bytes], places: list[int]):
    """A client that did not ask for usage gets all but that one frame."""
    raw = b"".join([*between, FINISH, USAGE, DONE])
    answer = StreamedAnswer(SAME, usage_asked=False)
    got = b"".join(answer.take(piece, 0.0) for piece in cut(raw, places))
    assert got + answer.end() == b"".join([*between, FINISH, DONE])
    assert answer.reader.usage is not None


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(st.text(max_size=60), st.lists(st.integers(min_value=0), max_size=6))
def test_the_public_name_changes_nothing_but_the_name(text: str, places: list[int]):
    """Text that looks like the name is text."""
    nested = chunk(x={"model": "m"}, choices=[{"model": "m", "t": '"model":"m"'}])
    raw = content(text + '"model":"m" {"model":"m"}') + nested + FINISH + USAGE + DONE
    answer = StreamedAnswer(PublicName("m", 'pub"lic'), usage_asked=True)
    got = b"".join(answer.take(piece, 0.0) for piece in cut(raw, places)) + answer.end()
    assert got == raw.replace(b'"created":1,"model":"m"', b'"created":1,"model":"pub\\"lic"')


def test_a_name_in_an_unusual_place_is_replaced_through_a_parser():
    """Spaces, another order, an unexpected name: still the public name."""
    name = PublicName("m", "p")
    assert json.loads(name.body(b'{"choices":[{"model":"m"}], "model" : "other"}')) == {
        "choices": [{"model": "m"}],
        "model": "p",
    }
    assert name.frame(b'data: {"choices": [], "model": "m"}\r\n\r\n') == b'data: {"choices":[],"model":"p"}\n\n'
    assert name.body(b'no json with "model"') == b'no json with "model"'


def test_the_first_content_is_timed_not_the_role():
    """The role chunk is no token."""
    answer = StreamedAnswer(SAME, usage_asked=True)
    answer.take(
        chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]), 1.0
    )
    answer.take(content("a"), 2.0)
    answer.take(content("b"), 3.0)
    assert answer.first_content_at == 2.0


@pytest.mark.parametrize("half", [b'data: {"id', b"data", b": pin"])
def test_half_a_frame_never_reaches_a_client(half: bytes):
    """It is no JSON, and a client would fail on it instead of reading the error that follows."""
    answer = StreamedAnswer(SAME, usage_asked=True)
    answer.take(content("a") + half, 1.0)
    error, done, nothing = answer.end().split(b"\n\n")
    assert json.loads(error.removeprefix(b"data: "))["error"]["code"] == "engine_failed"
    assert (done + b"\n\n", nothing) == (DONE, b"")
    assert not answer.reader.complete


def test_a_last_frame_without_its_blank_line_is_read_as_any_other():
    """The public name, and no usage for a client that did not ask."""
    answer = StreamedAnswer(PublicName("m", "p"), usage_asked=False)
    assert b'"model":"p"' in answer.take(content("a"), 1.0) + answer.end()
    answer = StreamedAnswer(PublicName("m", "p"), usage_asked=False)
    answer.take(content("a"), 1.0)
    answer.take(content("b").rstrip(), 1.0)
    assert b'"model":"p"' in answer.end()
    answer = StreamedAnswer(SAME, usage_asked=False)
    answer.take(USAGE.rstrip(), 1.0)
    assert b"usage" not in answer.end()
