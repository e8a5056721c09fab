"""Processes of a benchmark: started on their cores, read from /proc, ended by pid."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

_URL = re.compile(r"(http://127\.0\.0\.1:\d+)")
_END_S = 10.0
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Stat:
    """One process: `ticks` of user and system time, those of its reaped children included."""

    pid: int
    parent: int
    ticks: int


def read_stat(text: str) -> Stat:
    """Read /proc/PID/stat (proc(5)). The name may hold spaces and parentheses, so count from its last one."""
    fields = text[text.rindex(")") + 1 :].split()
    return Stat(int(text.split(maxsplit=1)[0]), int(fields[1]), sum(int(ticks) for ticks in fields[11:15]))


def tree(stats: Iterable[Stat], root: int) -> tuple[Stat, ...]:
    """Return `root` and everything below it."""
    left, found, pids = list(stats), [], {root}
    while grown := [stat for stat in left if stat.pid in pids or stat.parent in pids]:
        found += grown
        pids |= {stat.pid for stat in grown}
        left = [stat for stat in left if stat.pid not in pids]
    return tuple(found)


def cpu_seconds(root: int) -> float:
    """User and system seconds of a process and its children so far."""
    return sum(stat.ticks for stat in tree(_stats(), root)) / os.sysconf("SC_CLK_TCK")


def _stats() -> Iterator[Stat]:
    for path in _PROC.glob("[0-9]*/stat"):
        try:
            yield read_stat(path.read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended between the listing and the look


@contextmanager
def on(cores: frozenset[int]) -> Iterator[None]:
    """What is started inside runs on these cores only: a child inherits them, without a moment elsewhere."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def child(
    name: str, argv: list[str], folder: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a process; end it by pid afterwards. What it complains of goes to a file in `folder`."""
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(env or {})}
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def announced(name: str, process: subprocess.Popen[str], folder: Path) -> str:
    """Return the address that a process says it serves on, in its first line."""
    line = "" if process.stdout is None else process.stdout.readline()
    if found := _URL.search(line):
        return found[1]
    said = (folder / f"{name}.log").read_text().strip().splitlines()
    raise BenchError(f"{name} did not start: {said[-1] if said else 'it said nothing'}")
