"""loadtest/schedule.py."""

import json
from itertools import islice, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import WorkloadError
from loadtest.schedule import Line, Pattern, arrivals, draw, load_workload, plan

patterns = st.sampled_from(Pattern)
rates = st.floats(0.5, 200)
spans = st.floats(0, 5)
seeds = st.integers(0, 2**32)


@given(patterns, rates, spans, seeds)
def test_arrivals_ascend_and_stay_below_the_end(pattern, rate, seconds, seed):
    """An absolute schedule: in order, from 0, never after the end."""
    dues = list(arrivals(pattern, rate, seconds, Random(seed)))
    assert all(0 <= due < seconds for due in dues)
    assert all(a <= b for a, b in pairwise(dues))


@given(patterns, rates, spans, seeds)
def test_the_same_seed_gives_the_same_schedule(pattern, rate, seconds, seed):
    """Both arms are asked at the same moments."""
    assert list(arrivals(pattern, rate, seconds, Random(seed))) == list(arrivals(pattern, rate, seconds, Random(seed)))


@given(patterns, st.integers(1, 50), st.integers(1, 5), seeds)
def test_a_finite_schedule_has_the_arrivals_asked_for(pattern, rate, seconds, seed):
    """Chance places them, and does not count them."""
    assert len(list(arrivals(pattern, float(rate), float(seconds), Random(seed)))) == rate * seconds


@given(patterns, st.integers(1, 50), st.integers(0, 3), st.integers(1, 3), seeds)
def test_the_warm_up_comes_first_and_takes_nothing_away(pattern, rate, warmup, duration, seed):
    """In order, and as many in the measurement as without a warm-up."""
    dues = list(plan(pattern, float(rate), float(warmup), float(duration), Random(seed)))
    assert dues == sorted(dues)
    assert sum(due >= warmup for due in dues) == rate * duration
    assert sum(due < warmup for due in dues) == rate * warmup


@given(patterns, rates, seeds)
def test_endless_traffic_ascends(pattern, rate, seed):
    """Until somebody stops it."""
    dues = list(islice(plan(pattern, rate, 0.0, None, Random(seed)), 200))
    assert all(a < b for a, b in pairwise(dues))


@pytest.mark.parametrize("pattern", Pattern)
def test_the_rate_is_kept(pattern):
    """10,000 arrivals take their time, within five standard deviations (1 % each)."""
    *_, last = islice(arrivals(pattern, 50.0, float("inf"), Random(7)), 10_000)
    assert last == pytest.approx(200.0, rel=0.05)


def test_poisson_gaps_vary_as_they_should():
    """Independent users: the gaps' standard deviation is their mean."""
    dues = list(islice(arrivals(Pattern.POISSON, 10.0, float("inf"), Random(3)), 5000))
    gaps = [b - a for a, b in pairwise(dues)]
    mean = sum(gaps) / len(gaps)
    spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert spread / mean == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(rate):
    """Before anything is sent."""
    with pytest.raises(ValueError, match="rate"):
        arrivals(Pattern.CONSTANT, rate, 1.0, Random(0))


@given(st.integers(1, 30), st.integers(1, 4), seeds)
def test_every_prompt_comes_once_before_any_comes_again(size, rounds, seed):
    """Repeats come late, so a prefix cache flatters little."""
    lines = [Line(str(number)) for number in range(size)]
    drawn = list(islice(draw(lines, Random(seed)), size * rounds))
    assert all(set(drawn[start : start + size]) == set(lines) for start in range(0, size * rounds, size))


def test_a_workload_is_read_with_its_slices(tmp_path):
    """A slice may be missing; blank lines and odd line separators within a prompt do no harm."""
    path = tmp_path / "w.jsonl"
    path.write_text(json.dumps({"prompt": "a\u2028b", "slice": "domain"}, ensure_ascii=False) + '\n\n{"prompt": "c"}\n')
    assert load_workload(path) == (Line("a\u2028b", "domain"), Line("c"))


@pytest.mark.parametrize(
    "text",
    ["", "\n", "{", "[]", "1", '{"slice": "x"}', '{"prompt": ""}', '{"prompt": 1}', '{"prompt": "a", "slice": 1}'],
)
def test_a_bad_workload_is_one_line_that_says_where(tmp_path, text):
    """What, where, the mend."""
    path = tmp_path / "w.jsonl"
    path.write_text(text)
    with pytest.raises(WorkloadError, match=r"w\.jsonl") as caught:
        load_workload(path)
    assert "\n" not in str(caught.value)


def test_a_missing_workload_says_so(tmp_path):
    """A path that leads nowhere."""
    with pytest.raises(WorkloadError, match="cannot be read"):
        load_workload(tmp_path / "none.jsonl")
