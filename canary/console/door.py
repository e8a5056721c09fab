"""Where `linnet` begins: Ctrl-C while the rest is still being read in is one line too, not a traceback."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def main() -> None:
    """Run the command line."""
    # As an exception it could get lost: what an import's callbacks raise is printed and ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from canary.console.cli import main as run  # noqa: PLC0415 - this import is what may be interrupted

    run()


def _leave(*_: object) -> NoReturn:
    os.write(2, b"linnet: interrupted\n")
    os._exit(130)
