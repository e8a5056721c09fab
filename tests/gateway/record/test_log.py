from __future__ import annotations

import json
import os
import re
import time
import timeit
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from threading import Event

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import SettingsError
from gateway.record import log
from gateway.record.log import AccessLog, Entry, line

ENTRY = Entry(
    unix_ms=1_790_000_000_123,
    request_id="req-1",
    model="support",
    path="/v1/chat/completions",
    status=200,
    result="ok",
    e2e_ms=20.345,
    arm="candidate",
    release="r1",
    generation=3,
    stream=True,
    ttft_ms=1.25,
    prompt_tokens=10,
    completion_tokens=20,
    cost_usd=0.000125,
    finish_reason="stop",
    key_id="k1",
    slice="domain",
    failed_over=True,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the log goes."""
    return tmp_path / "access.log"


@pytest.fixture
def opened(path: Path) -> Iterator[AccessLog]:
    """A log that is closed afterwards."""
    opened = AccessLog(str(path))
    yield opened
    opened.close()


def eventually(true: Callable[[], bool], what: str) -> None:
    """Wait for the thread that writes."""
    end = time.monotonic() + 8
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def ids(path: Path) -> list[str]:
    """The requests of the file, in order; a line that is just being written is none yet."""
    whole, _, _ = (path.read_text() if path.exists() else "").rpartition("\n")
    return [json.loads(said)["request_id"] for said in whole.splitlines()]


def test_a_line_is_what_the_entry_says():
    """Every field by its name, and no other."""
    assert json.loads(line(ENTRY)) == asdict(ENTRY)


def test_what_is_not_known_is_null():
    """A whole answer has no first token, an arm without a load test no cost."""
    said = json.loads(line(replace(ENTRY, ttft_ms=None, cost_usd=None, stream=False)))
    assert (said["ttft_ms"], said["cost_usd"], said["stream"]) == (None, None, False)


@settings(deadline=None)
@given(texts=st.lists(st.text(), min_size=6, max_size=6), number=st.integers(0, 2**53))
@example(texts=['"\n\r\0', "\x7f\x1b[2J", "\x9b\u2028", '\\","status":500', "\ud800", ""], number=0)
def test_any_entry_is_one_line_of_plain_text(texts: list[str], number: int):
    """Line breaks, quotes, terminal escapes and DEL in a name cannot forge a line or a field."""
    request_id, model, arm, release, key_id, slice_ = texts
    entry = replace(
        ENTRY, request_id=request_id, model=model, arm=arm, release=release, key_id=key_id, slice=slice_,
        prompt_tokens=number, cost_usd=number / 1e9,
    )  # fmt: skip
    said = line(entry)
    assert re.fullmatch(rb"[\x20-\x7e]+\n", said)
    assert json.loads(said) == {**asdict(entry), "cost_usd": pytest.approx(number / 1e9)}


@settings(deadline=None)
@given(text=st.text(min_size=1))
def test_neither_a_clients_path_nor_an_engines_words_are_written(text: str):
    """Only what is in a table: a path can carry a key, an answer's field a prompt."""
    said = json.loads(line(replace(ENTRY, path="/v1/x?" + text, finish_reason=" " + text)))
    assert (said["path"], said["finish_reason"]) == ("other", "other")


def test_lines_arrive_in_their_order(opened: AccessLog, path: Path):
    """Soon, and all of them."""
    for number in range(5000):
        opened.write(replace(ENTRY, request_id=str(number)))
    eventually(lambda: len(ids(path)) == 5000, "the lines")
    assert ids(path) == [str(number) for number in range(5000)]
    assert opened.dropped == 0


def test_closing_writes_what_is_left(path: Path):
    """The last request before the end is in the log."""
    opened = AccessLog(str(path))
    opened.write(ENTRY)
    opened.close()
    assert ids(path) == ["req-1"]


def test_a_renamed_file_is_left_to_its_reader(opened: AccessLog, path: Path):
    """As logrotate does: nothing is lost, and the new file is there without a signal."""
    opened.write(replace(ENTRY, request_id="before"))
    eventually(lambda: ids(path) == ["before"], "the first line")
    aside = path.with_suffix(".1")
    path.rename(aside)
    opened.write(replace(ENTRY, request_id="after"))
    eventually(lambda: ids(path) == ["after"], "the new file")
    assert ids(aside) == ["before"]


def test_a_signal_opens_the_file_anew(path: Path, tmp_path: Path):
    """Asked to, it looks the name up again also where the file is still the same."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    opened = AccessLog(str(path))
    fd = opened._fd
    blocker = os.open("/dev/null", os.O_RDONLY)
    opened.reopen()
    opened.write(ENTRY)
    eventually(lambda: ids(path) == ["req-1"], "the line")
    assert opened._fd != fd
    os.close(blocker)
    opened.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_two_workers_write_one_file(path: Path):
    """Their lines follow each other; none is cut by another."""
    both = AccessLog(str(path)), AccessLog(str(path))
    for number in range(3000):
        both[number % 2].write(replace(ENTRY, request_id=str(number)))
    for each in both:
        each.close()
    assert sorted(ids(path), key=int) == [str(number) for number in range(3000)]


def test_a_hanging_disk_costs_lines_and_nothing_else(opened: AccessLog, path: Path, monkeypatch: pytest.MonkeyPatch):
    """The buffer is bounded, what does not fit is counted, and writing goes on afterwards."""
    free, hangs, write = Event(), Event(), os.write

    def hanging(fd: int, text: bytes) -> int:
        if fd == opened._fd:
            hangs.set()
            free.wait(10)
        return write(fd, text)

    monkeypatch.setattr(log, "_HELD_MOST", 10)
    monkeypatch.setattr(os, "write", hanging)
    opened.write(replace(ENTRY, request_id="first"))
    eventually(hangs.is_set, "the disk to hang")
    for number in range(25):
        opened.write(replace(ENTRY, request_id=str(number)))
    assert opened.dropped == 15
    free.set()
    eventually(lambda: len(ids(path)) == 11, "the rest")
    assert ids(path) == ["first", *(str(number) for number in range(10))]


def test_a_full_disk_is_told_once(path: Path, caplog: pytest.LogCaptureFixture):
    """Lines are dropped and counted; once there is room, the log goes on."""
    path.symlink_to("/dev/full")
    opened = AccessLog(str(path))
    for number in (1, 2):
        opened.write(ENTRY)
        eventually(lambda number=number: opened.dropped == number, "the drop")
    assert caplog.text.count("cannot write the access log") == 1
    path.unlink()
    opened.write(ENTRY)
    eventually(lambda: ids(path) == ["req-1"], "a disk with room")
    opened.close()


def test_a_line_that_the_disk_cut_spoils_no_other(opened: AccessLog, path: Path, monkeypatch: pytest.MonkeyPatch):
    """The next one begins on a line of its own."""
    write, room = os.write, [20]
    monkeypatch.setattr(
        os, "write", lambda fd, text: write(fd, text[: room.pop()] if room and fd == opened._fd else text)
    )
    opened.write(replace(ENTRY, request_id="cut"))
    eventually(lambda: opened.dropped == 1, "the cut")
    opened.write(replace(ENTRY, request_id="whole"))
    eventually(lambda: path.read_bytes().count(b"\n") == 2, "the next line")
    assert json.loads(path.read_text().splitlines()[1])["request_id"] == "whole"


def test_standard_error_is_a_dash(capfd: pytest.CaptureFixture[str]):
    """For containers; it is not closed."""
    opened = AccessLog("-")
    opened.write(ENTRY)
    opened.close()
    os.write(2, b"still open\n")
    first, second = capfd.readouterr().err.splitlines()
    assert json.loads(first)["request_id"] == "req-1"
    assert second == "still open"


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path: Path):
    """What, where, the mend; before the first request."""
    with pytest.raises(SettingsError, match=r"LINNET_ACCESS_LOG: .*: cannot open \(No such file or directory\); name"):
        AccessLog(str(tmp_path / "nowhere" / "access.log"))


def test_others_cannot_read_it(opened: AccessLog, path: Path):
    """It names who asked when."""
    assert path.stat().st_mode & 0o007 == 0


def test_an_entry_costs_few_microseconds(opened: AccessLog, monkeypatch: pytest.MonkeyPatch):
    """Made and left: 4 us where this was written; the limit leaves room for a loaded machine."""
    monkeypatch.setattr(log, "_HELD_MOST", 10**9)
    fields = asdict(ENTRY)
    assert min(timeit.repeat(lambda: opened.write(Entry(**fields)), number=500, repeat=9)) / 500 < 20e-6
