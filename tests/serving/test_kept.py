"""serving/kept.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.kept import NOTHING, Kept
from serving.wire import AnswerReader, read_whole

pieces = st.one_of(
    st.tuples(st.none(), st.text(max_size=8)), st.tuples(st.integers(0, 2), st.text(max_size=8) | st.none())
)


@given(st.integers(0, 30), st.lists(pieces, max_size=12))
def test_no_more_is_kept_than_there_is_room_for(room: int, said: list[tuple[int | None, str | None]]):
    """What is kept is the beginning of all that was said, and an empty call costs room too."""
    kept, everything = Kept(room), Kept(1 << 20)
    for number, text in said:
        for one in (kept, everything):
            if number is None:
                one.say(text)
            else:
                one.call(number, text)
    assert everything.text.startswith(kept.text)
    assert all(a.startswith(b) for a, b in zip(everything.arguments, kept.arguments, strict=False))
    used = len(kept.text) + sum(map(len, kept.arguments)) + len(kept.arguments)
    assert used + kept.room == room
    if kept.room:
        assert (kept.text, kept.arguments) == (everything.text, everything.arguments)


def test_calls_are_told_apart_by_their_number_and_stand_in_their_order():
    """Pieces of two calls may come in turns."""
    kept = Kept(100)
    for number, piece in ((0, '{"a"'), (1, "{"), (0, ":1}"), (2, None), (1, "}")):
        kept.call(number, piece)
    assert kept.arguments == ('{"a":1}', "{}", "")


def test_what_is_no_text_is_none():
    """Engines send null, and might send anything."""
    kept = Kept(100)
    for odd in (None, 3, {}, ["a"], ""):
        kept.say(odd)
        kept.call(7, odd)
    assert (kept.text, kept.arguments) == ("", ("",))


def test_without_room_nothing_is_kept():
    """The one that everybody shares stays empty."""
    NOTHING.say("a")
    NOTHING.call(0, "b")
    assert (NOTHING.text, NOTHING.arguments, NOTHING.room) == ("", (), 0)


def read(*deltas: dict[str, Any], index: int = 0) -> Kept:
    """What a reader keeps of these chunks of one choice."""
    reader = AnswerReader(100)
    for delta in deltas:
        reader.frame(b"data: %b\n\n" % json.dumps({"choices": [{"index": index, "delta": delta}]}).encode())
    return reader.kept


def called(index: int, arguments: str | None = None, **more: str) -> dict[str, Any]:
    """A delta with a piece of a tool call, as vLLM's parsers write it."""
    function = more if arguments is None else {**more, "arguments": arguments}
    return {"tool_calls": [{"index": index, "function": function}]}


def whole(**message: Any) -> bytes:
    """A whole answer with this message."""
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def test_the_arguments_of_tool_calls_are_kept_by_call():
    """A name first, then pieces; two calls one after the other; and the text before them."""
    kept = read(
        {"content": "Let me see."},
        called(0, "", name="sum"),
        called(0, '{"a"'),
        called(0, ": 1}"),
        called(1, name="now"),
        called(1, "{}"),
        {},
    )
    assert (kept.text, kept.arguments) == ("Let me see.", ('{"a": 1}', "{}"))


def test_only_the_first_choices_words_are_kept():
    """Of its text, its calls and its refusal alike."""
    said = {"content": "b", "refusal": "no", **called(0, "{")}
    first, second = read(said), read(said, index=1)
    assert (first.text, first.arguments, first.refused) == ("b", ("{",), True)
    assert (second.text, second.arguments, second.refused) == ("", (), False)


@pytest.mark.parametrize(
    "calls",
    [3, {}, [3], [{}], [{"function": 3}], [{"index": "x", "function": {"arguments": {"a": 1}}}], [{"function": None}]],
)
def test_odd_tool_calls_raise_nothing(calls: Any):
    """What is no text is no arguments, and a call that has none is one."""
    kept = read({"tool_calls": calls})
    assert set(kept.arguments) <= {""}
    assert read_whole(whole(tool_calls=calls), 100).kept.arguments == kept.arguments


def test_a_whole_answers_words_are_kept_as_a_streams():
    """Text, the arguments of each call, and the engine's own word for a refusal; nothing if nobody asked."""
    calls = [{"id": "x", "type": "function", "function": {"name": "f", "arguments": one}} for one in ("{}", '{"a')]
    body = whole(content="Well", tool_calls=calls, refusal=None)
    kept = read_whole(body, 100).kept
    assert (kept.text, kept.arguments, kept.refused) == ("Well", ("{}", '{"a'), False)
    assert read_whole(body).kept.arguments == ()
    assert read_whole(body.replace(b'"refusal": null', b'"refusal": "I will not."'), 100).kept.refused
