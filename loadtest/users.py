"""Users that stream: one greenlet each, spawned by one scheduler on an absolute schedule.

Locust's own HTTP users hold stream data back (`iter_lines` reads in blocks of 1,024 bytes) and wait in closed loops, so
here a user is a socket, an HTTP parser and the SSE reader that the gateway uses too. Needs gevent, but no monkey
patching.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any
from urllib.parse import urlsplit

import gevent
import httptools
from gevent import socket
from gevent.pool import Group

from loadtest.errors import LoadTestError
from loadtest.records import Job, Record
from loadtest.schedule import Line, draw, plan
from serving.sse import FrameSplitter
from serving.wire import AnswerReader, FrameKind, read_whole

_READ_BYTES = 65536
_SOON_S = 0.05  # the schedule starts this long after it is made
_AFTER_TIMEOUT_S = 1.0  # what timed out last still writes its record
_LONGEST_ERROR = 200  # characters

Clock = Callable[[], float]
Keep = Callable[[Record], None]


class Answer:
    """One HTTP answer as it arrives; also the callbacks of httptools' parser."""

    def __init__(self) -> None:
        self.now = 0.0
        self.status = 0
        self.arm = ""
        self.first: float | None = None
        self.end: float | None = None
        self.ended = False
        self.failure = ""
        self.reader = AnswerReader()
        self._splitter = FrameSplitter()
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes, now: float) -> None:
        """Take bytes that came at `now`."""
        self.now = now
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        if name.lower() == b"x-linnet-arm":
            self.arm = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is there."""
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """A piece of the body: frames of a stream, or an error."""
        if self.status != 200:  # noqa: PLR2004 - OK
            self._body += data
            return
        for frame in self._splitter.feed(data):
            if self.reader.frame(frame) is FrameKind.CONTENT and self.first is None:
                self.first = self.now

    def on_message_complete(self) -> None:
        """The answer's last byte."""
        self.ended, self.end = True, self.now

    def error(self, arm: str) -> str:
        """Why this was not a good answer of `arm` (any arm if empty); empty if it was."""
        if self.failure:
            return self.failure
        if self.status != 200:  # noqa: PLR2004 - OK
            return f"status {self.status}: {read_whole(self._body).error or 'no reason given'}"
        if self.reader.error:
            return self.reader.error
        if arm and self.arm and self.arm != arm:
            return f"{self.arm} answered, not {arm}"
        return "" if self.reader.complete else "the stream ended without finish_reason, usage or [DONE]"


Ask = Callable[[Line, str, int], Answer]
"""Asks for so many tokens in a session and returns what became of it; never raises for what the server does."""


