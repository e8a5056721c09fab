"""gateway/relay/template.py: comparing is worth nothing unless it says what the parser says."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.relay.answer import StreamedAnswer
from gateway.relay.naming import PublicName
from gateway.relay.template import learn, learn_event
from gateway.routes.table import Form
from serving.responses import ResponsesReader
from serving.wire import DONE, AnswerReader

NAME = PublicName("m", "public")
START = b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
CHAT = START + b'"delta":{"content":"'
HEADS = [
    CHAT,
    START + b'"delta":{"reasoning":"',
    START + b'"delta":{"content":"","reasoning_content":"',
    START + b'"text":"',
    START.replace(b'"index":0', b'"index":1') + b'"delta":{"content":"',
    START.replace(b'"m"', b'"other"') + b'"delta":{"content":"',
    START.replace(b'"choices"', b'"note":{"content":"hi"},"choices"') + b'"delta":{"content":"',
    START.replace(b'"choices"', b'"error":{"content":"oh"},"choices"') + b'"delta":{"content":"',
    START + b'"delta":{"refusal":"no","content":"',
    START + b'"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}],"content":"',
    START + b'"delta":{"content":"one"}},{"index":1,"delta":{"content":"',
]
TAIL = b'"},"logprobs":null,"finish_reason":null}]}\n\n'
TAILS = [
    TAIL,
    b'"},"finish_reason":"stop"}]}\n\n',
    b'"},"finish_reason":"abort"}]}\n\n',
    b'"}},{"index":1,"delta":{"content":"b"}}]}\n\n',
    b'"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    b'"}}],"model":"m"}\n\n',
    b'","content":"again"}}]}\n\n',
    b'","content":""}}]}\n\n',
    b'"},"finish_reason":null}]}\r\n\r\n',
    b'"},"finish_reason":null}]}\r\r',
    b'"}]}\n\n',
    b'"}}]}\n\n',
    b'"}},{"index":0,"delta":{"content":"b"}}]}\n\n',
]
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
EVENT = b'event: response.output_text.delta\ndata: {"content_index":0,"delta":"'
EVENT_TAILS = [
    b'","item_id":"i","logprobs":[],"output_index":0,"sequence_number":%s,"type":"response.output_text.delta"}\n\n',
    b'","item_id":"i","output_index":0,"sequence_number":%s,"type":"response.reasoning_text.delta"}\n\n',
    b'","sequence_number":%s,"type":"response.output_text.done"}\n\n',
    b'","type":"error","message":"oh","sequence_number":%s}\n\n',
    b'","error":{"message":"oh"},"sequence_number":%s,"type":"response.output_text.delta"}\n\n',
    b'","x":{"sequence_number":%s},"type":"response.output_text.delta"}\n\n',
    b'","x":{"sequence_number":%s},"sequence_number":3,"type":"response.output_text.delta"}\n\n',
]
PARTS = [b"a", b" b", b"\xc3\xa9", b"\\n", b"\\u00e9", b"\\ud83d", b"model", b"content", b"a-text-no-engine-sends"]
ODD = [
    b'"',
    b"\\",
    b"\n",
    b"\r",
    b"\x00",
    b"\x1f",
    b"\x7f",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\\x",
    b"\\u12",
    b'","x":"',
    b"{",
]
texts = st.one_of(  # most are usual, or nothing would be learned
    st.sampled_from(PARTS),
    st.sampled_from(PARTS),
    st.sampled_from(PARTS + ODD),
    st.lists(st.sampled_from(PARTS + ODD), max_size=3).map(b"".join),
)
others = st.sampled_from(
    [
        b": ping\n\n",
        DONE,
        b"data: {}\n\n",
        b"data: {\n\n",
        b'data: {"error":{"message":"oh"}}\n\n',
        b"\n\n",
        b": pi",
        FINISH,
        USAGE,
    ]
)
numbers = st.integers(0, 30).map(lambda n: b"%d" % n)
numbers = numbers | numbers | st.sampled_from([b"07", b"1.0", b"1e2", b"-1", b'"1"', b"", b"9" * 16])


def alike(shape: tuple[bytes, bytes]) -> st.SearchStrategy[bytes]:
    """Frames with the same bytes around different texts."""
    head, tail = shape
    if b"%s" not in tail:
        return texts.map(lambda text: head + text + tail)
    return st.builds(lambda text, number: head + text + tail % number, texts, numbers)


CHATS = st.tuples(st.just(CHAT) | st.sampled_from(HEADS), st.just(TAIL) | st.sampled_from(TAILS))
EVENTS = st.tuples(st.just(EVENT), st.sampled_from(EVENT_TAILS))


@st.composite
def streams(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[bytes, bytes]]) -> list[bytes]:
    """Frames of one or two shapes, with others among them, and now and then a byte that is wrong."""
    likes = [alike(shape) for shape in draw(st.lists(shapes, min_size=1, max_size=2))]
    frames = draw(
        st.lists(
            st.one_of(*likes, likes[0], likes[0], likes[-1], others), min_size=draw(st.integers(0, 8)), max_size=10
        )
    )
    changes = draw(st.dictionaries(st.integers(0, 9), st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=1))
    return [mutated(frame, changes.get(place)) for place, frame in enumerate(frames)]


def mutated(frame: bytes, change: tuple[int, int] | None) -> bytes:
    """One byte of a frame changed, or none."""
    if change is None:
        return frame
    at = change[0] % len(frame)
    return frame[:at] + bytes([change[1]]) + frame[at + 1 :]


def told(answer: StreamedAnswer, pieces: list[bytes]) -> tuple:
    """All that can be seen of an answer, piece by piece."""
    passed = [answer.take(piece, float(now)) for now, piece in enumerate(pieces)]
    reader = answer.reader
    state = (reader.finish_reason, reader.usage, reader.error, reader.done, reader.content_chunks, reader.complete)
    return (
        passed,
        answer.held,
        answer.end(),
        state,
        (reader.text, reader.kept.arguments, reader.kept.refused, reader.kept.room),
        (answer.first_content_at, answer.stall),
        getattr(reader, "sequence", 0),
    )


def parsed_only(form: Form, name: PublicName, keep_text: int = 0) -> StreamedAnswer:
    """An answer that learns nothing."""
    return StreamedAnswer(name, usage_asked=False, keep_text=keep_text, form=form, lessons=0)


@settings(deadline=None, max_examples=1000)  # the machine is shared; a slow example is no failure
@given(
    st.sampled_from([Form.CHAT, Form.RESPONSES, Form.UPLOAD]),
    st.data(),
    st.sampled_from([NAME, PublicName("m", "m")]),
    st.sampled_from([0, 0, 5, 1000]),
)
def test_comparing_tells_what_parsing_tells(form: Form, data: st.DataObject, name: PublicName, keep_text: int):
    """Bytes, counts, ends, errors, times: the same for frames like each other, nearly alike, and broken."""
    pieces = data.draw(streams(EVENTS if form is Form.RESPONSES else CHATS))
    places = data.draw(st.lists(st.integers(0, 5000), max_size=3))
    raw = b"".join(pieces)
    marks = sorted({0, len(raw), *(place % (len(raw) + 1) for place in places)})
    for way in (pieces, [raw], [raw[a:b] for a, b in pairwise(marks)]):
        quick = StreamedAnswer(name, usage_asked=False, keep_text=keep_text, form=form)
        assert told(quick, way) == told(parsed_only(form, name, keep_text), way)


@pytest.mark.parametrize(
    ("form", "pieces"),
    [
        (Form.CHAT, [CHAT + b"a" + TAIL, CHAT + b"b" + TAIL, FINISH, CHAT + b"c" + TAIL, USAGE, DONE]),
        (Form.CHAT, [CHAT + text + TAIL for text in (b"a", b"b", b"\xc3", b"c\n", b"")]),
        (Form.CHAT, [CHAT + text + TAIL[:-2] + b"\r\r" for text in (b"a", b"b", b"c")]),
        (Form.CHAT, [CHAT + b"a" + TAIL, CHAT + b"b" + TAIL, b": pi", CHAT + b"c" + TAIL]),
        (Form.RESPONSES, [EVENT + b"a" + EVENT_TAILS[0] % number for number in (b"4", b"5", b"07", b"1.0", b"8")]),
    ],
)
def test_comparing_tells_what_parsing_tells_of_these(form: Form, pieces: list[bytes]):
    """An end and then more of it, texts that are none, framing that waits, half a frame, numbers that are none."""
    quick = StreamedAnswer(NAME, usage_asked=False, form=form)
    assert told(quick, pieces) == told(parsed_only(form, NAME), pieces)


@pytest.mark.parametrize("head", HEADS[:5])
@example(text="plain")
@given(text=st.text(min_size=1, max_size=20))
def test_a_usual_frame_is_not_parsed(head: bytes, text: str):
    """Any text, escaped or not, in any of the usual fields: the comparison is enough."""
    template = learn(head + b"first" + TAIL, NAME)
    if b'"text"' in head:
        template = learn(head + b'first","logprobs":null,"finish_reason":null}]}\n\n', NAME)
    assert template is not None
    for ascii_ in (True, False):
        said = json.dumps(text, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")[1:-1]
        tail = b'","logprobs":null,"finish_reason":null}]}\n\n' if b'"text"' in head else TAIL
        reader = AnswerReader()
        assert template.take(head + said + tail, reader) == head.replace(b'"m"', b'"public"') + said + tail
        assert reader.content_chunks == 1


@pytest.mark.parametrize(("head", "kept"), [(HEADS[0], True), (HEADS[1], False), (HEADS[4], False)])
@given(text=st.text(min_size=1, max_size=20), ascii_=st.booleans(), room=st.integers(0, 30))
def test_a_text_that_is_kept_needs_no_parser_either(head: bytes, kept: bool, text: str, ascii_: bool, room: int):
    """The first choice's text as a parser reads it, as far as there is room; neither thoughts nor other choices."""
    template = learn(head + b"first" + TAIL, NAME, keeping=True)
    assert template is not None
    reader = AnswerReader(room)
    said = json.dumps(text, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")[1:-1]
    assert template.take(head + said + TAIL, reader) is not None
    assert reader.text == (text[:room] if kept else "")


@pytest.mark.parametrize("frame", [HEADS[-2] + b"a" + TAIL, HEADS[4] + b"a" + TAILS[-1]])
def test_nothing_is_learned_where_something_else_is_kept(frame: bytes):
    """Arguments of a tool, the first choice's text behind another's: the parser keeps them."""
    assert learn(frame, NAME) is not None
    assert learn(frame, NAME, keeping=True) is None


def test_events_whose_text_is_kept_are_parsed():
    """Text, arguments and thoughts are all `delta` there."""
    assert learn_event(EVENT + b"a" + EVENT_TAILS[0] % b"4", NAME, keeping=True) is None


def test_a_usual_event_is_not_parsed_and_its_number_is_known():
    """The number is needed for the error event that may follow."""
    template = learn_event(EVENT + b"first" + EVENT_TAILS[0] % b"4", NAME)
    assert template is not None
    reader = ResponsesReader()
    frame = EVENT + b"more" + EVENT_TAILS[0] % b"12"
    assert template.take(frame, reader) == frame
    assert (reader.content_chunks, reader.sequence) == (1, 13)


@pytest.mark.parametrize(
    "frame",
    [
        CHAT + b"a" + TAILS[5],  # a name behind the text
        CHAT + b"a" + TAILS[6],  # the field twice: the last one counts
        HEADS[6] + b"hi" + TAIL,  # the first `content` is not the delta's
        CHAT + TAIL,  # no text
        CHAT.replace(b'"x"', b'"\\u0078"') + b"a" + TAIL,  # escapes outside of the text
        CHAT.replace(b'"x"', b'"a-text-no-engine-sends"') + b"a" + TAIL,
        CHAT + b"a" + TAILS[8],  # a framing that may wait for a byte
    ],
)
def test_nothing_is_learned_where_the_place_is_not_proved(frame: bytes):
    """The text is not certain to be the content, or the bytes around it not certain to stay."""
    assert learn(frame, NAME) is None


@pytest.mark.parametrize("tail", EVENT_TAILS[-2:])
def test_nothing_is_learned_from_an_event_that_counts_something_else(tail: bytes):
    """The number is the event's own, or the error event that may follow would carry a wrong one."""
    assert learn_event(EVENT + b"a" + tail % b"4", NAME) is None
