from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from canary.core.arms import Split
from canary.core.tally import Tally, parse
from canary.storage.store import Store
from tests.gateway.conftest import acknowledged
from tests.gateway.record.sample import sample
from tests.gateway.rig import MODEL, House, Sim, publish, until


@pytest.fixture
def split(split: Split) -> Split:
    """A release in its shadow phase."""
    return replace(split, percent=0, shadow_percent=100, shadow_concurrency=2, phase="shadow")


def unscored(house: House) -> float | None:
    """How many mirrors made no pair."""
    return sample(house.app.desk.metrics, "linnet_shadow_pairs_total", model=MODEL, result="unscored")


async def sums(store: Store, arm: str = "candidate") -> Tally:
    """The sums of one arm."""
    return parse(await store.tallies(MODEL, "r1", 1)).get((3, arm, ""), Tally())


async def pairs(store: Store, least: int) -> dict[int, int]:
    """Wait for pairs; their differences in thousandths."""

    async def there() -> dict[int, int]:
        found = (await sums(store)).histogram("pair")
        return found if sum(found.values()) >= least else {}

    return await until(there, "pairs")


@pytest.mark.parametrize("stream", [False, True])
async def test_pairs_tell_how_much_better_the_candidate_predicts(
    house: House, base: Sim, cand: Sim, store: Store, stream: bool
):
    """Both arms are forced to read the same prompt; the difference is the candidate's gain."""
    base.behave(accuracy=0.1)
    cand.behave(accuracy=0.9)
    for number in range(5):
        await house.ask(f"number {number} of a longer question about some words to read", stream=stream)
        found = await pairs(store, number + 1)
    assert sum(d * n for d, n in found.items()) / 5 > 300
    agreed = list((await sums(store)).histogram("agree"))
    floor = list((await sums(store, "baseline")).histogram("floor"))
    assert agreed
    assert floor == [100]


async def test_what_the_shadow_asks_is_metered_for_each_arm_and_is_no_evidence(house: House, store: Store):
    """Answers and scores: of the candidate both, of the baseline what was asked beside the user's own answer."""
    await house.ask("a longer question about some words to read")
    await pairs(store, 1)
    mirrored, floor = await sums(store), await sums(store, "baseline")
    assert mirrored.count("shadow_prompt_tokens") > floor.count("shadow_prompt_tokens") > 0
    assert mirrored.count("shadow_completion_tokens") > floor.count("shadow_completion_tokens") == 1
    assert mirrored.count("prompt_tokens", "completion_tokens", "done", "assigned", "ok") == 0
    assert floor.count("done") == 1


async def test_completions_are_mirrored_too(house: House, store: Store):
    """Their prompt is read as it is."""
    await house.http.post("/v1/completions", json={"model": MODEL, "prompt": "one two three", "max_tokens": 4})
    await pairs(store, 1)


async def test_a_candidate_that_fails_in_the_shadow_is_the_worst_pair(house: House, cand: Sim, store: Store):
    """No answer scores -1, and no client sees it."""
    cand.behave(error_rate=1.0)
    answer = await house.ask()
    assert answer.headers["x-linnet-arm"] == "baseline"
    assert await pairs(store, 1) == {-1000: 1}


async def test_what_does_not_fit_is_dropped_and_counted(house: House, cand: Sim, store: Store):
    """Attempted = mirrored + dropped; no answer waits for the shadow."""
    cand.behave(ttft_ms=700)
    answers = await asyncio.gather(*(house.ask(f"q{number}") for number in range(6)))
    assert max(answer.elapsed.total_seconds() for answer in answers) < 0.6
    await pairs(store, 2)
    metrics = house.app.desk.metrics
    attempted = sample(metrics, "linnet_shadow_attempted_total", model=MODEL)
    dropped = sample(metrics, "linnet_shadow_dropped_total", model=MODEL, reason="full")
    scored = sample(metrics, "linnet_shadow_pairs_total", model=MODEL, result="scored")
    assert (attempted, dropped, scored) == (6, 4, 2)


async def test_nothing_is_mirrored_that_chance_did_not_send_to_the_baseline(house: House, store: Store, split: Split):
    """Forced testers and the candidate's own answers make no pair."""
    await house.ask(headers={"x-linnet-arm": "baseline"})
    await publish(store, replace(split, generation=2, percent=100))
    await until(lambda: acknowledged(store, 2), "acknowledgement")
    await house.ask()
    assert sample(house.app.desk.metrics, "linnet_shadow_attempted_total", model=MODEL) is None


async def test_a_prompt_too_short_to_score_blames_nobody(house: House, store: Store):
    """One token has no next one: the baseline has no score either, so there is no pair."""
    await house.http.post("/v1/completions", json={"model": MODEL, "prompt": "The", "max_tokens": 4})
    await until(lambda: unscored(house) == 1, "the mirror's end")
    assert (await sums(store)).count("pairs_failed") == 0


async def test_a_candidate_withdrawn_amid_a_mirror_is_not_blamed(house: House, cand: Sim, store: Store, split: Split):
    """Its engine is stopped because the attempt has ended, not the other way round."""
    cand.behave(ttft_ms=5000)
    await house.ask()
    await until(lambda: cand.running, "the mirror")
    await publish(store, replace(split, generation=2, candidate=None, shadow_percent=0, phase="rolled_back"))
    await until(lambda: acknowledged(store, 2), "acknowledgement")
    cand.kill()
    await until(lambda: unscored(house) == 1, "the mirror's end", seconds=3)
