from __future__ import annotations

import pytest
from rich.console import Console

from canary.console import fitting


def drawn(width: int) -> str:
    """What a terminal of that width shows of three faces of one table."""
    rich, poor, last = fitting.plain("name", "figure"), fitting.plain("name"), fitting.plain("n", "why", last=8)
    rich.add_row("ttft_p95", "[green]+0.00 pp[/]")
    poor.add_row("ttft_p95")
    last.add_row("t", "a b c d e f")
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(fitting.Fitting(rich, poor, last))
    return capture.get()


@pytest.mark.parametrize(("width", "shows"), [(18, "+0.00 pp"), (17, "ttft_p95"), (7, "t")])
def test_the_richest_table_that_fits_unshortened_is_drawn(width, shows):
    """Markup takes no room; one column too few, and the next face is drawn."""
    said = drawn(width)
    assert shows in said
    assert ("figure" in said) is (width == 18)


@pytest.mark.parametrize("width", [18, 10, 8])
def test_nothing_that_fits_is_shortened(width):
    """An ellipsis in a figure would hide it."""
    assert "…" not in drawn(width)
