from __future__ import annotations

import resource
import subprocess
import sys

HEAVY = {"numpy", "scipy", "httpx", "locust", "torch", "rich", "typer", "prometheus_client"}

LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
from gateway.worker import raise_open_files
print(raise_open_files(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""

SETTLED = """
import gc
from pathlib import Path
from gateway.worker import settle
settle()
print(gc.get_freeze_count(), *Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[:2])
"""


def run(code: str) -> str:
    """What a fresh interpreter says."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_a_worker_may_open_as_many_files_as_the_system_lets_it():
    """The usual soft limit is a thousand; ten thousand streams are twenty thousand connections."""
    hard = min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    assert run(LIMIT).split() == [str(hard)] * 3


def test_a_worker_imports_nothing_that_its_requests_do_not_need():
    """Each of these costs memory in every worker."""
    loaded = run("import gateway.worker, sys; print(*sys.modules)").split()
    assert "gateway.app" in loaded
    assert set(loaded) & HEAVY == set()


def test_a_worker_that_serves_nobody_is_small():
    """Also where every module was compiled at its start; what is left is no work for the collector."""
    frozen, resident, unit = run(SETTLED).split()
    assert int(frozen) > 50_000
    assert (int(resident) < 70_000, unit) == (True, "kB")
