from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.processes import Stat, announced, child, cpu_seconds, on, read_stat, tree

BUSY = "import time\nwhile time.process_time() < 0.3: pass\n"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY!r}]); print(1, flush=True); input()"


def test_a_stat_is_read_whatever_the_name():
    """The name of a process may look like the fields after it."""
    text = "42 (a) R 1 (b) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 5 6 7"
    assert read_stat(text) == Stat(42, 7, 124)


def test_a_tree_is_everything_below_its_root_in_any_order():
    """A grandchild is listed before its parent, a stranger not at all."""
    root, son, grandson, other = Stat(10, 1, 0), Stat(30, 10, 0), Stat(20, 30, 0), Stat(40, 1, 0)
    assert set(tree([grandson, other, son, root], 10)) == {root, son, grandson}


def test_the_time_of_children_that_have_ended_is_counted():
    """A proxy that forks for its work does not look cheap."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"1\n"
        assert cpu_seconds(process.pid) >= 0.29
        process.communicate(b"\n")


def test_what_is_started_inside_stays_on_its_cores():
    """From its first moment, and nobody else is moved."""
    before = os.sched_getaffinity(0)
    one = frozenset(list(before)[:1])
    look = [sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    with on(one):
        seen = subprocess.run(look, capture_output=True, text=True, check=True).stdout
    assert {int(core) for core in seen.split()} == one
    assert os.sched_getaffinity(0) == before


def test_a_process_that_does_not_start_is_told_by_its_last_words(tmp_path: Path):
    """One line, with its reason."""
    with (
        child("engine", [sys.executable, "-c", "raise SystemExit('no port')"], tmp_path) as process,
        pytest.raises(BenchError, match="engine did not start: no port"),
    ):
        announced("engine", process, tmp_path)
