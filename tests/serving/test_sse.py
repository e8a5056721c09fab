"""serving/sse.py."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.sse import FrameSplitter, payload

ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
words = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=("Cs",)), max_size=12)
lines = st.builds(
    lambda name, value, end: (name + value).encode() + end,
    st.sampled_from(["data:", "data: ", ":", "id: ", "data", ""]),
    words,
    ends,
)
streams = st.lists(lines, max_size=30).map(b"".join)


def cut(data, places):
    """Cut bytes at the given places, wherever they fall."""
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(marks)]


def split(pieces):
    """Feed pieces to a new splitter; return its frames and its rest."""
    splitter = FrameSplitter()
    return [frame for piece in pieces for frame in splitter.feed(piece)], splitter.rest


@given(st.binary() | streams, st.lists(st.integers(0, 10**6)))
def test_frames_and_rest_are_the_bytes_that_came(data, places):
    """A relay that forwards frames changes nothing, whatever came and however it was cut."""
    frames, rest = split(cut(data, places))
    assert b"".join(frames) + rest == data


@given(streams, st.lists(st.integers(0, 10**6)))
def test_where_the_network_cuts_makes_no_difference(data, places):
    """Cut inside a line end or inside a character: the frames are those of one piece."""
    assert split(cut(data, places)) == split([data])


@given(streams)
@example(b"data: a\r\rdata: b\n\n")
@example(b"data: a\r\n\r\ndata: b\n\n")
def test_byte_by_byte_gives_the_same_frames(data):
    """The hardest cut of all."""
    assert split([data[i : i + 1] for i in range(len(data))]) == split([data])


@given(st.lists(words.filter(bool), min_size=1), ends, st.lists(st.integers(0, 10**6)))
def test_each_event_is_one_frame_with_its_payload(values, end, places):
    """One event in, one frame out, and its data back."""
    data = b"".join(b"data: " + value.encode() + end + end for value in values) + b": no LF follows"
    frames, rest = split(cut(data, places))
    assert [value.encode() for value in values] == [payload(frame) for frame in frames]
    assert rest == b": no LF follows"


def test_a_last_cr_waits_for_the_lf_that_may_belong_to_it():
    """CR LF CR is three quarters of a CRLF blank line, not a whole one."""
    splitter = FrameSplitter()
    assert splitter.feed(b"data: a\r\n\r") == []
    assert splitter.feed(b"\ndata: b\r\n") == [b"data: a\r\n\r\n"]


def test_a_frame_is_handed_out_as_soon_as_it_is_whole():
    """A token is never held back until the next one comes."""
    assert FrameSplitter().feed(b"data: a\n\n") == [b"data: a\n\n"]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a\n\n", b" a"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data: a\r\ndata: b\r\n\r\n", b"a\nb"),
        (b"event: x\nid: 7\ndata: a\n\n", b"a"),
        (b"data\n\n", b""),
        (b"\xef\xbb\xbfdata: a\n\n", b"a"),
        (b"\n\ndata: a\n\n", b"a"),
        ("data: a\u2028b\u0085c\n\n".encode(), "a\u2028b\u0085c".encode()),
        (b": ping\n\n", None),
        (b"event: x\n\n", None),
        (b"database: a\n\n", None),
        (b"\n\n", None),
    ],
)
def test_payload_reads_data_lines_and_nothing_else(frame, expected):
    """The standard's table of lines."""
    assert expected == payload(frame)
