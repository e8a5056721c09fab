"""The ledger: what a release has cost, each hour and each load test once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canary.core import events
from canary.core.plan import Money
from canary.core.release import Release, advance
from canary.core.tally import Key, Tally
from canary.spending import kept, runs_of, shadow_tokens, spend, tokens_usd, warning
from canary.storage.store import Store
from tests.canary.core.releases import PLAN, cause, opened
from tests.canary.world import BY

MONEY = Money(10, 20, spent_before=1, baseline_per_hour=2, candidate_per_hour=3, control_per_hour=4)


BY_TOKEN = Money(10, 20, baseline_rates=(1.0, 2.0), candidate_rates=(3.0, 4.0))


def release(money: Money = MONEY) -> Release:
    """An attempt that began at 1000 s."""
    return replace(opened(replace(PLAN, money=money)), started=1000.0)


def used() -> dict[Key, Tally]:
    """A million prompt tokens of each kind, and a tenth of completions; the control's lie within the baseline's."""
    own = {"prompt_tokens": 10**6, "completion_tokens": 10**5}
    shadow = {"shadow_prompt_tokens": 10**6, "shadow_completion_tokens": 10**5}
    return {
        (0, "baseline", "domain"): Tally({**own, **shadow}),
        (0, "candidate", "domain"): Tally(shadow),
        (1, "candidate", ""): Tally(own),
        (1, "control", ""): Tally(own),
    }


def run(created_s: float, seconds: float = 1000.0, at_capacity: float = 800.0) -> dict:
    """A load report: both arms were kept busy for so long."""
    arm = {"seconds": seconds, "capacity": {"seconds": at_capacity, "requests_per_s": 9}}
    return {"created_ms": created_s * 1000, "arms": {"baseline": arm, "candidate": arm}}


def test_a_spend_is_the_sum_of_its_parts() -> None:
    """Before, the hours of candidate and control, and half an hour of both arms under load."""
    spent = spend(release(), [run(500)], {}, 1000 + 3600)
    assert spent.to_dict() == {"before": 1, "engines": 7, "tokens": 0, "load_tests": 2.5}
    assert spent.total == 10.5


def test_a_load_test_within_the_attempt_costs_the_baselines_hours_alone() -> None:
    """The candidate's are counted already."""
    assert spend(release(), [run(1500)], {}, 1000).load_tests == 1


@pytest.mark.parametrize("by", [3600.0, -3600.0])
def test_a_load_test_stays_within_its_attempt_when_the_clock_jumps(by: float) -> None:
    """A report keeps the time it was written with; neither it nor the jump costs an hour more."""
    jumped = advance(release(), events.ClockJumped(cause(1600 + by), by, 1600 + by))[0]
    assert spend(jumped, [run(1500)], {}, 1600 + by) == spend(release(), [run(1500)], {}, 1600)


def test_engines_paid_by_the_hour_are_not_paid_by_the_token_too() -> None:
    """What the shadow and the canary ask lies within the hours; the tokens are counted all the same."""
    spent = spend(release(), [], used(), 1000 + 3600)
    assert (spent.engines, spent.tokens) == (7, 0)
    assert shadow_tokens(used())["candidate"] == {"prompt": 10**6, "completion": 10**5}


def test_an_arm_paid_by_the_token_costs_what_the_release_asked_of_it() -> None:
    """The candidate's service, and both arms' shadow; the baseline would have served anyhow."""
    spent = spend(release(BY_TOKEN), [], used(), 1000 + 3600)
    assert spent.to_dict() == {"before": 0, "engines": 0, "tokens": pytest.approx(2 * 3.4 + 1.2), "load_tests": 0}
    assert spent.total == pytest.approx(8.0)


def test_a_load_tests_tokens_cost_also_within_the_attempt() -> None:
    """They are no evidence: no sum has them. The ledger keeps them when another report takes the place."""
    arm = {"prompt_tokens": 600_000, "completion_tokens": 0, "capacity": {"prompt_tokens": 400_000}}
    report = {"created_ms": 1_500_000, "arms": {"baseline": arm, "candidate": arm}}
    assert spend(release(BY_TOKEN), [report], {}, 1000).load_tests == pytest.approx(4.0)
    assert spend(release(BY_TOKEN), runs_of(None, dict([kept(report)])), {}, 1000).load_tests == pytest.approx(4.0)


def test_every_load_test_counts_and_each_once() -> None:
    """Those that another report took the place of too; the last one may be of a version that kept no ledger."""
    ledger = dict(map(kept, (run(400), run(500), run(500))))
    assert len(ledger) == 2
    assert spend(release(), runs_of(run(500), ledger), {}, 1000).load_tests == 5
    assert spend(release(), runs_of(run(300), ledger), {}, 1000).load_tests == 7.5
    assert runs_of(None, {}) == ()


def test_an_end_ends_the_hours_and_a_retry_takes_them_over() -> None:
    """What was spent is spent."""
    ended = advance(release(), events.Abort(cause(1000 + 7200)))[0]
    assert spend(ended, (), {}, 1e9).engines == 14
    retried = advance(ended, events.Retry(cause(9000)))[0]
    assert spend(retried, (), {}, 9000).to_dict() == {"before": 15, "engines": 0, "tokens": 0, "load_tests": 0}


def test_a_retry_takes_the_tokens_over_and_a_stored_release_keeps_its_rates() -> None:
    """An older state knows of no rates: its tokens are free."""
    ended = advance(release(BY_TOKEN), events.Abort(cause(1000)))[0]
    retried = advance(ended, events.Retry(cause(9000), tokens_usd(ended, used())))[0]
    assert spend(retried, (), {}, 9000).before == pytest.approx(8.0)
    assert Release.from_json(retried.to_json()) == retried
    older = {"budget": 10, "stop_loss": 20, "spent_before": 1}
    assert Money.from_json(older).candidate_rates == (0.0, 0.0)


@pytest.mark.parametrize(("total", "word"), [(10.0, ""), (10.5, "spent 10.50 USD of a budget of 10.00")])
def test_a_budget_that_is_spent_is_told(total: float, word: str) -> None:
    """It holds nothing: the stop loss ends the release."""
    assert warning(release(), total).startswith(word)
    assert bool(warning(release(), total)) == bool(word)


async def test_the_store_keeps_every_load_test_of_a_digest(store: Store) -> None:
    """The report is the last one's; an evaluation costs no hours."""
    for created in (400, 500, 500):
        await store.put_report("m", "load", "d", run(created), BY)
    await store.put_report("m", "eval", "d", {"created_ms": 1}, BY)
    assert len(await store.load_tests("m", "d")) == 2
    assert await store.load_tests("m", "other") == {}
