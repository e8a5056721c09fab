import pytest

from bench.guardrails.pages import counted, equal_table, lately_table, middle, upper, worse_table

MANY = [(400, "error_rate"), (10_000, ""), (500, "ttft_p95")]


def test_the_bound_is_clopper_and_pearsons():
    """The rule of three for none; everything where all were."""
    assert upper(0, 300) == pytest.approx(0.00994, abs=1e-4)
    assert upper(3, 3) == 1.0


def test_a_median_is_told_where_half_came_to_one():
    """Else that there is none."""
    assert middle(counted(MANY).median) == "500"
    assert middle(counted([*MANY, *[(10_000, "")] * 2]).median) == "not in 10,000"


def test_runs_are_counted():
    """How many, which were rolled back and when, and by what."""
    count = counted(MANY)
    assert (count.runs, count.hits, count.requests) == (3, 2, (400, 500))
    assert count.by == {"error_rate": 1, "ttft_p95": 1}


def test_harm_that_begins_late_has_a_table():
    """One share each; what was not told is left out."""
    told = {"TTFT x2 from the last share on | 50%": counted(MANY)}
    assert lately_table(told).splitlines()[2:] == [
        "| TTFT x2 from the last share on | 500 | 3 | error_rate 1, ttft_p95 1 |"
    ]


def test_both_tables_are_drawn():
    """A line a case, a column a share; what was not told is left out."""
    told = {"own noise, 1 min | 50%": counted(MANY), "own noise, 1 min | 5%": counted(MANY[1:2])}
    assert equal_table(told).splitlines()[2:] == [
        "| own noise, 1 min | 2 of 3 | 98.30% | 0 of 1 | 95.00% | error_rate 1, ttft_p95 1 |"
    ]
    assert worse_table({"TTFT x2, 6 h reference | 50%": counted(MANY[:1])}).splitlines()[2:] == [
        "| TTFT x2, 6 h reference |  | 400 | 1 | error_rate 1 |"
    ]
