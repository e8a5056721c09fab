"""gateway/repeat.py, beside llhttp: what is known by comparing is what a parser would have read."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import httptools
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.repeat import Repeat, learned

REQUEST, REPLY = b"POST /v1/completions HTTP/1.1", b"HTTP/1.1 200 OK"
LENGTH = b"content-length"


@dataclass
class Said:
    """What llhttp says of one message; `whole` counts the messages that ended, `kept` those after which it goes on."""

    parser: Any = None
    first: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    content: bytes = b""
    begun: int = 0
    whole: int = 0
    kept: int = 0

    def on_message_begin(self) -> None:
        """Count."""
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        """Keep it."""
        self.first += url

    on_status = on_url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep it."""
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """Keep it."""
        self.content += body

    def on_message_complete(self) -> None:
        """Count."""
        self.whole += 1
        self.kept += self.parser.should_keep_alive()

    @property
    def head(self) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """All of the head but the digits of its length."""
        return self.first, [(name, b"" if name.lower() == LENGTH else value) for name, value in self.headers]


def read(message: bytes) -> Said | None:
    """Return what a fresh parser says of a message; None unless it is exactly one, whole, with nothing left over."""
    said = Said()
    kind = httptools.HttpResponseParser if message.lstrip(b"\r\n").startswith(b"HTTP/") else httptools.HttpRequestParser
    said.parser = kind(said)
    try:
        said.parser.feed_data(message)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    return said if said.begun == said.whole == said.kept == 1 else None


def written(first: bytes, size: object, *more: bytes, body: bytes = b"", name: bytes = b"Content-Length") -> bytes:
    """A message; its length is written as told."""
    given = size if isinstance(size, bytes) else b"%d" % size
    return b"\r\n".join([first, b"Host: a", name + b": " + given, *more]) + b"\r\n\r\n" + body


def known(*more: bytes, first: bytes = REQUEST, **named: bytes) -> Repeat:
    """The head of a message that was read, with a body of two bytes."""
    repeat = learned(written(first, 2, *more, body=b"ok", **named), 2)
    assert repeat is not None
    return repeat


@pytest.mark.parametrize("first", [REQUEST, REPLY])
@pytest.mark.parametrize("body", [b"", b"x", b"ok", b"{}" * 5000, b"\r\n\r\n", b"content-length: 2\r\n\r\nok"])
def test_the_same_head_with_any_length_is_known(first, body):
    """The body comes back, whatever is in it."""
    message = written(first, len(body), b"X: y", body=body)
    assert known(b"X: y", first=first).body(message) == body
    said = read(message)
    assert said is not None
    assert said.content == body


@pytest.mark.parametrize("size", [b"0000005", b"05", b"000000005"])
def test_zeros_before_a_length_change_nothing(size):
    """Llhttp reads them so too."""
    message = written(REQUEST, size, body=b"12345")
    said = read(message)
    assert said is not None
    assert known().body(message) == said.content == b"12345"


@pytest.mark.parametrize("size", [b"0000000005", b"00000000000000000000005"])
def test_a_length_of_ten_digits_is_left_to_the_parser(size):
    """Nobody sends so much; the search for its end stays short."""
    assert known().body(written(REQUEST, size, body=b"12345")) is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        written(REQUEST, 2, body=b"ok")[:-3],
        written(REQUEST, 5, body=b"1234"),
        written(REQUEST, 5, body=b"123456"),
        written(REQUEST, b"+5", body=b"12345"),
        written(REQUEST, b"-5", body=b"12345"),
        written(REQUEST, b"1_0", body=b"1234567890"),
        written(REQUEST, b" 5", body=b"12345"),
        written(REQUEST, b"5 ", body=b"12345"),
        written(REQUEST, b"", body=b""),
        written(REQUEST, b"0x5", body=b"12345"),
        written(REQUEST, b"\xd9\xa5", body=b"12345"),
        written(REQUEST, 9999999999, body=b"12345"),
        written(REQUEST, 5, b"X: y", body=b"12345"),
        written(REQUEST, 5, b"Content-Length: 5", body=b"12345"),
        written(REQUEST, 5, body=b"12345", name=b"content-length"),
        written(REQUEST, 5, body=b"12345", name=b"X-Content-Length"),
        written(REQUEST, 5, body=b"12345").replace(b"Host: a", b"Host: b"),
        written(REQUEST, 5, body=b"12345").replace(b"\r\n", b"\n"),
        written(REQUEST, 5, body=b"12345").replace(b"5\r\n\r\n", b"5\r\r\n\n"),
        written(REQUEST, 5, body=b"12345") + b"\r\n",
        b"\r\n" + written(REQUEST, 5, body=b"12345"),
        written(REQUEST, 5, body=b"12345") * 2,
    ],
)
def test_anything_else_is_left_to_the_parser(message):
    """Other lengths, other heads, less than a message and more than one."""
    assert known().body(message) is None


