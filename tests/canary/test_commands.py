"""What a person says, straight on the store: refusals with their mend, races, repeats."""

from __future__ import annotations

import asyncio

import pytest

from canary.commands import Command, execute
from canary.errors import Conflict, LinnetError, Refused, SpecError, Unknown, Unreachable, Usage
from canary.status import material, status
from canary.storage.store import Store
from tests.canary.specs import SPEC, changed
from tests.canary.world import World
from tests.support.valkey import Valkey


@pytest.fixture
async def world(store: Store) -> World:
    """A control plane without a release."""
    return World(store)


async def refused(call, kind: type[LinnetError], code: int) -> str:
    """Return the one line with which a command is refused."""
    with pytest.raises(kind) as caught:
        await call
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_start_publishes_the_baseline_alone(world: World) -> None:
    """The first release of a model takes its baseline from the spec; the candidate is not exposed yet."""
    await world.engines()
    state = await world.start()
    assert (state["phase"], state["generation"], state["attempt"]) == ("draft", 1, 1)
    assert state["desired"] == {"baseline": 1.0, "candidate": 0.0}
    split = await world.store.read_split("m")
    assert (split.baseline.replicas, split.candidate) == (("http://127.0.0.1:8101",), None)
    assert await world.store.models() == ("m",)


async def test_start_without_engines_is_refused_with_the_mend(world: World) -> None:
    """Neither the stack nor the spec says where the arm serves."""
    line = await refused(world.start(), Refused, 1)
    assert line.startswith("engine new is not running and the spec gives no replicas; start it (linnet up)")
    spec = changed("served_model: new,", 'served_model: new, replicas: ["http://127.0.0.1:9"],')
    assert "no digest" in await refused(world.start(spec), Refused, 1)
    whole = changed("served_model: new,", 'served_model: new, digest: d2, replicas: ["http://127.0.0.1:9"],')
    whole = changed("served_model: base,", 'served_model: base, digest: d1, replicas: ["http://127.0.0.1:8"],', whole)
    assert (await world.start(whole))["digest"] == "d2"


async def test_a_control_serves_what_the_baseline_serves(world: World) -> None:
    """Its digest is compared where it is known, and taken for the baseline's where it is not."""
    line = "  candidate: {engine: new, served_model: new, usd_per_hour: 0.2}\n"
    by_engine = changed(line, line + "  control: {engine: spare}\n")
    await world.engines()
    assert "engine spare is not running" in await refused(world.start(by_engine), Refused, 1)
    spare = {"name": "spare", "url": "http://127.0.0.1:8103", "digest": "d-else", "state": "ready"}
    await world.store.register_engine(spare)
    said = await refused(world.start(by_engine), Refused, 1)
    assert said.startswith("the control spare serves d-else, the baseline d-base; a control is the baseline's model")
    shared = changed(line, line + '  control: {replicas: ["http://127.0.0.1:8101"]}\n')
    assert "give it replicas of its own" in await refused(world.start(shared), Refused, 1)
    await world.store.register_engine({**spare, "digest": "d-base"})
    await world.start(by_engine)
    control = (await world.release()).control
    assert (control.engine, control.served_model, control.digest) == ("spare", "base", "d-base")
    await world.start(changed(line, line + '  control: {replicas: ["http://127.0.0.1:9"]}\n'), supersede=True)
    assert (await world.release()).control.digest == "d-base"


async def test_start_of_an_invalid_spec_names_its_lines(world: World) -> None:
    """The file's own name stands in the error."""
    with pytest.raises(SpecError) as caught:
        await world.start(changed("release: r1", "release: [r1]"))
    assert str(caught.value).startswith("r.yaml:2: release: ")


async def test_a_second_start_is_refused_or_supersedes(world: World) -> None:
    """Only with --supersede does a release lose its place, and the audit has both."""
    await world.to_canary()
    other = changed("release: r1", "release: r2")
    assert "--supersede" in await refused(world.start(other), Refused, 1)
    state = await world.start(other, supersede=True)
    assert (state["release"], state["phase"]) == ("r2", "draft")
    assert [entry["what"] for entry in await world.store.audit("m")][-2:] == ["supersede", "start"]
    assert await world.store.results() == {("m", "superseded"): 1}


