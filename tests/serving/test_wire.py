"""serving/wire.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.wire import (
    DONE,
    AnswerReader,
    FrameKind,
    Usage,
    error_body,
    error_event,
    parsed,
    read_whole,
)

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}


def event(value):
    """One frame of JSON."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chat(text=None, finish=None, index=0, **delta):
    """One chat chunk."""
    delta = {**delta, **({} if text is None else {"content": text})}
    return event({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


GOOD = (
    chat(role="assistant", text=""),
    chat("He"),
    chat("llo"),
    chat(finish="stop"),
    event({"choices": [], "usage": USAGE}),
    DONE,
)
KINDS = (FrameKind.OTHER, FrameKind.CONTENT, FrameKind.CONTENT, FrameKind.OTHER, FrameKind.USAGE, FrameKind.DONE)


def read(frames, keep_text=100):
    """Read frames with a new reader."""
    reader = AnswerReader(keep_text)
    return reader, tuple(reader.frame(frame) for frame in frames)


def test_a_good_stream_is_complete_with_its_numbers():
    """Text, finish_reason, usage with its cached part, and the kind of every frame."""
    reader, kinds = read(GOOD)
    assert kinds == KINDS
    assert reader.complete
    assert (reader.text, reader.finish_reason, reader.content_chunks) == ("Hello", "stop", 2)
    assert reader.usage == Usage(7, 2, 3)


@pytest.mark.parametrize("missing", [3, 4, 5])
def test_without_finish_reason_usage_or_done_it_is_not_complete(missing):
    """Law 6, one leg at a time."""
    reader, _ = read(GOOD[:missing] + GOOD[missing + 1 :])
    assert not reader.complete


@given(st.integers(0, len(GOOD)))
def test_an_error_anywhere_spoils_the_answer(place):
    """A 200 with an error in its midst is a failure."""
    failure = error_event("out of memory", "InternalServerError", 500)
    reader, kinds = read([*GOOD[:place], failure, *GOOD[place:]])
    assert kinds[place] is FrameKind.ERROR
    assert reader.error == "out of memory"
    assert not reader.complete


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"data: {\n\n", "not a JSON object"),
        (b"data: [1]\n\n", "not a JSON object"),
        (b"data: \xff\n\n", "not a JSON object"),
        (event({"error": "plain words"}), "plain words"),
        (event({"error": {"type": "x"}}), "without a message"),
        (event({"object": "error", "message": "old vLLM", "code": 400}), "old vLLM"),
        (chat(finish="abort"), "finish_reason abort"),
        (chat(finish="error"), "finish_reason error"),
    ],
)
def test_what_cannot_be_read_or_was_given_up_is_an_error(frame, error):
    """No frame raises, and each failure says what it was."""
    reader, _ = read([*GOOD[:3], frame, *GOOD[3:]])
    assert error in reader.error
    assert not reader.complete


@pytest.mark.parametrize("frame", [b": ping\n\n", b"event: x\n\n", b"data:\n\n", b"\n\n"])
def test_comments_change_nothing(frame):
    """Keep-alives are not answers."""
    reader, kinds = read([frame, *GOOD])
    assert kinds[0] is FrameKind.COMMENT
    assert reader.complete


def test_the_first_error_is_the_one_told():
    """What follows an error is its consequence."""
    reader, _ = read([error_event("first", "x", 500), error_event("second", "x", 500)])
    assert reader.error == "first"


def test_completions_chunks_are_read_too():
    """The text endpoint's chunks carry text and the finish_reason together."""
    chunks = [
        event({"choices": [{"index": 0, "text": text, "finish_reason": end}]})
        for text, end in (("a", None), ("b", "length"))
    ]
    reader, kinds = read([*chunks, event({"choices": [], "usage": USAGE}), DONE])
    assert kinds[:2] == (FrameKind.CONTENT, FrameKind.CONTENT)
    assert (reader.text, reader.finish_reason, reader.complete) == ("ab", "length", True)


@pytest.mark.parametrize("delta", [{"tool_calls": [{"index": 0}]}, {"reasoning_content": "hm"}, {"refusal": "no"}])
def test_tool_calls_reasoning_and_refusals_are_content(delta):
    """The first token is not always text."""
    assert read([chat(**delta)])[1] == (FrameKind.CONTENT,)


