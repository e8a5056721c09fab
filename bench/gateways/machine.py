"""The machine under the benchmark: its processes by session, its cores, its ports."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_BUSY_FIELDS = 8  # of a line of /proc/stat: user to steal; guest time is in user already
_IDLE, _WAITING = 3, 4


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes have used so far: CPU seconds (reaped children included) and resident bytes."""

    cpu_s: float = 0.0
    rss: int = 0
    pids: tuple[int, ...] = ()

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.cpu_s + other.cpu_s, self.rss + other.rss, self.pids + other.pids)


def usage(session: int) -> Usage:
    """Return the usage of all processes of a session; nothing if there is none."""
    found = (one for one_session, one in _all() if one_session == session)
    return sum(found, Usage())


def usage_of(pid: int) -> Usage:
    """Return the usage of one process; nothing if it is gone."""
    found = _read(_PROC / str(pid) / "stat")
    return found[1] if found else Usage()


def read_usage(text: str) -> tuple[int, Usage]:
    """Read /proc/PID/stat (proc(5)) into the session and the usage; the name may hold spaces and parentheses."""
    fields = text[text.rindex(")") + 1 :].split()
    ticks = sum(int(field) for field in fields[11:15])
    return int(fields[3]), Usage(ticks / _TICK, int(fields[21]) * _PAGE, (int(text.split(maxsplit=1)[0]),))


def busy_s(cores: Iterable[int]) -> dict[int, float]:
    """Return the busy seconds so far of these cores."""
    wanted = {f"cpu{core}": core for core in cores}
    lines = (line.split() for line in (_PROC / "stat").read_text().splitlines())
    return {wanted[line[0]]: _busy([int(field) for field in line[1:]]) for line in lines if line[0] in wanted}


def _busy(fields: Sequence[int]) -> float:
    return (sum(fields[:_BUSY_FIELDS]) - fields[_IDLE] - fields[_WAITING]) / _TICK


def await_quiet(cores: Sequence[int], share: float, most_s: float) -> None:
    """Wait until nobody uses more than `share` of a core, at most so long."""
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        before, begun = busy_s(cores), time.monotonic()
        time.sleep(0.3)
        took = time.monotonic() - begun
        if all(busy - before[core] <= share * took for core, busy in busy_s(cores).items()):
            return


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def pinned(argv: Sequence[object], core: int | None, nice: int = 0) -> list[str]:
    """Return the command that runs another on one core (None: on any) at a niceness."""
    pin = [] if core is None else ["taskset", "-c", str(core)]
    return ["nice", "-n", str(nice), *pin, *map(str, argv)]


def renice(session: int, nice: int) -> None:
    """Set the niceness of every thread of a session."""
    for pid in usage(session).pids:
        for task in _listed(_PROC / str(pid) / "task"):
            try:
                os.setpriority(os.PRIO_PROCESS, int(task.name), nice)
            except ProcessLookupError:
                continue


def _all() -> Iterator[tuple[int, Usage]]:
    for path in _PROC.glob("[0-9]*/stat"):
        if found := _read(path):
            yield found


def _read(path: Path) -> tuple[int, Usage] | None:
    try:
        return read_usage(path.read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended between the listing and the look


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []
