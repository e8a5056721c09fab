"""serving/responses.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseErrorEvent

from serving.responses import ResponsesReader, read_response, response_error
from serving.wire import FrameKind, Usage

USAGE = {"input_tokens": 7, "output_tokens": 2, "total_tokens": 9, "input_tokens_details": {"cached_tokens": 3}}
MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}


def event(kind, number, **more):
    """One typed event."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number, **more})}\n\n".encode()


def response(status, **more):
    """A response object."""
    return {"id": "r", "object": "response", "status": status, "output": [MESSAGE], "usage": USAGE, **more}


GOOD = (
    event("response.created", 0, response=response("in_progress", usage=None, output=[])),
    event("response.output_item.added", 1, item={"type": "message"}),
    event("response.output_text.delta", 2, delta="He"),
    event("response.output_text.delta", 3, delta="llo"),
    event("response.output_text.done", 4, text="Hello"),
    event("response.completed", 5, response=response("completed")),
)
FAILED = {"code": "server_error", "message": "out of memory"}


def read(frames, keep_text=100):
    """Read frames with a new reader."""
    reader = ResponsesReader(keep_text)
    return reader, [reader.frame(frame) for frame in frames]


def test_a_good_stream_is_complete_with_its_numbers():
    """Text, usage with its cached part, what brought the first content, and the number of the next event."""
    reader, kinds = read(GOOD)
    assert kinds == [FrameKind.OTHER] * 2 + [FrameKind.CONTENT] * 2 + [FrameKind.OTHER] * 2
    assert (reader.complete, reader.done, reader.error) == (True, True, None)
    assert (reader.text, reader.finish_reason, reader.content_chunks, reader.sequence) == ("Hello", "stop", 2, 6)
    assert reader.usage == Usage(7, 2, 3)


@pytest.mark.parametrize(
    ("last", "finish"),
    [
        (
            event(
                "response.incomplete",
                5,
                response=response("incomplete", incomplete_details={"reason": "max_output_tokens"}),
            ),
            "length",
        ),
        (
            event(
                "response.completed",
                5,
                response=response("incomplete", incomplete_details={"reason": "max_output_tokens"}),
            ),
            "length",
        ),
        (
            event(
                "response.incomplete",
                5,
                response=response("incomplete", incomplete_details={"reason": "content_filter"}),
            ),
            "content_filter",
        ),
        (event("response.incomplete", 5, response=response("incomplete")), "incomplete"),
    ],
)
def test_an_answer_cut_short_is_complete_and_says_why(last, finish):
    """In chat's words; vLLM sends `completed` around an incomplete response."""
    reader, _ = read([*GOOD[:-1], last])
    assert (reader.complete, reader.finish_reason) == (True, finish)


@pytest.mark.parametrize(
    ("frames", "done", "error"),
    [
        (GOOD[:-1], False, None),
        ([*GOOD[:-1], event("response.completed", 5, response=response("completed", usage=None))], True, None),
        ([*GOOD[:-1], event("response.completed", 5)], True, None),
        ([*GOOD[:-1], event("response.failed", 5, response=response("failed", error=FAILED))], True, "out of memory"),
        ([*GOOD[:-1], event("response.failed", 5, response=response("failed"))], True, "status failed"),
        ([*GOOD[:3], event("error", 3, code="x", message="broken", param=None)], True, "broken"),
        ([*GOOD[:3], event("error", 3)], True, "without a message"),
        ([*GOOD[:3], event("error", 3, message="broken"), *GOOD[3:]], True, "broken"),
        ([*GOOD[:3], b'data: {"error": {"message": "vLLM\'s", "code": 500}}\n\n'], False, "vLLM's"),
        ([*GOOD[:3], b"data: {\n\n", *GOOD[3:]], True, "not a JSON object"),
    ],
)
def test_what_is_missing_or_failed_is_not_complete(frames, done, error):
    """Law 6 for events: the last one, usage in it, and no error before it."""
    reader, _ = read(frames)
    assert (reader.complete, reader.done) == (False, done)
    assert reader.error == error if error is None else error in reader.error


