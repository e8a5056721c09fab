"""One measurement at a time on a machine."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.errors import BenchError


@contextmanager
def alone() -> Iterator[None]:
    """Hold the machine's one right to measure. Raises BenchError if another run has it."""
    with Path(tempfile.gettempdir(), "linnet-bench.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BenchError("another run is under way on this machine; wait for its end") from None
        yield
