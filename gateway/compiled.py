"""What runs for every request, compiled: `python -m gateway.compiled` (ADR 15).

The hot modules are plain typed Python, and mypyc makes C of them as they stand: the same program without most of the
interpreter. The compiled copy lies in the cache, named by the source it was made of. A worker is started from it if
there is one of exactly this source; after an edit, or without a compiler, it is started from the source.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Final

from gateway.errors import GatewayError
from serving.environment import cache_dir

_ROOT: Final = Path(__file__).parents[1]
_PACKAGES: Final = ("canary", "gateway", "serving")
_BOUND_S: Final = 900.0
_KEPT: Final = 4  # copies: of this source, and of some that ran before
_DONE: Final = "done"
# What runs for every request or chunk. Left as they are: pool/balance.py, whose rings are weakly referred to, and what
# waits: tasks are asyncio's.
HOT: Final = tuple(
    f"{package}/{name}.py"
    for package, names in {
        "canary/core": "arms assignment cell ledger outcome tally tripwire units watchdog",
        "gateway": "repeat",
        "gateway/door": "access ask client guest line meter protocol quota reception walk",
        "gateway/pool": "admission breaker connection pool replica retry seats sending sink",
        "gateway/record": "evidence metrics series",
        "gateway/relay": "account answer bill desk exchange naming template trial",
        "gateway/routes": "table",
        "gateway/split": "choice splits",
        "serving": "cost kept plain quick responses sse wire",
    }.items()
    for name in names.split()
)
_SETUP: Final = """
from setuptools import setup
from mypyc.build import mypycify
setup(name="linnet", packages=[], ext_modules=mypycify({options!r}, opt_level="3", debug_level="0"))
"""


class CompileError(GatewayError):
    """There is no compiled copy to be had."""


def found() -> Path | None:
    """Return the folder of the compiled copy of this very source, None if there is none."""
    folder = _place()
    return folder if (folder / _DONE).exists() else None


def environment() -> dict[str, str]:
    """Return what a process needs in its environment to run the compiled copy; nothing if there is none."""
    folder = found()
    if folder is None:
        return {}
    # The folder a process is started in must not come first: it may hold the source.
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))),
        "PYTHONSAFEPATH": "1",
    }


def build() -> Path:
    """Return the folder of the compiled copy, made if there is none yet. Raises CompileError with one line."""
    there, place = found(), _place()
    if there is not None:
        return there
    place.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="making-", dir=place.parent))
    try:
        for package in _PACKAGES:
            shutil.copytree(_ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        _compile(folder)
        (folder / _DONE).touch()
        folder.replace(place)
    except OSError as error:
        if found() is None:  # nobody else has made it meanwhile
            raise CompileError(f"{place}: {error.strerror or error}; free the disk or set LINNET_CACHE") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _sweep(place)
    return place


def fingerprint(sources: Iterable[Path]) -> str:
    """Return what tells one state of the sources from another."""
    digest = sha256(sys.version.encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def _place() -> Path:
    packages = [path for package in _PACKAGES for path in sorted((_ROOT / package).rglob("*.py"))]
    return cache_dir() / "gateway" / fingerprint(packages)


def _compile(folder: Path) -> None:
    options = ["--ignore-missing-imports", "--python-version", "3.11", *HOT]
    (folder / "setup.py").write_text(_SETUP.format(options=options))
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "setup.py", "build_ext", "--inplace"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BOUND_S,
        )
    except subprocess.TimeoutExpired:
        raise CompileError(f"no end after {_BOUND_S:g} s; try again on a machine that does less") from None
    if done.returncode:
        raise CompileError(_reason(done.stdout + done.stderr))
    for left in ("build", ".mypy_cache", "setup.py"):
        path = folder / left
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def _reason(said: str) -> str:
    """Say in one line why it did not work, and what to do."""
    if "No module named" in said:
        return "mypyc and setuptools are needed; install linnet[fast]"
    lines = [line.strip() for line in said.splitlines() if "error" in line.lower()]
    return f"{lines[0] if lines else 'no reason given'}; a C compiler and Python's headers are needed"


def _sweep(newest: Path) -> None:
    """Throw old copies away, those made first."""
    others = [path for path in newest.parent.iterdir() if path != newest and (path / _DONE).exists()]
    for path in sorted(others, key=lambda path: path.stat().st_mtime)[: -(_KEPT - 1)]:
        shutil.rmtree(path, ignore_errors=True)


def main() -> int:
    """Compile, and say where; 1 if that cannot be done here."""
    began = monotonic()
    try:
        folder = build()
    except CompileError as error:
        sys.stderr.write(f"gateway: not compiled ({error}); workers run the source\n")
        return 1
    sys.stdout.write(f"gateway: compiled in {monotonic() - began:.0f} s, {folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
