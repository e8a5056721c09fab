"""What can go wrong in a benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """One line: what, where, the mend. A run with a wrong answer in it is no measurement."""
