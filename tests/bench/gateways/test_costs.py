from __future__ import annotations

from math import nan

from bench.gateways.costs import SHAPES, USUAL, table
from bench.gateways.linnet import arguments, features

GIVEN = ["--port", "1", "--folder", "f", "--baseline", "81", "--candidate", "82"]


def test_every_shape_is_one_that_the_launcher_knows():
    """A word that it refuses would fail after minutes."""
    assert [features(arguments([*GIVEN, *shape.words])) for shape in SHAPES.values()]


def test_a_difference_is_taken_within_its_round():
    """A round in which one of the two failed has none."""
    samples = {USUAL: [100.0, 200.0, 90.0], "less": [90.0, 180.0, nan]}
    assert table(samples, [USUAL, "less"]).splitlines()[2:] == [
        f"| {USUAL} | 100.0 |  |",
        "| less | 135.0 | -15.0 (-20.0 to -10.0) |",
    ]


def test_a_shape_that_never_worked_says_so():
    """A dash would look like nothing to tell."""
    assert table({USUAL: [1.0], "x": [nan]}, ["x"]).splitlines()[-1] == "| x | failed | |"
