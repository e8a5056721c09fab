"""The plot of `linnet simulate`: an SVG file that stands alone, drawn with the report's own strokes. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from canary.console import figures
from canary.report.plot import LEFT, RIGHT, TOP, WIDTH, frame, rule, steps, tick
from canary.report.style import STYLE
from canary.trials.stories import Summary

COLOURS = ("#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#7d7d7d")
FLOOR, LINE = 280, 20  # where the share is zero; the height of a line of the legend
LEGEND = FLOOR + 64


def rolled_back(summed: Sequence[Summary]) -> str:
    """Draw the share of runs rolled back over the candidate's requests (on a logarithmic scale), a line a scenario."""
    most = max([2, *(n for one in summed for n in (*one.rollbacks, *(one.longest or ())[:1]))])
    scale = math.log10(most)

    def x(requests: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(max(1.0, requests)) / scale

    def y(share: float) -> float:
        return FLOOR - (FLOOR - TOP) * share

    grid = "".join(rule(y(part / 4), f"{25 * part} %") for part in range(5))
    ticks = "".join(tick(x(10**power), FLOOR, figures.number(10**power)) for power in range(math.floor(scale) + 1))
    lines, legend = [], []
    for number, one in enumerate(summed):
        corners = [
            (x(1), y(0)),
            *((x(n), y(part)) for n, part in _shares(one)),
            (x(most), y(one.rolled_back / one.runs)),
        ]
        stroke = _stroke(number)
        lines.append(_line(steps(corners), stroke, one.scenario.name))
        legend.append(_legend(LEGEND + LINE * number, stroke, one))
    title = "Share of runs rolled back over the candidate's requests"
    height = LEGEND + 6 + LINE * len(summed)
    paper = f'<rect width="{WIDTH}" height="{height}" fill="var(--card)"/>'
    axis = f'<text class="name" x="{LEFT}" y="{FLOOR + 38}">{title}</text>'
    inner = frame(height, title, paper + grid + ticks + axis + "".join(lines) + "".join(legend))
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">'
    return f"{opening}<style>{STYLE}</style>{inner}</svg>\n"


def _shares(one: Summary) -> Iterator[tuple[int, float]]:
    """Yield the share that is rolled back from so many requests on."""
    for count, requests in enumerate(one.rollbacks, start=1):
        yield requests, count / one.runs


def _stroke(number: int) -> str:
    """Return a line's own style: a colour, and dashes once the colours come again."""
    again, colour = divmod(number, len(COLOURS))
    return f"stroke:{COLOURS[colour]}" + (f";stroke-dasharray:{9 // again} 3" if again else "")


def _line(path: str, stroke: str, name: str) -> str:
    return f'<path class="line" d="{path}" style="{stroke}"><title>{escape(name)}</title></path>'


def _legend(y: float, stroke: str, one: Summary) -> str:
    text = f"{one.scenario.name}: {one.rolled_back} of {one.runs}"
    sample = f'<line x1="{LEFT}" x2="{LEFT + 24}" y1="{y - 4}" y2="{y - 4}" style="{stroke};stroke-width:3"/>'
    return f'{sample}<text class="name" x="{LEFT + 34}" y="{y}">{escape(text)}</text>'