@pytest.mark.parametrize(
    "kind",
    ["refusal", "reasoning_text", "reasoning_summary_text", "function_call_arguments", "mcp_call_arguments"],
)
def test_arguments_reasoning_and_refusals_are_content(kind):
    """The first token is not always text, and only text is kept."""
    reader, kinds = read([event(f"response.{kind}.delta", 1, delta="x")])
    assert (kinds, reader.text, reader.content_chunks) == ([FrameKind.CONTENT], "", 1)


@pytest.mark.parametrize(
    "frame", [b": ping\n\n", b"event: x\n\n", b"data: [DONE]\n\n", event("response.output_text.delta", 1, delta="")]
)
def test_comments_and_empty_deltas_are_no_content(frame):
    """Nor is an ending that belongs to chat."""
    reader, kinds = read([frame, *GOOD])
    assert FrameKind.CONTENT is not kinds[0]
    assert (reader.complete, reader.content_chunks) == (True, 2)


def test_no_more_text_is_kept_than_asked():
    """Answers are not memory to fill."""
    assert read(GOOD, keep_text=3)[0].text == "Hel"
    assert read(GOOD, keep_text=0)[0].text == ""


def test_the_arguments_of_tool_calls_are_kept_by_item():
    """A call that begins is one, with or without arguments; refusals are noted, calls of the engine's own are not."""
    call = {"type": "function_call", "name": "f", "arguments": ""}
    reader, _ = read(
        [
            event("response.output_item.added", 1, output_index=0, item={"type": "message"}),
            event("response.output_text.delta", 2, output_index=0, delta="Well"),
            event("response.output_item.added", 3, output_index=1, item=call),
            event("response.function_call_arguments.delta", 4, output_index=1, delta='{"a"'),
            event("response.function_call_arguments.delta", 5, output_index=1, delta=":1}"),
            event("response.output_item.added", 6, output_index=2, item=call),
            event("response.mcp_call_arguments.delta", 7, output_index=3, delta="{"),
            event("response.function_call_arguments.delta", 8, delta="no index"),
        ]
    )
    assert (reader.kept.text, reader.kept.arguments, reader.kept.refused) == ("Well", ('{"a":1}', ""), False)
    assert read([event("response.refusal.delta", 1, delta="No")])[0].kept.refused


def test_a_whole_responses_words_are_kept_as_a_streams():
    """Text, arguments, refusals; nothing if nobody asked."""
    calls = [{"type": "function_call", "arguments": one} for one in ("{}", '{"a', None)]
    refused = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}
    body = json.dumps(response("completed", output=[MESSAGE, *calls, refused])).encode()
    kept = read_response(body, 100).kept
    assert (kept.text, kept.arguments, kept.refused) == ("Hello", ("{}", '{"a', ""), True)
    assert (read_response(body).kept.text, read_response(body).kept.arguments) == ("", ())


def test_a_whole_response_is_complete_by_its_status():
    """The same rule for one body."""
    answer = read_response(json.dumps(response("completed")).encode(), keep_text=4)
    assert (answer.complete, answer.text, answer.finish_reason, answer.usage) == (True, "Hell", "stop", Usage(7, 2, 3))


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        response("in_progress"),
        response("queued", usage=None),
        response("failed", error=FAILED),
        response("cancelled"),
        response("completed", usage=None),
        {"error": FAILED},
    ],
)
def test_a_whole_response_with_something_missing_is_not_complete(value):
    """Law 6 for bodies; a response that goes on in the background has not been given."""
    assert not read_response(json.dumps(value).encode()).complete


def test_openais_own_types_read_our_error_event():
    """All its fields, as the SDK declares them."""
    name, data = response_error("it broke", "engine_failed", 4).decode().strip().split("\n")
    told = ResponseErrorEvent.model_validate_json(data.removeprefix("data: "), strict=True)
    assert name == "event: error"
    assert (told.message, told.code, told.sequence_number) == ("it broke", "engine_failed", 4)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "response",
                        "status",
                        "usage",
                        "output",
                        "content",
                        "delta",
                        "error",
                        "incomplete_details",
                        "reason",
                        "sequence_number",
                        "text",
                    ]
                ),
                inner
                | st.sampled_from(["response.completed", "response.x.delta", "error", "incomplete", "output_text"]),
                max_size=5,
            )
        ),
    )
)
def test_no_json_makes_the_reader_raise(value):
    """The right keys with the wrong values neither."""
    raw = json.dumps(value).encode()
    read([b"data: " + raw + b"\n\n"])
    read_response(raw, 9)