async def test_supersede_where_nothing_moves_is_a_start(world: World) -> None:
    """And an expected generation is held against the state before it, once."""
    await world.engines()
    state = await world.start(supersede=True)
    assert state["generation"] == 1
    other = {"spec": changed("release: r1", "release: r2"), "supersede": True}
    assert "not 7" in await refused(world.say("start", args=other, if_generation=7), Conflict, 4)
    again = await world.say("start", args=other, if_generation=1, idempotency_key="k")
    assert again["release"] == "r2"
    assert (await world.say("start", args=other, idempotency_key="k"))["attempt"] == 1


async def test_start_names_no_other_model_and_needs_a_spec(world: World) -> None:
    """The spec says which model it is."""
    assert "no spec given" in await refused(world.say("start"), Usage, 2)
    line = await refused(world.say("start", model="other", args={"spec": SPEC}), Usage, 2)
    assert line == "start: the spec's model is m, not other; leave --model out"


async def test_a_later_release_starts_from_the_present_baseline(world: World) -> None:
    """After a promotion the old baseline is the wrong one, and the message says the right one."""
    await world.to_canary()
    await world.say("promote", args={"skip_analysis": True})
    swapped = changed("release: r1", "release: r2")
    assert "`engine: new`" in await refused(world.start(swapped), Refused, 1)


async def test_a_rolled_back_digest_is_quarantined_until_retry(world: World) -> None:
    """Another start of it is refused; retry begins a second attempt and lifts the quarantine."""
    await world.to_canary()
    await world.say("rollback", "bad answers")
    assert "was rolled back (bad answers)" in await refused(world.start(), Refused, 1)
    state = await world.say("retry", "the flags are mended")
    assert (state["phase"], state["attempt"]) == ("draft", 2)
    assert await world.store.quarantined("m") == {}
    await world.say("abort")
    assert (await world.start())["attempt"] == 3


async def test_abort_when_nothing_moves_is_no_error_and_no_change(world: World) -> None:
    """It is idempotent: the second one writes nothing."""
    await world.to_canary()
    await world.say("abort")
    before, entries = await world.store.release_text("m"), len(await world.store.audit("m"))
    assert (await world.say("abort"))["phase"] == "aborted"
    assert await world.store.release_text("m") == before
    assert len(await world.store.audit("m")) == entries
    assert (await world.store.read_split("m")).baseline.engine == "base"


async def test_promote_needs_a_fresh_look_at_this_very_place(world: World) -> None:
    """Evidence of the step before says nothing about this one, however fast the second promote comes."""
    await world.to_canary()
    await world.traffic(300)
    await world.step(0.1)
    assert (await world.say("promote"))["percent"] == 50
    assert "no fresh look" in await refused(world.say("promote"), Refused, 1)
    await world.step(0.1)
    assert "0 of 50 samples" in await refused(world.say("promote"), Refused, 1)


async def test_a_thousand_promotes_at_once_make_one_promotion(world: World) -> None:
    """All insist on one generation: one is carried out, the others are conflicts, and none lacks a connection."""
    await world.to_canary()
    generation = (await world.release()).generation
    order = Command("promote", "m", "ann", "go", generation, args={"skip_analysis": True})
    told = (execute(world.store, order, world.now) for _ in range(1000))
    results = await asyncio.gather(*told, return_exceptions=True)
    assert sum(isinstance(result, dict) for result in results) == 1
    assert {type(result) for result in results if not isinstance(result, dict)} == {Conflict}
    assert await world.store.results() == {("m", "promoted"): 1}


async def test_a_repeated_command_is_carried_out_once(world: World) -> None:
    """The same idempotency key, at once or later, is one change."""
    await world.to_canary()
    order = {"idempotency_key": "k1", "args": {"percent": 20}}
    await asyncio.gather(*(world.say("set-weight", **order) for _ in range(5)))
    await world.say("set-weight", args={"percent": 10})
    state = await world.say("set-weight", **order)
    assert state["percent"] == 10
    assert [entry["what"] for entry in await world.store.audit("m")].count("set-weight") == 2


async def test_a_command_that_had_nothing_to_do_is_not_carried_out_when_it_comes_again(world: World) -> None:
    """An abort of nothing, repeated after a retry, does not end the new attempt."""
    await world.to_canary()
    await world.say("abort")
    await world.say("abort", idempotency_key="k2")
    await world.say("retry")
    assert (await world.say("abort", idempotency_key="k2"))["phase"] == "draft"


