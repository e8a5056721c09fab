from __future__ import annotations

import ast
import timeit
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canary.core.arms import Arm
from canary.core.outcome import Outcome, Result
from gateway.record.metrics import Metrics
from gateway.record.series import OTHER, TABLE, WORDS
from tests.gateway.record.sample import counting, routed, sample

GOOD = Outcome(
    Arm.CANDIDATE, Result.OK, e2e=0.3, ttft=0.02, tpot=0.004, prompt_tokens=10, completion_tokens=5, cost_usd=0.25
)
OF = {"model": "m", "arm": "candidate"}


def test_a_good_answer_is_counted_in_every_way():
    """Result, times, tokens and cost, under the arm that gave it."""
    metrics = counting("m")
    metrics.observe("m", GOOD)
    assert sample(metrics, "linnet_requests_total", **OF, outcome="ok") == 1
    assert sample(metrics, "linnet_request_seconds_sum", **OF) == 0.3
    assert sample(metrics, "linnet_ttft_seconds_bucket", **OF, le="0.01") == 0
    assert sample(metrics, "linnet_ttft_seconds_bucket", **OF, le="0.025") == 1
    assert sample(metrics, "linnet_tpot_seconds_count", **OF) == 1
    assert sample(metrics, "linnet_tokens_total", **OF, kind="prompt") == 10
    assert sample(metrics, "linnet_tokens_total", **OF, kind="completion") == 5
    assert sample(metrics, "linnet_cost_usd_total", **OF) == 0.25


@pytest.mark.parametrize("result", [result for result in Result if result is not Result.OK])
def test_a_bad_answer_has_no_whole_time_and_no_cost(result: Result):
    """A fast failure must not look like a fast answer."""
    metrics = counting("m")
    metrics.observe("m", Outcome(Arm.CANDIDATE, result, e2e=0.1, cost_usd=1.0))
    assert sample(metrics, "linnet_requests_total", **OF, outcome=result.value) == 1
    assert sample(metrics, "linnet_requests_total", **OF, outcome="ok") == 0
    assert sample(metrics, "linnet_request_seconds_count", **OF) == 0
    assert sample(metrics, "linnet_cost_usd_total", **OF) == 0


def test_a_value_on_a_bound_belongs_below_it():
    """Prometheus' buckets are "at most"."""
    metrics = counting("m")
    metrics.own_time("m", 0.0001)
    metrics.own_time("m", 5.0)
    assert sample(metrics, "linnet_overhead_seconds_bucket", model="m", le="0.0001") == 1
    assert sample(metrics, "linnet_overhead_seconds_bucket", model="m", le="1.0") == 1
    assert sample(metrics, "linnet_overhead_seconds_bucket", model="m", le="+Inf") == 2


def test_what_is_routed_by_is_shown_and_what_is_gone_is_not():
    """A model or an engine that was removed has no gauge any more."""
    metrics = counting("m", "gone")
    metrics.engine_up("engine-b", up=True)
    assert sample(metrics, "linnet_split_ratio", model="m", arm="baseline", kind="desired") == 0.75
    assert sample(metrics, "linnet_release_generation", model="gone") == 7
    metrics.routes(routed("m"))
    assert sample(metrics, "linnet_release_generation", model="gone") is None
    assert sample(metrics, "linnet_engine_up", engine="engine-b") == 1
    metrics.routes({})
    assert sample(metrics, "linnet_engine_up", engine="engine-b") is None
    before = routed("m")
    metrics.routes(before)
    metrics.routes({})
    metrics.routes(before)
    assert sample(metrics, "linnet_release_generation", model="m") == 7


def test_a_model_is_counted_under_its_name_as_soon_as_it_is_routed():
    """What came before is kept as "other", not lost."""
    metrics = Metrics()
    metrics.observe("m", GOOD)
    metrics.own_time("m", 0.1)
    metrics.routes(routed("m"))
    metrics.observe("m", GOOD)
    metrics.own_time("m", 0.1)
    assert sample(metrics, "linnet_requests_total", model=OTHER, arm="candidate", outcome="ok") == 1
    assert sample(metrics, "linnet_requests_total", **OF, outcome="ok") == 1
    assert sample(metrics, "linnet_overhead_seconds_count", model="m") == 1


ROOT = Path(__file__).resolve().parents[3] / "gateway"
HOOKS = [name for name in vars(Metrics) if not name.startswith("_") and name not in {"snapshot", "routes", "series"}]
KNOWN = {"m", "engine-b", "engine-c", OTHER, *(word for words in WORDS.values() for word in words)}


def call(metrics: Metrics, hook: str, texts: list[str], number: int) -> None:
    """Call a hook with any text wherever it takes text."""
    given: dict[str, Any] = {"int": number, "float": number / 7, "bool": number > 2, "Outcome": GOOD}
    method, words = getattr(metrics, hook), iter(texts)
    positional, named = [], {}
    for name, parameter in signature(method).parameters.items():
        value = given[parameter.annotation] if parameter.annotation in given else next(words)
        if parameter.kind is parameter.KEYWORD_ONLY:
            named[name] = value
        else:
            positional.append(value)
    method(*positional, **named)


@pytest.mark.source
@settings(deadline=None)
@given(
    calls=st.lists(st.tuples(st.sampled_from(HOOKS), st.lists(st.text(), min_size=2, max_size=2), st.integers(0, 9)))
)
def test_no_text_that_a_client_chose_becomes_a_label(calls: list[tuple[str, list[str], int]]):
    """Whatever reaches a hook: names of the configuration and words of the table, and nothing else."""
    metrics = counting("m")
    for hook, texts, number in calls:
        call(metrics, hook, texts, number)
    sums = metrics.snapshot().sums
    assert {value for rows in sums.values() for labels in rows for value in labels} <= KNOWN
    assert set(sums) == set(TABLE)


def test_every_word_the_gateway_counts_by_is_in_the_table():
    """One that is not would be counted as "other"."""
    trees = [ast.walk(ast.parse(path.read_text())) for path in ROOT.rglob("*.py")]
    calls = [node for tree in trees for node in tree if isinstance(node, ast.Call)]
    hooks = [call for call in calls if ast.unparse(call.func).rpartition("metrics.")[2] in HOOKS]
    words = {arg.value for call in hooks for arg in call.args if isinstance(arg, ast.Constant)}
    assert "queue_full" in words
    assert {word for word in words if isinstance(word, str)} <= KNOWN


@settings(deadline=None)
@given(models=st.lists(st.text(), unique=True))
def test_clients_cannot_fill_the_memory(models: list[str]):
    """However many names they try, there is one row for all of them."""
    metrics = counting("m")
    metrics.observe(OTHER, GOOD)
    metrics.own_time(OTHER, 0.1)
    before = sum(len(rows) for rows in metrics.snapshot().sums.values())
    for model in models:
        metrics.observe(model if model != "m" else "n", GOOD)
        metrics.own_time(model if model != "m" else "n", 0.1)
    assert sum(len(rows) for rows in metrics.snapshot().sums.values()) == before
    assert len(metrics._arms) == 1
    assert set(metrics._overheads) <= {OTHER}


def test_an_outcome_costs_few_microseconds():
    """The hot path's part: 0.6 us where this was written; the limit leaves room for a loaded machine."""
    metrics = counting("m")
    assert min(timeit.repeat(lambda: metrics.observe("m", GOOD), number=2000, repeat=5)) / 2000 < 3e-6
