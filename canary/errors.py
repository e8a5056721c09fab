"""What goes wrong for a person at the control plane, each with the exit code of the command line.

LinnetError
├── Refused (1)       not permitted now
├── Usage (2)         wrong usage
│   └── SpecError     an invalid spec, a line a fault
├── Unreachable (3)   the store or the control plane does not answer
├── Conflict (4)      the release moved on meanwhile
└── TimedOut (5)      waited in vain

A message is one line that says what, where and the mend.
"""

from __future__ import annotations

from collections.abc import Iterable


class LinnetError(Exception):
    """Base of all; `exit_code` is the command line's."""

    exit_code = 1

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        if exit_code is not None:
            self.exit_code = exit_code


class Refused(LinnetError):  # noqa: N818 - the operator's word
    """Not permitted now."""

    exit_code = 1


class Unknown(Refused):
    """There is no such model, or no release of it."""


class Usage(LinnetError):  # noqa: N818 - the operator's word
    """Wrong usage."""

    exit_code = 2


class SpecError(Usage):
    """An invalid spec; `lines` holds one "FILE:LINE: what; mend" a fault."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class Unreachable(LinnetError):  # noqa: N818 - the operator's word
    """The store or the control plane does not answer."""

    exit_code = 3


class Conflict(LinnetError):  # noqa: N818 - the operator's word
    """The release moved on meanwhile."""

    exit_code = 4


class TimedOut(LinnetError):  # noqa: N818 - the operator's word
    """Waited in vain."""

    exit_code = 5
