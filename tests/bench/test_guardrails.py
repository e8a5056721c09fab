from __future__ import annotations

import pytest

from bench.guardrails.__main__ import by, middle, tables, upper
from canary.simulate import Told

FAILED, HELD = Told(40, 400, "error_rate"), Told(1000, 10_000)


def test_the_bound_is_clopper_and_pearsons():
    """The rule of three for none; everything where all were."""
    assert upper(0, 300) == pytest.approx(0.00994, abs=1e-4)
    assert upper(3, 3) == 1.0


def test_a_median_is_told_where_half_came_to_one():
    """Else that there is none."""
    assert middle([FAILED, FAILED, HELD]) == "400"
    assert middle([FAILED, HELD, HELD]) == "not in 10,000"


def test_both_tables_are_drawn():
    """A line a case, with who rolled back."""
    lines = tables({"equal": [HELD, FAILED]}, {"worse": [FAILED]}).splitlines()
    assert lines[2] == "| equal | 1 | 2 | 97.47% | error_rate 1 |"
    assert lines[-1] == "| worse | 400 | 1 | error_rate 1 |"
    assert by([HELD]) == "none"