def test_every_choice_must_finish():
    """With n=2 one finish_reason is half an answer."""
    frames = [
        chat("a", index=0),
        chat("b", index=1),
        chat(finish="stop", index=0),
        event({"choices": [], "usage": USAGE}),
        DONE,
    ]
    assert not read(frames)[0].complete
    reader, _ = read([*frames[:3], chat(finish="stop", index=1), *frames[3:]])
    assert reader.complete
    assert reader.text == "a"


def test_usage_in_every_chunk_is_still_content():
    """An engine can be told to send usage always; only the chunk without choices is usage alone."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}], "usage": USAGE}
    assert read([event(chunk)])[1] == (FrameKind.CONTENT,)


def test_no_more_text_is_kept_than_asked():
    """Prompts and answers are not memory to fill."""
    assert read(GOOD, keep_text=3)[0].text == "Hel"
    assert read(GOOD, keep_text=0)[0].text == ""


@given(st.binary())
def test_no_bytes_make_the_reader_raise(data):
    """An engine's nonsense is its failure, not ours."""
    reader, _ = read([b"data: " + data + b"\n\n"])
    assert not reader.complete
    assert not read_whole(data).complete


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "usage",
                        "delta",
                        "index",
                        "finish_reason",
                        "error",
                        "message",
                        "prompt_tokens",
                        "prompt_tokens_details",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_no_json_makes_the_reader_raise(value):
    """The right keys with the wrong values neither."""
    read([event(value)])
    read_whole(json.dumps(value).encode())


def test_nonsense_for_counts_is_no_tokens():
    """A usage that cannot be read counts nothing."""
    reader, _ = read([event({"choices": [], "usage": {"prompt_tokens": "7", "completion_tokens": None}})])
    assert reader.usage == Usage(0, 0)


def whole(finish="stop", **changes):
    """A whole chat answer."""
    answer = {"choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": finish}], "usage": USAGE}
    return json.dumps({**answer, **changes}).encode()


def test_a_whole_answer_is_complete_without_done():
    """The same rule for one body."""
    answer = read_whole(whole(), keep_text=4)
    assert (answer.complete, answer.text, answer.finish_reason, answer.usage) == (True, "Hell", "stop", Usage(7, 2, 3))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"<html>",
        whole(finish=None),
        whole(usage=None),
        whole(choices=[]),
        whole(finish="abort"),
        error_body("no", "x", 500),
    ],
)
def test_a_whole_answer_with_something_missing_is_not_complete(body):
    """Law 6 for bodies."""
    assert not read_whole(body).complete


texts = st.one_of(
    st.text(alphabet='{}[]",:0123456789.eE+-truefalsnN \n\t\ufeff', max_size=20),
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5).map(json.dumps),
    st.dictionaries(st.text(), st.integers() | st.text(), max_size=3).map(json.dumps),
)


@given(st.sampled_from(["", " ", "\n", "\f"]), texts, st.sampled_from(["", " ", "\r\n", "}", "x"]))
def test_json_is_read_as_the_standard_library_reads_it(before, text, after):
    """The short way to the scanner takes nothing that the long one refuses, and the other way round."""
    body = before + text + after
    try:
        value = json.JSONDecoder().decode(body)
    except ValueError:
        value = None
    assert repr(parsed(body.encode())) == repr(value if isinstance(value, dict) else None)


@pytest.mark.parametrize(
    ("finishes", "reason", "error"),
    [
        (["stop", "length"], "length", None),
        (["stop", None], "", None),
        ([None, "stop"], "", None),
        (["error", "stop", "abort"], "abort", "the engine gave the answer up (finish_reason abort)"),
        ([None, "error"], "", "the engine gave the answer up (finish_reason error)"),
    ],
)
def test_a_whole_answer_ends_when_all_its_choices_have(finishes, reason, error):
    """The last finish_reason counts if each choice has one; whichever was given up is an error."""
    answer = read_whole(whole(choices=[{"finish_reason": finish} for finish in finishes] + [None]))
    assert (answer.finish_reason, answer.error) == (reason, error)


def test_errors_have_openais_shape():
    """The four fields SDKs read."""
    assert json.loads(error_body("m", "t", 404, "p")) == {
        "error": {"message": "m", "type": "t", "param": "p", "code": 404}
    }
    assert error_event("m", "t", None) == b"data: " + error_body("m", "t", None) + b"\n\n"