async def test_an_operator_and_a_controller_race_without_loss(world: World) -> None:
    """Whoever is faster, every change is a step of its own and the end is the person's abort."""
    await world.to_canary()
    for turn in range(30):
        await asyncio.gather(
            world.controller.look("m"), world.say("set-weight", args={"percent": 6 + turn % 5}), return_exceptions=True
        )
    await asyncio.gather(world.controller.look("m"), world.say("abort"))
    release = await world.release()
    assert (release.phase, release.percent) == ("aborted", 0)
    changes = [entry for entry in await world.store.audit("m") if entry["what"] == "set-weight"]
    assert [entry["before"] for entry in changes[1:]] == [entry["after"] for entry in changes[:-1]]


async def test_wrong_usage_is_told(world: World) -> None:
    """Unknown verbs and models, missing reasons and percents."""
    await world.to_canary()
    assert "no such verb" in await refused(world.say("launch"), Usage, 2)
    assert "--reason" in await refused(world.say("pause", reason=" "), Usage, 2)
    assert "no percent" in await refused(world.say("set-weight"), Usage, 2)
    assert "101 is no percent" in await refused(world.say("set-weight", args={"percent": 101}), Refused, 1)
    assert "linnet start" in await refused(world.say("pause", model="absent"), Unknown, 1)
    assert "is at generation 6, not 98" in await refused(world.say("pause", if_generation=98), Conflict, 4)


async def test_a_dead_store_is_unreachable(valkey: Valkey) -> None:
    """Exit code 3, and the mend."""
    store = Store.connect(valkey.url)
    valkey.kill()
    assert "linnet up" in await refused(World(store).say("pause"), Unreachable, 3)
    await store.close()


async def test_status_shows_what_is_desired_and_what_is_so(world: World) -> None:
    """Shares, workers, guardrails, money and story, from the store alone."""
    await world.to_canary()
    await world.traffic(300)
    await world.acknowledge()
    await world.step(1)
    state = await world.say("freeze", "holidays")
    assert state["desired"] == {"baseline": 0.95, "candidate": 0.05}
    assert state["actual"] == {"baseline": 0.95, "candidate": 0.05}
    assert state["workers"] == {"live": 1, "acknowledged": 1, "behind": []}
    assert state["overlays"]["frozen"] == "holidays"
    assert state["guardrails"][0]["guardrail"] == "error_rate"
    assert state["to_go"] == {"seconds": 1.0, "samples": 0, "pairs": 0}
    assert (state["budget_usd"], round(state["spend_usd"], 2)) == (5, 1.0)
    assert [(event["phase"], event["percent"], event["actor"]) for event in state["timeline"]] == [
        ("draft", 0, "ann"),
        *[("preflight", 0, "controller")] * 3,
        ("shadow", 0, "controller"),
        ("canary", 5, "controller"),
        ("canary", 5, "ann"),
    ]
    assert (await world.release()).spec == SPEC


async def test_a_supersede_that_cannot_start_ends_nothing(world: World) -> None:
    """A quarantined candidate, a wrong baseline: the release under way goes on."""
    await world.to_canary()
    await world.say("rollback", "bad answers")
    await world.say("retry", "mended")
    await world.store._redis.hset("linnet:m:quarantine", "d-new", "bad answers")
    other = changed("release: r1", "release: r2")
    assert "was rolled back" in await refused(world.start(other, supersede=True), Refused, 1)
    await world.store._redis.hdel("linnet:m:quarantine", "d-new")
    await world.store.register_engine({"name": "old", "url": "http://127.0.0.1:9", "digest": "d-old"})
    wrong = changed("engine: base", "engine: old", other)
    assert "`engine: base`" in await refused(world.start(wrong, supersede=True), Refused, 1)
    assert (await world.release()).active


async def test_findings_of_another_attempt_are_never_shown(world: World) -> None:
    """A release that has just begun has proved nothing, whatever the one before it had."""
    await world.to_canary()
    await world.traffic(300)
    await world.step()
    assert (await world.say("abort"))["guardrails"]
    assert (await world.start(changed("release: r1", "release: r2")))["guardrails"] == []
    assert (await material(world.store, "m", world.now))["findings"] == []
    await world.step()
    assert {one["n"] for one in (await status(world.store, "m", world.now))["guardrails"]} == {0}


