"""The plot of `linnet simulate`."""

from __future__ import annotations

from canary.trials import plot, stories
from canary.trials.simulate import Told
from canary.trials.stories import Scenario


def told(name, rolled_back, runs):
    """So many of so many candidates rolled back."""
    back = [Told(10 + n, 100 + n, "error_rate") for n in range(rolled_back)]
    return stories.summary(Scenario(2, name), back + [Told(600, 6000)] * (runs - rolled_back))


def test_the_plot_stands_alone():
    """A line and a name a scenario; names are escaped, the axis has its name."""
    drawn = plot.rolled_back([told("equal", 3, 9), told("a<b", 0, 1)])
    assert drawn.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
    assert drawn.count('class="line"') == 2
    assert "equal: 3 of 9" in drawn
    assert "a&lt;b: 0 of 1" in drawn
    assert "over the candidate's requests</text>" in drawn


def test_no_two_lines_look_alike():
    """However many guardrails a spec has."""
    assert len({plot._stroke(number) for number in range(18)}) == 18
