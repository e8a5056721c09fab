"""The access log: one line of JSON for each request, and nothing in it but what `Entry` names.

No prompt, no key, no header and no address can reach it, because no field takes one. A request only leaves its line in
memory; a thread of its own writes a few times a second. While the disk hangs or is full, lines are dropped and counted.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import SettingsError
from gateway.record.series import OTHER
from gateway.routes.table import PROXIED

_LOG = logging.getLogger("linnet.gateway")
STDERR = "-"
_WRITE_S = 0.2
_HELD_MOST = 16_384  # lines that wait for the disk: about 8 MB
_AT_ONCE = 2_048  # lines in one write
_CLOSE_S = 1.0
_PATHS = frozenset(route.path for route in PROXIED.values())
_REASONS = frozenset({"", "stop", "length", "tool_calls", "function_call", "content_filter", "abort", "error"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One request as it ended. Times are Unix milliseconds, and milliseconds from the request's last byte.

    `result` is a word of `Result`, or "refused" for a request that reached no arm, with neither arm nor release.
    `key_id` names a key and is none. A `path` or a `finish_reason` that is not in a table is written as "other".
    """

    unix_ms: int
    request_id: str
    model: str
    path: str
    status: int
    result: str
    e2e_ms: float
    arm: str = ""
    release: str = ""
    generation: int = 0
    stream: bool = False
    ttft_ms: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    finish_reason: str = ""
    key_id: str = ""
    slice: str = ""
    failed_over: bool = False


# One format for all lines: six times as fast as encoding a dictionary.
_LINE = (
    '{"unix_ms":%d,"request_id":%s,"model":%s,"path":%s,"status":%d,"result":%s,"e2e_ms":%.3f,"arm":%s,"release":%s,'
    '"generation":%d,"stream":%s,"ttft_ms":%s,"prompt_tokens":%d,"completion_tokens":%d,"cost_usd":%s,'
    '"finish_reason":%s,"key_id":%s,"slice":%s,"failed_over":%s}\n'
)
_text = json.JSONEncoder().encode


def line(entry: Entry) -> bytes:
    """Return an entry as one line: JSON escapes every control character, and everything that is not ASCII."""
    said = _LINE % (
        entry.unix_ms,
        _text(entry.request_id),
        _text(entry.model),
        _text(entry.path if entry.path in _PATHS else OTHER),
        entry.status,
        _text(entry.result),
        entry.e2e_ms,
        _text(entry.arm),
        _text(entry.release),
        entry.generation,
        "true" if entry.stream else "false",
        "null" if entry.ttft_ms is None else f"{entry.ttft_ms:.3f}",
        entry.prompt_tokens,
        entry.completion_tokens,
        "null" if entry.cost_usd is None else f"{entry.cost_usd:.9g}",
        _text(entry.finish_reason if entry.finish_reason in _REASONS else OTHER),
        _text(entry.key_id),
        _text(entry.slice),
        "true" if entry.failed_over else "false",
    )
    return said.encode("ascii")


class AccessLog:
    """The file, or standard error for "-". Raises SettingsError with one line if it cannot be opened."""

    def __init__(self, path: str) -> None:
        self.dropped = 0  # lines, since the start
        self._path = path
        self._lines: deque[bytes] = deque()
        self._stop = threading.Event()
        self._again = False
        self._well = True
        self._torn = False
        self._fd = _first_open(path)
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()

    def write(self, entry: Entry) -> None:
        """Leave one line to be written; never waits."""
        if len(self._lines) < _HELD_MOST:
            self._lines.append(line(entry))
        else:
            self.dropped += 1

    def reopen(self) -> None:
        """Open the file by its name again before the next line; one that was renamed is noticed without this."""
        self._again = True

    def close(self) -> None:
        """Write what is left, if the disk takes it within a second."""
        self._stop.set()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while not self._stop.wait(_WRITE_S):
            self._flush()
        self._flush()
        if self._path != STDERR:
            os.close(self._fd)

    def _flush(self) -> None:
        """Write everything that waits. Only here the disk is touched."""
        while count := min(len(self._lines), _AT_ONCE):
            lines = [self._lines.popleft() for _ in range(count)]
            try:
                self._follow_name()
                self._append(b"".join(lines))
                self._well = True
            except OSError as error:
                self.dropped += count
                self._warn(error)

    def _append(self, piece: bytes) -> None:
        """Write in one go: lines of several workers do not mix. Raises OSError."""
        text = b"\n" + piece if self._torn else piece
        self._torn = os.write(self._fd, text) < len(text)
        if self._torn:
            raise OSError(errno.ENOSPC, "the disk took only a part")

    def _follow_name(self) -> None:
        """Open the file anew once it was renamed or removed (logrotate), or when asked to."""
        if self._path == STDERR or not (self._again or _moved(self._path, self._fd)):
            return
        fresh = _open(self._path)
        os.close(self._fd)
        self._fd, self._again, self._torn = fresh, False, False

    def _warn(self, error: OSError) -> None:
        if self._well:
            _LOG.warning("%s: cannot write the access log (%s); free the disk", self._path, error.strerror or error)
        self._well = False


def check(path: str) -> None:
    """Raise SettingsError with one line unless the log can be opened; the process that starts the workers asks."""
    fd = _first_open(path)
    if path != STDERR:
        os.close(fd)


def _first_open(path: str) -> int:
    try:
        return _open(path)
    except OSError as error:
        reason = error.strerror or error
        mend = "name a file that can be written, or -"
        raise SettingsError(f"LINNET_ACCESS_LOG: {path}: cannot open ({reason}); {mend}") from None


def _open(path: str) -> int:
    if path == STDERR:
        return sys.stderr.fileno()
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _moved(path: str, fd: int) -> bool:
    """Tell whether a name no longer leads to the open file."""
    try:
        named = Path(path).stat()
    except FileNotFoundError:
        return True
    return not os.path.samestat(named, os.fstat(fd))
