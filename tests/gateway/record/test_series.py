from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.record.series import LASTING, TABLE, Kind, Snapshot, Sums, add, decode, encode, lasting, merge

WORD = st.sampled_from(["a", "b", 'quoted"', "line\nbreak", "ü"])


# One of each kind and width, so that two workers often count the same.
FEW = st.sampled_from([
    "linnet_trips_total", "linnet_tokens_total", "linnet_shadow_agreement", "linnet_store_up", "linnet_split_ratio"
])  # fmt: skip


@st.composite
def sums(draw: st.DrawFn) -> Sums:
    """Anything a worker may have counted."""
    made: Sums = {}
    for name in draw(st.lists(FEW, unique=True)):
        metric = TABLE[name]
        numbers = st.lists(st.integers(0, 100), min_size=len(metric.fresh()), max_size=len(metric.fresh()))
        made[name] = draw(st.dictionaries(st.tuples(*[WORD] * len(metric.labels)), numbers, max_size=3))
    return made


def written(value: Sums) -> list[str]:
    """As a worker writes it, in two pieces."""
    pieces = [(name, list(rows.items())) for name, rows in value.items()]
    return [encode(name, part) for name, rows in pieces for part in (rows[:1], rows[1:])]


@settings(deadline=None)
@given(sums())
def test_what_is_written_is_read_back(value: Sums):
    """Names with quotes and line breaks too; one line stays one line."""
    lines = written(value)
    assert decode(lines) == value
    assert not any("\n" in line for line in lines)


@settings(deadline=None)
@given(sums(), sums(), sums())
def test_sums_add_up_in_any_order(a: Sums, b: Sums, c: Sums):
    """Who died first does not matter."""
    assert add(add(a, b), c) == add(a, add(c, b))
    assert add(a, {}) == a


@settings(deadline=None)
@given(sums(), sums())
def test_adding_changes_neither_side(a: Sums, b: Sums):
    """The dead one's sums are added again at the next page."""
    before = written(a), written(b)
    add(a, b)
    assert (written(a), written(b)) == before


@settings(deadline=None)
@given(sums(), sums())
def test_a_death_changes_no_counter(a: Sums, b: Sums):
    """Before and after the worker's file has been folded in, the page says the same, its gauges apart."""
    alive = merge([Snapshot(1, a), Snapshot(2, b)], {})
    dead = merge([Snapshot(2, b)], lasting(a))
    assert lasting(alive) == lasting(dead)
    gauges = {name for name in dead if TABLE[name].kind not in LASTING}
    assert {name: dead[name] for name in gauges} == {name: b[name] for name in gauges}


@pytest.mark.parametrize(("name", "expected"), [
    ("linnet_requests_in_flight", 5), ("linnet_store_up", 2), ("linnet_split_ratio", 3),
])  # fmt: skip
def test_gauges_of_several_workers(name: str, expected: float):
    """The sum of what is under way, the worst of what is well, the newest of what was told."""
    labels = ("m",) * len(TABLE[name].labels)
    newest, oldest = Snapshot(9, {name: {labels: [3]}}), Snapshot(1, {name: {labels: [2]}})
    assert merge([newest, oldest], {})[name][labels] == [expected]


@pytest.mark.parametrize("line", ['["linnet_unknown",[]]', '["linnet_store_up",[["x",1]]]', "[", "7"])
def test_a_damaged_line_is_refused(line: str):
    """Rather no sums than wrong ones."""
    with pytest.raises((ValueError, TypeError)):
        decode([line])


def test_every_metric_is_well_formed():
    """Counters end in _total, histograms have rising bounds, and only they have any."""
    for name, metric in TABLE.items():
        assert name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert bool(metric.bounds) == (metric.kind is Kind.HISTOGRAM)
        assert list(metric.bounds) == sorted(set(metric.bounds))
        assert metric.text.endswith(".")