async def test_what_holds_is_told_with_the_numbers_of_the_last_look(world: World) -> None:
    """The overlay and what is waited for are one sentence, not an old one and a new one."""
    await world.to_canary(50, changed("5pp", "0.1pp"))
    for each in (55, 2):
        await world.traffic(each)
        release = await world.step(4)
    state = await status(world.store, "m", world.now)
    assert release.held.startswith("inconclusive")
    assert state["overlays"]["held"] == state["waiting"] != release.held


async def test_a_retry_remembers_what_the_attempt_before_it_cost(world: World) -> None:
    """The stop loss is the release's, not the attempt's."""
    await world.to_canary()
    world.now += 3600
    spent = (await world.say("rollback"))["spend_usd"]
    assert (await world.say("retry"))["spend_usd"] >= spent


async def test_tokens_that_are_paid_for_are_spend_and_end_a_release_too(world: World) -> None:
    """The shadow's too, wherever the ledger is shown; a retry goes on from them."""
    paid = "served_model: new, usd_per_million_tokens: {prompt: 1, completion: 2}"
    await world.to_canary(spec=changed("served_model: new, usd_per_hour: 0.2", paid))
    await world.shadowed(prompt=1_000_000, completion=500_000)
    state = await status(world.store, "m", world.now)
    assert state["spend"]["tokens"] == pytest.approx(2.0)
    assert state["shadow_tokens"]["candidate"] == {"prompt": 1_000_000, "completion": 500_000}
    told = (await world.metrics.render(world.store)).decode()
    assert 'linnet_release_spend_usd{model="m",part="tokens"} 2.0' in told
    assert 'linnet_shadow_tokens{arm="candidate",kind="completion",model="m"} 500000.0' in told
    await world.shadowed(prompt=8_000_000, completion=0)
    release = await world.step()
    assert (release.phase, "stop loss" in release.reason) == ("aborted", True)
    assert (await world.say("retry"))["spend"]["before"] == pytest.approx(1 + 10.0)


async def test_a_retry_waits_until_it_is_known_what_the_attempt_cost(world: World) -> None:
    """A field that nobody writes must not make the next attempt cheaper."""
    await world.to_canary()
    await world.say("abort")
    await world.shadowed(prompt=1, completion=0, word="nonsense.x")
    assert "not known what its tokens cost" in await refused(world.say("retry"), Refused, 1)


async def test_a_controller_that_fell_silent_is_told(world: World) -> None:
    """Old verdicts under an old clock must not look like a watch that goes on."""
    await world.to_canary()
    await world.traffic(300)
    await world.step()
    world.now += 60
    assert (await status(world.store, "m", world.now))["waiting"] == (
        "no controller has looked for 60 s; start it (linnet up)"
    )
    await world.step(1)
    assert "controller" not in (await status(world.store, "m", world.now))["waiting"]
    world.now += 60
    assert (await world.say("abort"))["waiting"] == ""


async def test_a_weight_is_set_by_a_ramp(world: World) -> None:
    """The share moves in parts while automation is paused; what is no number of seconds is told."""
    await world.to_canary()
    state = await world.say("set-weight", args={"percent": 1, "ramp": 4})
    assert state["desired"]["candidate"] == pytest.approx(0.05 - 0.04 / 3)
    assert state["ramp"] == {"to": 1, "parts_left": 2}
    assert "over 4 s" in state["overlays"]["paused"]
    await world.step(2)
    assert (await world.step(2)).percent == 1
    for ramp in ("soon", True, 10**400, -1):
        error, code = (Refused, 1) if ramp == -1 else (Usage, 2)
        assert "ramp" in await refused(world.say("set-weight", args={"percent": 1, "ramp": ramp}), error, code)


async def test_status_shows_the_ledger_and_the_rehearsal(world: World) -> None:
    """Each part of the spend, a budget that is spent, and how long a rollback took."""
    await world.to_canary(spec=changed("spent_before_usd: 1", "spent_before_usd: 6"))
    state = await world.say("freeze", "holidays")
    assert state["rehearsal_ms"] == 0
    assert state["spend"].keys() == {"before", "engines", "tokens", "load_tests"}
    assert state["spend_usd"] == pytest.approx(sum(state["spend"].values()))
    assert state["spend"]["load_tests"] == pytest.approx(20 / 3600 * 0.1)
    assert "of a budget of 5.00" in state["warnings"][0]
