"""Where a whole answer's time goes: `python -m bench.gateways.profile` (needs Linux's perf, and the right to use it).

perf looks at the compiled worker under load a few thousand times a second; each look belongs to the innermost of our
modules on the stack, or to the kernel. Writes bench/results/profile.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from bench.errors import BenchError
from bench.gateways.alone import alone
from bench.gateways.machine import usage
from bench.gateways.measure import measured, warm
from bench.gateways.ours import gateway
from bench.gateways.scenarios import SCENARIOS
from bench.gateways.stage import Cores, Stage, stage
from bench.gateways.tools import check
from gateway.compiled import HOT

_LOOKS = 999  # a second
_STACK = 16384  # bytes of a stack that are kept
_WHOLE = SCENARIOS["S1c64"]
_OUT = Path(__file__).parents[1] / "results" / "profile.md"
_OURS = re.compile(r"CPyDef_([a-z_]+?)___")
_FILES = {Path(name).stem: name for name in HOT}
_KERNEL = {"ksys_write": "kernel: writes", "ksys_read": "kernel: reads", "epoll": "kernel: waiting for events"}
_LEAST = 0.003  # of all; what is less is not shown alone

Stack = list[tuple[str, str]]  # (symbol, where it is from), innermost first


def stacks(text: str) -> Iterator[Stack]:
    """Read what `perf script` says: a line for each frame, an empty one behind each stack."""
    for part in text.split("\n\n"):
        frames = [line.split(None, 1)[1] for line in part.splitlines() if line.startswith(("\t", " "))]
        if frames:
            yield [_frame(frame) for frame in frames]


def place(stack: Stack) -> str:
    """Return what a look at a stack belongs to."""
    if any("kernel" in origin for _, origin in stack):
        return next((told for symbol, _ in stack for part, told in _KERNEL.items() if part in symbol), "kernel: other")
    for symbol, origin in stack:
        ours = _OURS.match(symbol)
        if ours and ours[1] in _FILES:
            return _FILES[ours[1]]
        if "uvloop" in origin:
            return "uvloop"
    return "the interpreter: what waits, and timers"


def table(places: Mapping[str, int], us: float) -> str:
    """Return one row a place: its share, and its microseconds of a request."""
    total = sum(places.values())
    shown = {name: count for name, count in places.items() if count >= _LEAST * total}
    shown["everything else"] = total - sum(shown.values())
    rows = sorted(shown.items(), key=lambda row: (row[0] == "everything else", -row[1]))
    lines = [f"| {name} | {count / total:.1%} | {count / total * us:.1f} |" for name, count in rows]
    return "\n".join(["| where | share | µs a request |", "|---|---:|---:|", *lines])


def looks(scene: Stage) -> tuple[Counter[str], float]:
    """Return where the looks fell, and the microseconds of CPU a request. Raises BenchError."""
    with gateway(scene, "linnet") as target:
        warm(target, scene, [_WHOLE])
        us = float(measured(target, scene, _WHOLE)["cpu_us"])
        worker = max(usage(target.session).pids)  # the parent was first
        with tempfile.TemporaryDirectory(prefix="lb-") as folder:
            kept = str(Path(folder, "perf.data"))
            argv = ["perf", "record", "-e", "cpu-clock", "-F", str(_LOOKS), "--call-graph", f"dwarf,{_STACK}"]
            perf = subprocess.Popen(
                [*argv, "-p", str(worker), "-o", kept, "--", "sleep", str(_WHOLE.seconds)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            measured(target, scene, _WHOLE)
            if perf.wait():
                raise BenchError("perf cannot look at the worker; it needs the right to (kernel.perf_event_paranoid)")
            said = subprocess.run(
                ["perf", "script", "-i", kept, "-F", "ip,sym,dso"], capture_output=True, text=True, check=True
            )
    return Counter(map(place, stacks(said.stdout))), us


def page(places: Mapping[str, int], us: float, now: datetime) -> str:
    """Return the results as a page."""
    return f"""# Where a whole answer's time goes

{now:%Y-%m-%d}. Made by `python -m bench.gateways.profile`: {sum(places.values()):,} looks at a compiled worker with
everything on, 1 KB prompts over 64 connections, {us:.1f} µs of CPU a request. A look belongs to the innermost of
our modules on the stack, with what it calls in the interpreter and in libraries; or to the kernel.

{table(places, us)}
"""


def _frame(text: str) -> tuple[str, str]:
    symbol, _, origin = text.rpartition(" (")
    return symbol, origin


def _run() -> tuple[Counter[str], float]:
    check()
    with (
        tempfile.TemporaryDirectory(prefix="lb-", ignore_cleanup_errors=True) as folder,
        stage(Path(folder), Cores(0, 1)) as scene,
    ):
        return looks(scene)


def main(_: Iterable[str] = ()) -> int:
    """Look and write; 1 if it cannot."""
    try:
        with alone():
            places, us = _run()
    except (BenchError, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    _OUT.write_text(page(places, us, datetime.now(UTC)))
    print(table(places, us))
    return 0


if __name__ == "__main__":
    sys.exit(main())
