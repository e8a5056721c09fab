"""Where `linnet` begins: Ctrl-C while the rest is still being read in is one line too, not a traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from canary.cli import main as run  # noqa: PLC0415 - this import is what may be interrupted
    except KeyboardInterrupt:
        sys.stderr.write("linnet: interrupted\n")
        sys.exit(130)
    run()
