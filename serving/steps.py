"""Run one command to its end, its lines shown as they come. A step never outlives the process that waits for it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


def run_step(command: Sequence[str], env: Mapping[str, str], show: Callable[[str], None]) -> tuple[int, list[str]]:
    """Return the exit status and all lines of output, both streams together; `show` hears each line."""
    lines: list[str] = []
    pipe, merged = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(command, stdout=pipe, stderr=merged, text=True, errors="replace", env=env) as child:
        try:
            for line in child.stdout or ():
                lines.append(line.rstrip())
                show(lines[-1])
        except BaseException:
            child.kill()
            raise
    return child.returncode, lines
