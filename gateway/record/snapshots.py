"""A worker's sums on their way to the process that shows them: one small file, replaced as a whole twice a second.

The disk is never on a request's way: it is written by a thread, and one that is full or gone costs a single warning.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from gateway.record.metrics import Metrics
from gateway.record.series import Snapshot, decode, encode
from gateway.split.follow import forever

_LOG = logging.getLogger("linnet.gateway")
WRITE_S = 0.5
_S_PER_SERIES = 0.0002  # with very many models the file is written less often, so that a request costs the same
_AT_ONCE = 64  # series written down between two requests


class Snapshots:
    """Writes one worker's sums to its file."""

    def __init__(self, metrics: Metrics, path: Path) -> None:
        self._metrics = metrics
        self._path = path
        self._well = True

    async def keep(self) -> None:
        """Write again and again; never ends by itself, whatever goes wrong."""
        await forever("writing the metrics", self._turn, WRITE_S)

    async def write(self) -> None:
        """Write once, in small pieces between the requests."""
        snapshot = self._metrics.snapshot()
        lines = [json.dumps(snapshot.at)]
        for name, rows in snapshot.sums.items():
            series = list(rows.items())
            for start in range(0, len(series), _AT_ONCE):
                lines.append(encode(name, series[start : start + _AT_ONCE]))
                await asyncio.sleep(0)
        try:
            await asyncio.to_thread(self._replace, "\n".join(lines))
            self._well = True
        except OSError as error:
            if self._well:
                _LOG.warning("%s: cannot write the metrics (%s); free the disk", self._path, error.strerror or error)
            self._well = False

    async def _turn(self) -> None:
        await self.write()
        series = sum(len(rows) for rows in self._metrics.snapshot().sums.values())
        await asyncio.sleep(max(0.0, series * _S_PER_SERIES - WRITE_S))

    def _replace(self, text: str) -> None:
        fresh = self._path.with_suffix(".tmp")
        fresh.write_text(text, "ascii")
        fresh.replace(self._path)


def file_of(folder: Path, pid: int) -> Path:
    """Return where a worker writes."""
    return folder / f"{pid}.json"


def read(path: Path) -> Snapshot | None:
    """Return what a worker wrote last, None if there is nothing that can be read."""
    try:
        at, *lines = path.read_text("ascii").split("\n")
        return Snapshot(float(at), decode(lines))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        _LOG.warning("%s: no snapshot of a worker (%s)", path, error)
        return None
