"""serving/plain.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.plain import TranscriptReader, read_plain, read_transcript
from serving.wire import DONE, Usage, error_body

EMBEDDINGS = {
    "object": "list",
    "data": [{"index": 0, "embedding": [0.5]}],
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (EMBEDDINGS, Usage(4, 0)),
        ({"id": "rerank-1", "results": [], "usage": {"prompt_tokens": 9, "total_tokens": 9}}, Usage(9, 0)),
        ({"count": 2, "tokens": [1, 2], "max_model_len": 8}, None),
        ({"prompt": "text"}, None),
    ],
)
def test_an_object_without_an_error_is_a_good_answer(answer, usage):
    """Usage where there is some; the tokenizer has none."""
    read = read_plain(json.dumps(answer).encode())
    assert (read.complete, read.usage, read.text) == (True, usage, "")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"<html>", error_body("no", "x", 500), b'{"object":"error","message":"m"}']
)
def test_an_error_or_nonsense_is_none(body):
    """A 200 is not enough."""
    assert not read_plain(body).complete


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (b'{"text":"words","usage":{"type":"duration","seconds":2}}', None),
        (b'{"text":"words","usage":{"type":"tokens","input_tokens":5,"output_tokens":2}}', Usage(5, 2)),
        (b'{"text":"words","duration":1.5,"language":"en"}', None),
        (b"WEBVTT\n\n00:00.000 --> 00:01.000\nwords\n", None),
        (b"words", None),
        (b"", None),
    ],
)
def test_a_transcript_comes_in_the_form_that_was_asked_for(body, usage):
    """Silence has no words, and that is a good answer too."""
    read = read_transcript(body)
    assert (read.complete, read.usage) == (True, usage)


@pytest.mark.parametrize("body", [b'{"text":', error_body("no", "x", 500)])
def test_a_broken_transcript_is_none(body):
    """What begins like JSON has to be JSON."""
    assert not read_transcript(body).complete


def chunk(text, finish=None):
    """One chunk as vLLM streams transcripts: no index."""
    choice = {"delta": {"content": text}, **({"finish_reason": finish} if finish else {})}
    return b"data: " + json.dumps({"object": "transcription.chunk", "choices": [choice]}).encode() + b"\n\n"


def test_a_streamed_transcript_needs_no_usage():
    """A long recording ends once for each part of it; only the end of the last one counts."""
    frames = [chunk("one", "stop"), chunk(" two"), chunk("", "stop"), DONE]
    for count, complete in ((1, False), (2, False), (3, False), (4, True)):
        reader = TranscriptReader(100)
        for frame in frames[:count]:
            reader.frame(frame)
        assert reader.complete is complete
    assert (reader.text, reader.usage) == ("one two", None)
    reader.frame(b"data: " + error_body("no", "x", 500) + b"\n\n")
    assert not reader.complete


@given(st.binary())
def test_no_bytes_make_them_raise(body):
    """An engine's nonsense is its failure, not ours."""
    read_plain(body)
    read_transcript(b"{" + body)
