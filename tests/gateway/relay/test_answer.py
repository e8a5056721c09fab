from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.relay.answer import MANNERS, StreamedAnswer, clients_fault, whole_reader
from gateway.relay.naming import PublicName
from gateway.routes.table import Form
from serving.responses import ResponsesReader
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


def event(kind: str, **more) -> bytes:
    """One typed event of /v1/responses as an engine writes it."""
    data = json.dumps({**more, "type": kind}, separators=(",", ":"), ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def delta(text: str, number: int) -> bytes:
    """An event with text."""
    return event("response.output_text.delta", content_index=0, delta=text, item_id="i", sequence_number=number)


def response(kind: str, number: int, **more) -> bytes:
    """An event with the whole response in it."""
    return event(f"response.{kind}", response={"id": "r", "metadata": {}, "model": "m", **more}, sequence_number=number)


CREATED = response("created", 0, status="in_progress")
COMPLETED = response("completed", 9, status="completed", usage={"input_tokens": 3, "output_tokens": 2})


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


def test_the_first_content_is_timed_not_the_role():
    """The role chunk is no token."""
    answer = StreamedAnswer(SAME, usage_asked=True)
    answer.take(
        chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]), 1.0
    )
    answer.take(content("a"), 2.0)
    answer.take(content("b"), 3.0)
    assert answer.first_content_at == 2.0


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(
    st.lists(st.tuples(st.integers(0, 50), st.lists(st.none() | st.text(max_size=5), max_size=3)), max_size=8),
    st.sampled_from([0, 100]),
)
def test_the_longest_wait_between_pieces_of_content_is_the_stall(pieces: list[tuple[int, list[str | None]]], keep: int):
    """Neither comments, nor frames without text, nor several in one piece make any difference, nor does a template."""
    answer = StreamedAnswer(SAME, usage_asked=True, keep_text=keep)
    now, times = 1, []
    for wait, texts in pieces:
        now += wait
        answer.take(b"".join(b": ping\n\n" if text is None else content(text) for text in texts), float(now))
        times += [now] * any(texts)
    assert answer.stall == (max((b - a for a, b in pairwise(times)), default=0) or None)


def test_a_wait_that_a_limit_ends_is_a_stall_too():
    """Before any content there is none: that wait is the TTFT's."""
    answer = StreamedAnswer(SAME, usage_asked=True)
    answer.cut(30.0)
    assert answer.stall is None
    answer.take(content("a"), 1.0)
    answer.take(content("b"), 3.0)
    answer.cut(4.0)
    assert answer.stall == 2.0
    answer.cut(33.0)
    assert answer.stall == 30.0


def test_a_wait_for_the_client_is_no_stall():
    """The engine had to wait as well."""
    answer = StreamedAnswer(SAME, usage_asked=True)
    for now, text in ((1.0, "a"), (2.0, "b")):
        answer.take(content(text), now)
    answer.resume(60.0)
    answer.take(content("c"), 60.5)
    assert answer.stall == 1.0


@pytest.mark.parametrize(
    ("status", "expected"), [(400, True), (422, True), (404, False), (429, False), (500, False), (200, False)]
)
def test_a_client_is_blamed_for_what_it_caused_alone(status: int, expected: bool):
    """It chose neither the engine nor the name it is served by, nor how much the engine has to do."""
    assert clients_fault(status) is expected


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


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(st.lists(st.text(max_size=30), max_size=8), st.lists(st.integers(min_value=0), max_size=12))
def test_typed_events_pass_unchanged_but_for_the_name(texts: list[str], places: list[int]):
    """The name stands in the response inside the event; every other byte is the engine's, wherever it was cut."""
    deltas = [delta(text, number) for number, text in enumerate(texts, 1)]
    raw = b"".join([CREATED, b": ping\r\n\r\n", *deltas, COMPLETED])
    answer = StreamedAnswer(PublicName("m", "public"), usage_asked=False, form=Form.RESPONSES)
    got = b"".join(answer.take(piece, 0.0) for piece in cut(raw, places)) + answer.end()
    assert got == raw.replace(b'"model":"m"', b'"model":"public"')
    assert answer.reader.complete
    assert answer.reader.content_chunks == sum(bool(text) for text in texts)


