"""The last hand: ends every registered process group when the process that made them dies without a word.

The supervisor starts this file as a process of its own session and writes `+PGID` and `-PGID` lines to its input. When
the input ends, however the writer went (kill -9 too), what is still registered gets SIGTERM, two seconds, and SIGKILL.
Needs nothing but the standard library, and is run as a plain file so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

GRACE_S = 2.0


def registered(lines: Iterable[str]) -> set[int]:
    """Return the groups still registered when the lines end."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        (groups.add if line.startswith("+") else groups.discard)(group)
    return groups


def send(groups: Iterable[int], number: signal.Signals) -> None:
    """Signal whole groups; those that are gone are no error."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def main() -> None:
    """Wait for the end of input, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups = registered(sys.stdin)
    if groups:
        send(groups, signal.SIGTERM)
        time.sleep(GRACE_S)
        send(groups, signal.SIGKILL)


if __name__ == "__main__":
    main()
