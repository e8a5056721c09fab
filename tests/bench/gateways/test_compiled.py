from __future__ import annotations

from pathlib import Path

import bench
from bench.gateways.compiled import HOT, fingerprint

ROOT = Path(bench.__file__).parents[1]


def test_every_hot_module_is_there():
    """One that moved is not left out in silence."""
    assert [name for name in HOT if not (ROOT / name).is_file()] == []


def test_another_source_has_another_fingerprint(tmp_path):
    """A stale copy is never measured."""
    source = tmp_path / "a.py"
    source.write_text("x = 1\n")
    before = fingerprint([source])
    assert fingerprint([source]) == before
    source.write_text("x = 2\n")
    assert fingerprint([source]) != before
