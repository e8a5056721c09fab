from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.gateways.machine import Usage, busy_s, free_ports, pinned, read_usage, usage, usage_of

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
SPINNING = "import time\nwhile time.process_time() < 0.2: pass\nprint(1, flush=True)\ninput()"


def test_a_stat_is_read_whatever_the_name():
    """The session, the time with that of reaped children, the resident pages."""
    text = "42 (a) R (b) S 7 42 40 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 5 6 7 8"
    assert read_usage(text) == (40, Usage(124 / TICK, 7 * PAGE, (42,)))


def test_a_session_is_counted_whole_and_alone():
    """Also what it has started; and nothing else."""
    argv = ["sh", "-c", f'{sys.executable} -c "$0"; true', SPINNING]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"1\n"
        used = usage(process.pid)
        assert process.pid in used.pids
        assert len(used.pids) == 2
        assert used.cpu_s >= 0.18
        assert used.rss > usage_of(process.pid).rss
        process.communicate(b"\n")
    assert usage(process.pid) == Usage()


def test_the_busy_time_of_a_core_does_not_shrink():
    """Only the cores that are asked for are told."""
    before = busy_s([0])
    after = busy_s([0])
    assert list(after) == [0]
    assert after[0] >= before[0]


def test_free_ports_differ():
    """Two peers never get one."""
    assert len(set(free_ports(20))) == 20


@pytest.mark.parametrize(("core", "words"), [(1, ["taskset", "-c", "1"]), (None, [])])
def test_a_command_is_pinned_only_where_a_core_is_named(core, words):
    """Its niceness comes first."""
    assert pinned(["a", 2], core, 3) == ["nice", "-n", "3", *words, "a", "2"]