@pytest.mark.parametrize("name", [b"content-length", b"Content-Length", b"CONTENT-LENGTH"])
def test_a_head_is_known_in_the_case_it_came_in(name):
    """Two spellings are two heads."""
    repeat = known(name=name)
    assert repeat.body(written(REQUEST, 1, body=b"x", name=name)) == b"x"
    assert repeat.body(written(REQUEST, 1, body=b"x", name=name.swapcase())) is None


@pytest.mark.parametrize(
    ("message", "size"),
    [
        (written(REQUEST, 2, b"content-length: 2", body=b"ok"), 2),
        (written(REQUEST, 2, b"x-content-length: 3", b"CONTENT-LENGTH: 3", body=b"ok"), 2),
        (written(REQUEST, 2, name=b"x-content-length", body=b"ok"), 2),
        (written(REQUEST, 2, name=b"content-length ", body=b"ok"), 2),
        (written(REQUEST, b"02", body=b"ok"), 2),
        (written(REQUEST, b"2 ", body=b"ok"), 2),
        (written(REQUEST, 2, body=b"ok") + b"\r\n", 2),
        (b"\r\n\r\n" + written(REQUEST, 2, body=b"ok"), 2),
        (written(REQUEST, 2, body=b"ok") * 2, 2),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + written(REPLY, 2, body=b"ok"), 2),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 2),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\ncontent-length: 21\r\n\r\n", 21),
        (written(REQUEST, 2, body=b"ok").replace(b"\r\n", b"\n"), 2),
        (b"", 0),
        (b"x", 2),
    ],
)
def test_what_cannot_be_compared_is_not_learned(message, size):
    """One piece, one head, one length written in the usual way."""
    assert learned(message, size) is None


def test_x_content_length_may_stand_anywhere():
    """A header that only ends like the one that counts is one of the others."""
    for more in ((b"x-content-length: 7",), (b"x: content-length: 7",), (b"content-length-x: 7", b"y: z")):
        repeat = known(*more)
        assert repeat.body(written(REQUEST, 3, *more, body=b"abc")) == b"abc"
        assert repeat.body(written(REQUEST, 7, *more, body=b"abc")) is None


words = st.sampled_from(
    [b"ok", b"{}", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"content-length: 2\r\n", b"0", b"7", b"\x00", b"GET / HTTP/1.1"]
)
bodies = st.one_of(st.binary(max_size=12), st.lists(words, max_size=5).map(b"".join))
firsts = st.sampled_from([REQUEST, REPLY, b"POST / HTTP/1.0", b"GET /v1/models HTTP/1.1", b"HTTP/1.1 404 Not Found"])
names = st.sampled_from([b"content-length", b"Content-Length", b"CONTENT-LENGTH"])
lines = st.sampled_from(
    [
        b"host: a", b"Host: b", b"x-content-length: 2", b"X: content-length: 2", b"x:", b"x:\ty ", b"Content-Length: 2",
        b"content-length : 2", b"transfer-encoding: chunked", b"connection: keep-alive", b"connection: close",
        b"upgrade: h2c", b"content-length-2: 2", b" content-length: 2", b"x: \xff",
    ]
)  # fmt: skip
spellings = st.sampled_from(
    [
        b"%d",
        b"%d",
        b"%d",
        b"0%d",
        b"00000%d",
        b"+%d",
        b"-%d",
        b" %d",
        b"\t%d",
        b"%d ",
        b"%d_0",
        b"0_%d",
        b"%d,",
        b"0x%d",
    ]
)


