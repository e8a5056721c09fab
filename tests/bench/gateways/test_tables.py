from __future__ import annotations

import pytest

from bench.gateways.tables import Results, cpu_table, goals, shown, wall_table

NGINX = {"S1c64": [{"round": 1, "cpu_us": 20.0}, {"round": 2, "cpu_us": 40.0}, {"round": 3, "cpu_us": 30.0}]}
OURS = {"S1c64": [{"round": 1, "cpu_us": 30.0}, {"round": 2, "cpu_us": 80.0}, {"round": 3, "failed": "gone"}]}


def test_a_ratio_is_taken_within_its_round():
    """A round that was slow for both says nothing about either, and one that failed has no ratio."""
    assert Results({"nginx": NGINX, "linnet": OURS}).times("linnet", "S1c64", "cpu_us") == pytest.approx(1.75)


def test_what_a_peer_adds_is_less_the_engines_own_time():
    """The reference's own addition is the measure of ours."""
    raw = {
        name: {"S2": [{"round": 1, "way_p50_us": way}]} for name, way in (("direct", 80), ("nginx", 120), ("x", 140))
    }
    results = Results(raw)
    assert results.added("x", "S2", "way_p50_us") == 60
    assert results.added_times("x", "S2", "way_p50_us") == pytest.approx(1.5)
    assert results.added("direct", "S2", "way_p50_us") is None


def test_a_failure_is_told_once_with_its_reason():
    """A table with a hole says why."""
    assert Results({"linnet": OURS}).failures() == ["linnet, S1c64: gone"]


@pytest.mark.parametrize("table", [cpu_table, wall_table])
def test_every_peer_has_a_row_and_every_row_every_column(table):
    """Whoever was not measured in a scenario has a dash there."""
    head, rule, *rows = table(Results({"nginx": NGINX, "linnet": OURS})).splitlines()
    assert [row.split(" | ")[0] for row in rows] == ["| nginx", "| linnet"]
    assert {line.count("|") for line in (head, rule, *rows)} == {head.count("|")}
    assert " - |" in rows[0]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0361, "0.0361"), (53.41, "53.4"), (4199.3, "4,199"), (-1200.0, "-1,200")]
)
def test_three_digits_count(value, text):
    """More would promise what noise does not keep."""
    assert shown(value) == text


def test_goals_are_told_beside_what_was_measured():
    """Requests a core is the inverse of what one costs."""
    raw = {
        name: {"S1c64": [{"round": 1, "cpu_us": us}]}
        for name, us in (("nginx", 20), ("linnet", 40), ("vllm-router", 60))
    }
    rows = goals(Results(raw), "linnet").splitlines()
    assert "| CPU, whole answers (S1c64), x nginx | 2 | <= 1.8 | <= 4 |" in rows
    assert "| requests a core, x vllm-router | 1.5 | >= 1.7 | >= 1 |" in rows
    assert "| requests a core, x sglang-router | - | >= 1.7 | >= 1 |" in rows
