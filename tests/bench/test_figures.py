from __future__ import annotations

from bench.figures import Sample, Spread, ratio, table


def test_a_spread_is_the_median_and_the_extremes():
    """One bad round moves the extremes and not the middle."""
    assert Spread.of([3.0, 1.0, 50.0]) == Spread(3.0, 1.0, 50.0)


def test_a_ratio_is_taken_within_its_round():
    """A machine that slows down between rounds slows both: the ratio does not see it."""
    assert ratio([1.0, 10.0, 2.0], [2.0, 20.0, 4.0]) == Spread(0.5, 0.5, 0.5)


def test_a_figure_below_zero_gives_no_ratio():
    """Added time below zero is noise; dividing by it would look like a result."""
    assert ratio([1.0, 1.0], [2.0, -0.1]) is None


def test_the_table_names_each_figure_with_its_spread():
    """The reader sees how far the rounds were apart."""
    lines = table([Sample(1, 50, 0.5), Sample(3, 50, 0.5)], [Sample(4, 100, 0), Sample(4, 100, 1)]).splitlines()
    assert lines[2] == "| CPU ms a whole answer | 2 (1 to 3) | 4 (4 to 4) | 0.5 (0.25 to 0.75) |"
    assert lines[4].endswith("| noise |")
