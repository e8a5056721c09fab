"""Plugins that all tests may use."""

import signal

pytest_plugins = [
    "tests.support.control",
    "tests.support.engines",
    "tests.support.simulated",
    "tests.support.stack",
    "tests.support.valkey",
]


def pytest_configure() -> None:
    """Let Ctrl-C reach the processes of tests: a shell that runs us in the background has it ignored by all of them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
