from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from gateway import compiled
from gateway.compiled import HOT, CompileError, build, environment, fingerprint, found

pytestmark = pytest.mark.source
ROOT = Path(compiled.__file__).parents[1]


def test_every_hot_module_is_there():
    """One that moved is not left out in silence."""
    assert [name for name in HOT if not (ROOT / name).is_file()] == []


def test_another_source_has_another_fingerprint(tmp_path):
    """A stale copy is never run."""
    source = tmp_path / "a.py"
    source.write_text("x = 1\n")
    before = fingerprint([source])
    assert fingerprint([source]) == before
    source.write_text("x = 2\n")
    assert fingerprint([source]) != before


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A source of two modules, one of them hot, and a cache of its own."""
    root = tmp_path / "source"
    (root / "gateway").mkdir(parents=True)
    (root / "gateway" / "__init__.py").write_text("")
    (root / "gateway" / "hot.py").write_text("def twice(number: int) -> int:\n    return 2 * number\n")
    (root / "gateway" / "cold.py").write_text("from gateway import hot\nprint(hot.twice(21), hot.__file__)\n")
    monkeypatch.setattr(compiled, "_ROOT", root)
    monkeypatch.setattr(compiled, "_PACKAGES", ("gateway",))
    monkeypatch.setattr(compiled, "HOT", ("gateway/hot.py",))
    monkeypatch.setenv("LINNET_CACHE", str(tmp_path / "cache"))
    return root


def test_a_copy_is_made_once_found_and_run(little: Path):
    """A process with its environment runs it, also in the folder of the source."""
    if shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no C compiler, or no headers of Python's")
    assert found() is None
    assert environment() == {}
    place = build()
    made = (place / "done").stat().st_mtime_ns
    assert (build(), found(), (place / "done").stat().st_mtime_ns) == (place, place, made)
    argv = [sys.executable, "-m", "gateway.cold"]
    said = subprocess.run(argv, cwd=little, env=environment(), capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"42 {place}/gateway/hot.")
    assert said.rstrip().endswith(".so")
    (little / "gateway" / "hot.py").write_text("def twice(number: int) -> int:\n    return number + number\n")
    assert found() is None


def test_where_it_cannot_be_compiled_nothing_is_left(little: Path, monkeypatch: pytest.MonkeyPatch):
    """One line says why; the source runs."""
    (little / "gateway" / "hot.py").write_text("def twice(number: int) -> int:\n    return 'two'\n")
    with pytest.raises(CompileError, match=r"hot\.py:2: error: .* a C compiler"):
        build()
    assert found() is None
    assert list((compiled.cache_dir() / "gateway").iterdir()) == []


def test_old_copies_are_thrown_away(little: Path, monkeypatch: pytest.MonkeyPatch):
    """The newest few are kept: a gateway may still run from one."""
    monkeypatch.setattr(compiled, "_compile", lambda _: None)
    for number in range(7):
        (little / "gateway" / "cold.py").write_text(f"x = {number}\n")
        newest = build()
    kept = list(newest.parent.iterdir())
    assert len(kept) == 4
    assert newest in kept
