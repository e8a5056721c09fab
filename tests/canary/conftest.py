from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def snapshot_dir() -> Path:
    """Where the texts lie that must not change unseen."""
    return Path(__file__).parent / "snapshots"
