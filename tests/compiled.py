"""The tests of what is compiled, once more on the compiled copy: `python -m tests.compiled [pytest's words]`.

They are those that do not reach into the source (the mark `source`). Where there is no copy, nothing is tested.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from gateway import compiled

_ROOT = Path(__file__).parents[1]
_TESTED = (
    "tests/canary/core",
    "tests/gateway",
    "tests/serving/test_kept.py",
    "tests/serving/test_plain.py",
    "tests/serving/test_quick.py",
    "tests/serving/test_responses.py",
    "tests/serving/test_sse.py",
    "tests/serving/test_wire.py",
)


def main(words: Sequence[str]) -> int:
    """Run them; pytest's exit status."""
    environment = compiled.environment()
    if not environment:
        print("tests: there is no compiled copy (make fast); only the source was tested")  # noqa: T201
        return 0
    # Imported as files, the tests put no folder before the copy's.
    usual = ["--import-mode=importlib", "-q", "-m", "not source and not vllm", "-p", "no:cacheprovider"]
    argv = [sys.executable, "-m", "pytest", *usual, *(words or _TESTED)]
    return subprocess.run(argv, cwd=_ROOT, env=os.environ | environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