@dataclass(frozen=True)
class Message:
    """A message in parts; `off` is added to its length, `rest` follows it."""

    first: bytes
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    name: bytes
    body: bytes
    spelling: bytes = b"%d"
    off: int = 0
    rest: bytes = b""

    def __bytes__(self) -> bytes:
        size = self.spelling % max(0, len(self.body) + self.off)
        head = (self.first, *self.before, b"%b: %b" % (self.name, size), *self.after)
        return b"\r\n".join(head) + b"\r\n\r\n" + self.body + self.rest


offs = st.sampled_from([0, 0, 0, 0, 1, -1, 10_000_000_000])
rests = st.sampled_from([b"", b"", b"", b"", b"\r\n", b"x", b"POST / HTTP/1.1\r\n\r\n"])
some_lines = st.lists(lines, max_size=3).map(tuple)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A message, and another one that is like it but for its length, its body and perhaps a little more."""
    usual = Message(draw(firsts), draw(some_lines), draw(some_lines), draw(names), draw(bodies))
    drawn = {"body": bodies, "spelling": spellings, "off": offs, "rest": rests}
    then = {name: draw(values) for name, values in drawn.items()}
    heads = {"first": firsts, "before": some_lines, "after": some_lines, "name": names}
    for changed in draw(st.sets(st.sampled_from(sorted(heads)), max_size=1)) if draw(st.booleans()) else ():
        then[changed] = draw(heads[changed])
    second = bytes(replace(usual, **then))
    for at, old, new in draw(st.lists(st.tuples(st.integers(0, 200), words, words), max_size=1)):
        place = second.find(old, at % (len(second) + 1))
        second = second if place < 0 else second[:place] + new + second[place + len(old) :]
    return bytes(usual), second


@given(pairs())
@example((bytes(Message(REQUEST, (), (), LENGTH, b"ok")), bytes(Message(REQUEST, (), (), LENGTH, b"12345", b"+%d"))))
@example((bytes(Message(REPLY, (), (), LENGTH, b"ok")), bytes(Message(REPLY, (), (), LENGTH, b"0" * 100, b"%d", 1))))
@example((bytes(Message(REQUEST, (), (), LENGTH, b"ok")), bytes(Message(REQUEST, (), (), LENGTH, b"12345", b"0_%d"))))
@settings(max_examples=1500, deadline=None)
def test_what_is_known_is_what_the_parser_reads(pair):
    """One whole message with the head of the one that was read, that body, and nothing left over."""
    first, second = pair
    before = read(first)
    assume(before is not None)
    repeat = learned(first, len(before.content))
    if repeat is None or (body := repeat.body(second)) is None:
        return
    said = read(second)
    assert said is not None
    assert (said.head, said.content) == (before.head, body)


@given(st.builds(Message, firsts, some_lines, some_lines, names, bodies), bodies)
@settings(max_examples=500, deadline=None)
def test_a_usual_head_is_known_again(message, other):
    """What a parser takes as one message with one plain length need not be read twice."""
    said = read(bytes(message))
    assume(said is not None)
    assume(said.content == message.body)
    repeat = learned(bytes(message), len(message.body))
    assert repeat is not None
    assert repeat.body(bytes(replace(message, body=other))) == other


@given(pairs(), st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_bytes_make_it_raise(pair, noise):
    """Whatever comes is known or it is not."""
    repeat = learned(pair[0], 2)
    for message in (*pair, noise, pair[0] + noise, noise + pair[1]):
        learned(message, len(noise))
        if repeat is not None:
            repeat.body(message)
