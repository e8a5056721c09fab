"""What can go wrong with a load test. Each message is one line: what, where, the mend.

LoadTestError
├── WorkloadError    the workload file cannot be read
├── ClientError      Locust did not run, or left nothing behind
└── ControlError     the control plane does not answer, or refuses
"""

from __future__ import annotations


class LoadTestError(Exception):
    """Whatever the load test tells its user, in one line; `exit_code` as in the contract."""

    exit_code = 2


class WorkloadError(LoadTestError):
    """The workload file cannot be read."""


class ClientError(LoadTestError):
    """Locust did not run, or left nothing behind: no evidence."""

    exit_code = 3


class ControlError(LoadTestError):
    """The control plane does not answer (3), or refuses (its own code)."""

    def __init__(self, message: str, exit_code: int = 3) -> None:
        super().__init__(message)
        self.exit_code = exit_code
