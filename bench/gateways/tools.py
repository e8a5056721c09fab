"""The tools: what must be there, and the two programs in C that are built for a run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.errors import BenchError

HERE = Path(__file__).parent / "tools"
WRK_SCRIPT = HERE / "wrk.lua"
_PROGRAMS = {
    "gcc": "gcc and libc6-dev",
    "wrk": "wrk",
    "taskset": "util-linux",
    "setpriv": "util-linux",
}


def check() -> None:
    """Raise BenchError with one line that names every program that is missing, and where it comes from."""
    if missing := [f"{name} (package {package})" for name, package in _PROGRAMS.items() if not shutil.which(name)]:
        raise BenchError(f"not on the PATH: {', '.join(missing)}; install and run again")


def build(folder: Path) -> tuple[Path, Path]:
    """Compile the engine and the generator of streams into `folder`. Raises BenchError if gcc refuses."""
    engine, streams = (_compiled(name, folder) for name in ("engine", "streams"))
    return engine, streams


def _compiled(name: str, folder: Path) -> Path:
    source, target = HERE / f"{name}.c", folder / name
    done = subprocess.run(
        ["gcc", "-O2", "-o", str(target), str(source)], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        first = next(iter(done.stderr.strip().splitlines()), "no reason given")
        raise BenchError(f"{source.name}: gcc refuses ({first}); is libc6-dev installed?")
    return target
