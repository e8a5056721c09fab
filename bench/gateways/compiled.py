"""A copy of the gateway whose hot modules are compiled by mypyc: the same source without most of the interpreter.

It needs gcc, Python's headers and setuptools, and takes about a minute; a copy is kept among the temporary files until
the source changes. The tests run on the source; this is for those who want to know what the interpreter costs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from bench.errors import BenchError

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("canary", "gateway", "serving")
_BOUND_S = 600.0
# What runs for every request or chunk. Left as it is: serving/wire.py, for a class attribute that mypyc refuses.
HOT = tuple(
    f"{package}/{name}.py"
    for package, names in {
        "canary/core": ("arms", "assignment", "outcome", "tally", "tripwire", "watchdog"),
        "gateway/door": ("access", "ask", "client", "guest", "meter", "protocol", "quota", "reception", "walk"),
        "gateway/pool": (
            "admission",
            "balance",
            "breaker",
            "connection",
            "pool",
            "replica",
            "retry",
            "seats",
            "sending",
        ),
        "gateway/record": ("evidence", "metrics", "series"),
        "gateway/relay": ("answer", "bill", "desk", "exchange", "naming", "template", "trial"),
        "gateway/routes": ("table",),
        "gateway/split": ("choice", "splits"),
        "gateway": ("repeat",),
        "serving": ("cost", "sse", "wire"),
    }.items()
    for name in names
)
_SETUP = """
from setuptools import setup
from mypyc.build import mypycify
setup(name="linnet", packages=[], ext_modules=mypycify({options!r}, opt_level="2", debug_level="0"))
"""


# mypyc takes `bytes[slice]` for an index; the copy spells it in two numbers.
_SLICED = re.compile(r"\[slice\(\*(\w+)\)\]"), r"[\1[0] : \1[1]]"


def compiled() -> Path:
    """Return the folder of the copy, made if there is none of this source. Raises BenchError if it does not compile."""
    folder = Path(tempfile.gettempdir(), f"linnet-compiled-{fingerprint(_sources())}")
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for package in _PACKAGES:
            shutil.copytree(_ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        for name in HOT:
            spelled, plainly = _SLICED
            (folder / name).write_text(spelled.sub(plainly, (folder / name).read_text()))
        _compile(folder)
        (folder / "done").touch()
    return folder


def fingerprint(sources: Iterable[Path]) -> str:
    """Return what tells one state of the sources from another."""
    digest = sha256(sys.version.encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _sources() -> list[Path]:
    packages = [path for package in _PACKAGES for path in sorted((_ROOT / package).rglob("*.py"))]
    return [*packages, Path(__file__)]


def _compile(folder: Path) -> None:
    options = ["--config-file", str(_ROOT / "pyproject.toml"), *HOT]
    (folder / "setup.py").write_text(_SETUP.format(options=options))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "build_ext", "--inplace"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_BOUND_S,
    )
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "error" in line.lower()]
        raise BenchError(
            f"mypyc refuses: {lines[0] if lines else 'no reason given'}; are gcc, Python.h and setuptools there?"
        )


if __name__ == "__main__":
    print(compiled())
