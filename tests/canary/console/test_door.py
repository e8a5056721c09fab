from __future__ import annotations

import subprocess
import sys

INTERRUPTED = """
import builtins, os, signal
from canary.console import door
whole = builtins.__import__
def amid(name, *rest):
    if name == "canary.console.cli":
        os.kill(os.getpid(), signal.SIGINT)
    return whole(name, *rest)
builtins.__import__ = amid
door.main()
"""


def test_an_interrupt_amid_the_imports_is_one_line():
    """Whoever changes their mind at once sees no traceback."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "linnet: interrupted\n")
