"""One table in several widths: the richest that fits is drawn."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table

_ENDLESS = 10_000  # columns
GAP = 2  # between two columns


class Fitting:
    """Draws the first of its tables that fits unshortened, the last where none does."""

    def __init__(self, *tables: Table) -> None:
        self.tables = tables

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        fitting = (table for table in self.tables if _least(console, options, table) <= options.max_width)
        yield next(fitting, self.tables[-1])


def plain(*names: str, last: int = 0) -> Table:
    """Return an empty table with columns of these names; with `last` the last one folds down to that width."""
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for name in names[:-1] if last else names:
        table.add_column(name, no_wrap=True)
    if last:
        table.add_column(names[-1], overflow="fold", min_width=last)
    return table


def _least(console: Console, options: ConsoleOptions, table: Table) -> int:
    endless = options.update(width=_ENDLESS)
    return sum(_column(console, endless, column) for column in table.columns) + GAP * (len(table.columns) - 1)


def _column(console: Console, endless: ConsoleOptions, column: Column) -> int:
    if not column.no_wrap:
        return column.min_width or 1
    return max(Measurement.get(console, endless, cell).maximum for cell in (column.header, *column.cells))