class HttpAsk:
    """Asks a gateway over a connection of its own per request: each arrival is another user."""

    def __init__(self, job: Job, key: str = "", clock: Clock = time.perf_counter) -> None:
        url = urlsplit(job.gateway)
        if url.scheme != "http" or not url.hostname:
            raise LoadTestError(f"{job.gateway}: the load test speaks http; give --gateway as http://HOST:PORT")
        self._address = (url.hostname, url.port or 80)
        self._job = job
        self._clock = clock
        forced = f"X-Linnet-Arm: {job.arm}\r\n" if job.arm else ""
        access = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = (
            f"POST {url.path.rstrip('/')}/v1/chat/completions HTTP/1.1\r\nHost: {url.netloc}\r\n"
            f"Content-Type: application/json\r\nAccept: text/event-stream\r\nConnection: close\r\n{forced}{access}"
        )

    def __call__(self, line: Line, session: str, max_tokens: int) -> Answer:
        """Send one request and read it to its end; what goes wrong is in the answer's `failure`."""
        answer = Answer()
        try:
            with gevent.Timeout(self._job.timeout), socket.create_connection(self._address) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(self._request(line, session, max_tokens))
                self._read(connection, answer)
        except gevent.Timeout:
            answer.failure = f"no end after {self._job.timeout:g} s"
        except OSError as error:
            answer.failure = f"the connection broke: {error.strerror or error}"
        except httptools.HttpParserError as error:
            answer.failure = f"not an HTTP answer: {error}"
        answer.end = answer.end or self._clock()
        return answer

    def _read(self, connection: socket.socket, answer: Answer) -> None:
        while not answer.ended:
            data = connection.recv(_READ_BYTES)  # returns what is there: nothing waits for more
            if not data:
                answer.failure = "the connection ended in the middle of the answer"
                return
            answer.feed(data, self._clock())

    def _request(self, line: Line, session: str, max_tokens: int) -> bytes:
        body = json.dumps(
            {
                "model": self._job.model,
                "messages": [{"role": "user", "content": line.prompt}],
                "max_tokens": max_tokens,
                "temperature": 0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        sliced = f"X-Linnet-Slice: {line.slice}\r\n" if line.slice else ""
        head = f"{self._head}X-Linnet-Session: {session}\r\n{sliced}Content-Length: {len(body)}\r\n\r\n"
        return head.encode("latin-1", "replace") + body


class OpenLoop:
    """Sends each arrival when it is due, whatever became of the ones before."""

    def __init__(
        self, job: Job, lines: tuple[Line, ...], ask: Ask, keep: Keep, clock: Clock = time.perf_counter
    ) -> None:
        self._job = job
        self._lines = lines
        self._ask = ask
        self._keep = keep
        self._clock = clock
        self._group = Group()
        self._stopping = False
        self.began = 0.0
        self.sent = 0

    def run(self) -> None:
        """Send the whole schedule, then wait for the answers."""
        job = self._job
        dues = plan(job.pattern, job.rate, job.warmup, job.duration, Random(job.seed))  # noqa: S311 - no secrets
        lines = draw(self._lines, Random(job.seed + 1))  # noqa: S311
        self.began = self._clock() + _SOON_S
        for number, offset, line in zip(count(), dues, lines, strict=False):  # two of the three never end
            self._wait_until(self.began + offset)
            if self._stopping:
                return
            self._arrive(line, f"{job.session}-{number}", offset)
        self._group.join(job.timeout + _AFTER_TIMEOUT_S)
        self._group.kill()

    def stop(self) -> None:
        """Send no more, give what is in flight `drain` seconds, then let go of it."""
        self._stopping = True
        self._group.join(self._job.drain)
        self._group.kill()

    def _wait_until(self, due: float) -> None:
        while not self._stopping and (left := due - self._clock()) > 0:
            gevent.sleep(min(left, 0.5))

    def _arrive(self, line: Line, session: str, offset: float) -> None:
        if len(self._group) < self._job.in_flight:
            self.sent += 1
            self._group.spawn(self._one, line, session, offset)
            return
        self._keep(Record(**self._due(offset), slice=line.slice, sent=False, error="in-flight limit reached: not sent"))

    def _one(self, line: Line, session: str, offset: float) -> None:
        due = self.began + offset
        lag = self._clock() - due
        answer = self._ask(line, session, self._job.max_tokens)
        told = outcome(answer, self._job.arm, due)
        self._keep(Record(**self._due(offset), slice=line.slice, lag_ms=_ms(lag), **told))

    def _due(self, offset: float) -> dict[str, Any]:
        behind = self._clock() - (self.began + offset)
        return {"unix": round(time.time() - behind, 4), "at": round(offset - self._job.warmup, 6)}


def outcome(answer: Answer, arm: str, due: float) -> dict[str, Any]:
    """Return what a record tells of an answer that was due of `arm` (any if empty) at `due`."""
    error = answer.error(arm)
    told = {"arm": answer.arm, "status": answer.status, "ok": not error, "error": error[:_LONGEST_ERROR]}
    return {**told, **_times(answer, due)}


def _times(answer: Answer, due: float) -> dict[str, Any]:
    """Work out an answer's times and tokens (see Record)."""
    usage = answer.reader.usage
    tokens = usage.completion_tokens if usage else 0
    first, end = answer.first, answer.end
    decode = None if first is None or end is None or tokens < 2 else (end - first) / (tokens - 1)  # noqa: PLR2004
    return {
        "ttft_ms": None if first is None else _ms(first - due),
        "tpot_ms": None if decode is None else _ms(decode),
        "e2e_ms": None if end is None else _ms(end - due),
        "tokens": tokens,
        "prompt_tokens": usage.prompt_tokens if usage else 0,
        "cached_tokens": usage.cached_tokens if usage else 0,
    }


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)


def orphaned(parent: int) -> bool:
    """Tell whether the process that started this one is gone."""
    return os.getppid() != parent
