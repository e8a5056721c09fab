"""The file of models, read again when it changes: what is good holds from then on, what is bad is told and left."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from pathlib import Path

from gateway.errors import SettingsError
from gateway.split.catalogue import Catalogue, read
from gateway.split.splits import Splits

_LOG = logging.getLogger("linnet.gateway")
LOOK_S = 0.5

Stamp = tuple[int, int, int]  # time of the last change in ns, bytes, number on its disk


class ModelsFile:
    """Keeps one worker's list of models in step with its file.

    A file is read once it has rested from one look to the next, because an editor may be writing it still; a reload
    that was asked for is done at once. Requests under way are not touched: each has its own split.
    """

    def __init__(self, path: Path, splits: Splits) -> None:
        self._path = path
        self._splits = splits
        self._read: Stamp | None = None  # of the file that was read last, good or bad
        self._before: Stamp | None = None  # of the look before
        self._asked = asyncio.Event()

    def reload(self) -> None:
        """Read the file now, changed or not."""
        self._asked.set()

    async def look(self) -> None:
        """Wait for half a second, or less if a reload is asked for; then read the file if there is a reason to."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._asked.wait()
        asked = self._asked.is_set()
        self._asked.clear()
        stamp = await asyncio.to_thread(_stamp, self._path)
        rested, self._before = stamp == self._before, stamp
        if asked or (rested and stamp != self._read):
            self._read = stamp
            await self._list()

    async def _list(self) -> None:
        try:
            catalogue: Catalogue = await asyncio.to_thread(read, self._path)
        except SettingsError as error:
            self._splits.models_file = f"refused: {error}"
            _LOG.error("models refused, the old ones stay: %s", error)
            return
        self._splits.list(catalogue, time.monotonic())
        self._splits.models_file = "ok"


def _stamp(path: Path) -> Stamp:
    """Return what changes with the file; a file that is not there has a stamp too."""
    try:
        seen = path.stat()  # follows links, as a mounted configuration has
    except OSError:
        return (0, 0, 0)
    return seen.st_mtime_ns, seen.st_size, seen.st_ino