@pytest.mark.parametrize("tail", [b"", b"event: response.completed\ndata: {", b"event: response.comp", b": pi"])
def test_a_response_that_dies_ends_in_an_error_event(tail: bytes):
    """In OpenAI's form, numbered on, and without chat's [DONE]."""
    answer = StreamedAnswer(SAME, usage_asked=False, form=Form.RESPONSES)
    passed = b"".join(answer.take(piece, 0.0) for piece in (CREATED, delta("a", 1), delta("b", 2), tail))
    name, data = answer.end("out of time", "late").removesuffix(b"\n\n").split(b"\n")
    assert passed == CREATED + delta("a", 1) + delta("b", 2)
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {
        "type": "error",
        "code": "late",
        "message": "out of time",
        "param": None,
        "sequence_number": 3,
    }
    assert not answer.reader.complete


def test_an_error_that_the_engine_told_is_not_told_twice():
    """Its own words are better."""
    answer = StreamedAnswer(SAME, usage_asked=False, form=Form.RESPONSES)
    told = event("error", message="out of memory", code="x", sequence_number=1)
    assert answer.take(CREATED + told, 0.0) + answer.end() == CREATED + told
    assert answer.reader.error == "out of memory"


def test_a_last_event_without_its_blank_line_gets_one():
    """A client would throw it away, and with it the whole answer."""
    answer = StreamedAnswer(PublicName("m", "p"), usage_asked=False, form=Form.RESPONSES)
    got = answer.take(CREATED + COMPLETED.rstrip(), 0.0) + answer.end()
    assert got == (CREATED + COMPLETED).replace(b'"model":"m"', b'"model":"p"')
    assert answer.reader.complete


@pytest.mark.parametrize("form", [Form.CHAT, Form.RESPONSES])
def test_a_chunk_of_a_megabyte_passes_in_any_pieces(form: Form):
    """Big tool arguments and images come in one frame, and no piece costs the square of it."""
    text = "é" * 500_000
    raw = content(text) + FINISH + USAGE + DONE if form is Form.CHAT else CREATED + delta(text, 1) + COMPLETED
    answer = StreamedAnswer(SAME, usage_asked=True, form=form)
    pieces = [raw[at : at + 1999] for at in range(0, len(raw), 1999)]
    assert b"".join(answer.take(piece, 0.0) for piece in pieces) + answer.end() == raw
    assert answer.reader.complete


def test_several_frames_in_one_piece_leave_at_once():
    """Nothing waits but a frame that was cut."""
    answer = StreamedAnswer(SAME, usage_asked=True)
    frames = [content(text) for text in "abc"]
    assert answer.take(b"".join(frames) + frames[0][:9], 0.0) == b"".join(frames)
    assert answer.held == 9
    assert answer.take(frames[0][9:], 0.0) == frames[0]


def test_a_streamed_transcript_is_good_without_usage():
    """It comes to those who ask with a form field of its own; the engine's chunks have no index."""
    answer = StreamedAnswer(PublicName("m", "p"), usage_asked=True, form=Form.UPLOAD)
    got = b"".join(
        answer.take(frame, 1.0)
        for frame in (
            chunk(choices=[{"delta": {"content": "one"}}]),
            chunk(choices=[{"delta": {"content": " two"}, "finish_reason": "stop", "stop_reason": None}]),
            DONE,
        )
    )
    assert got.count(b'"model":"p"') == 2
    assert answer.end() == b""
    assert answer.reader.complete


def test_every_form_is_read_in_its_own_way():
    """A whole answer of one form is no good answer of another."""
    chat = b'{"choices":[{"finish_reason":"stop","message":{}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
    said = b'{"status":"completed","usage":{"input_tokens":1,"output_tokens":1}}'
    good = {
        Form.CHAT: {chat},
        Form.COMPLETION: {chat},
        Form.RESPONSES: {said},
        Form.PLAIN: {chat, said},
        Form.UPLOAD: {chat, said, b"words"},
    }
    assert set(good) == set(Form)
    for form, manner in MANNERS.items():
        assert {body for body in (chat, said, b"words") if manner.whole(body, 0).complete} == good[form]
    assert isinstance(StreamedAnswer(SAME, usage_asked=False, form=Form.RESPONSES).reader, ResponsesReader)


@pytest.mark.parametrize(
    ("form", "kind", "complete"),
    [
        (Form.PLAIN, b"application/octet-stream", True),
        (Form.PLAIN, b"application/json", False),
        (Form.CHAT, b"application/octet-stream", False),
        (Form.UPLOAD, b"text/plain; charset=utf-8", True),
    ],
)
def test_numbers_come_as_bytes_to_those_who_ask(form: Form, kind: bytes, complete: bool):
    """Embeddings in raw form are no JSON and still good; a chat answer in raw form is none."""
    assert whole_reader(form, kind)(b"\x00\x01", 0).complete is complete
