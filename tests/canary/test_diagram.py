"""The diagram of the release machine is the table's."""

from __future__ import annotations

from pathlib import Path

import pytest

from canary import diagram
from canary.core.release import TABLE
from canary.core.state import ACTIVE, Phase

DOCS = Path(__file__).parents[2] / "docs"


def test_the_docs_show_what_the_table_says() -> None:
    """To renew it: put what `python -m canary.diagram` prints into docs/release.md."""
    assert f"```mermaid\n{diagram.mermaid()}\n```\n" in (DOCS / "release.md").read_text()


def test_a_change_of_the_table_changes_the_diagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that leads elsewhere is drawn elsewhere."""
    before = diagram.mermaid()
    row = TABLE[diagram.events.Abort]
    monkeypatch.setitem(TABLE, diagram.events.Abort, {**row, Phase.SHADOW: row[Phase.PROMOTED]})
    assert diagram.mermaid() != before


def test_an_event_that_is_not_told_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new one cannot stay out of the picture."""
    monkeypatch.setitem(TABLE, int, TABLE[diagram.events.Abort])
    with pytest.raises(ValueError, match="int"):
        diagram.arrows()


def test_every_active_phase_has_a_way_to_every_end() -> None:
    """By abort, by rollback, and by another release."""
    found = diagram.arrows()
    for phase in ACTIVE:
        assert "abort" in found[phase.value, "aborted"]
        assert "rollback" in found[phase.value, "rolled_back"]
        assert (phase.value, "superseded") in found
