from __future__ import annotations

import asyncio
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import load
from bench.errors import BenchError
from bench.load import Line


def streamed(events: int) -> bytes:
    """A stream of `events` and [DONE], each in a chunk of its own."""
    datas = [b'data: {"n":%d}\n\n' % number for number in range(events)] + [b"data: [DONE]\n\n"]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(data), data) for data in datas)
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


class Mouth(asyncio.Transport):
    """Takes what is written."""

    def write(self, data: object) -> None:
        """Keep nothing."""


async def answered(pieces: list[bytes]) -> load.Answer:
    """Feed an answer in pieces to a line that has asked."""
    line = Line()
    line.connection_made(Mouth())
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(line.ask(b"x"))
        await asyncio.sleep(0)
        for piece in pieces:
            line.data_received(piece)
    return asking.result()


@given(st.integers(0, 5), st.lists(st.integers(0, 200)))
def test_events_are_counted_wherever_the_bytes_are_cut(events: int, cuts: list[int]):
    """A proxy that merges or splits chunks is measured by the same number."""
    raw = streamed(events)
    places = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    pieces = [raw[start:end] for start, end in pairwise(places)]
    answer = asyncio.run(answered(pieces))
    assert (answer.status, answer.events, answer.first > 0) == (200, events, events > 1)


async def test_a_lost_connection_is_no_answer():
    """A torn answer must not look like a fast one."""
    line = Line()
    line.connection_made(Mouth())
    asking = asyncio.ensure_future(line.ask(b"x"))
    await asyncio.sleep(0)
    line.data_received(streamed(3)[:60])
    line.connection_lost(None)
    with pytest.raises(BenchError, match="lost amid"):
        await asking


def test_a_request_carries_a_kilobyte_and_says_its_length():
    """What is measured is what the results say."""
    head, _, body = load.request(7, stream=True).partition(b"\r\n\r\n")
    value = json.loads(body)
    assert len(value["messages"][0]["content"]) == 1024
    assert b"content-length: %d" % len(body) in head
    assert (value["user"], value["max_tokens"], value["stream"]) == ("user-7", load.CHUNKS, True)
