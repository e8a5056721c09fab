"""People and the controller at the same release at the same time: the laws hold, and every answer is the truth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from canary.commands import Command, execute
from canary.core.release import Phase
from canary.errors import Conflict, LinnetError, Refused
from canary.storage.store import Store
from tests.release import laws
from tests.release.life import SHORT, Fragile, Life

TURNS, AT_ONCE = 250, 4
VERBS: Mapping[str, tuple[float, dict[str, Any]]] = {
    "set-weight": (6, {}),
    "promote": (4, {}),
    "skip": (0.5, {"skip_analysis": True}),
    "pause": (3, {}),
    "resume": (5, {}),
    "freeze": (1, {}),
    "unfreeze": (3, {}),
    "abort": (0.4, {}),
    "rollback": (0.4, {}),
    "retry": (1, {}),
}
IDLE = {  # where a verb has nothing to do: a phase of the last moments, "" for any
    "resume": {""},
    "unfreeze": {""},
    "abort": laws.CONCLUSIONS,
    "rollback": laws.ENDS,
    "promote": {"promoted"},
}


@dataclass(frozen=True)
class Said:
    """An order, and what came of it: the new status, or a refusal."""

    order: Command
    answer: dict[str, Any] | LinnetError


def order(chance: random.Random, number: int, generation: int) -> Command:
    """Draw what a person says; its reason is its name in the audit."""
    name = chance.choices(list(VERBS), [weight for weight, _ in VERBS.values()])[0]
    args = {"percent": float(chance.randint(0, 100))} if name == "set-weight" else VERBS[name][1]
    insists = generation + chance.choice([0, 0, 0, -1, 1]) if chance.random() < 0.5 else None
    key = f"k{number}" if chance.random() < 0.5 else ""
    return Command("promote" if name == "skip" else name, "m", "ann", f"r{number}.", insists, key, args)


async def say(store: Store, order: Command, now: float, pause_s: float) -> Said:
    """Say it after a moment; an order with a key is said twice, as by somebody who lost the answer."""
    await asyncio.sleep(pause_s)
    try:
        said = Said(order, await execute(store, order, now))
    except LinnetError as error:
        said = Said(order, error)
    if order.idempotency_key and isinstance(said.answer, dict) and any(_is(order, e) for e in said.answer["timeline"]):
        await execute(store, order, now)
    return said


def _is(order: Command, entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry is of this order."""
    return order.reason in entry["why"].replace(":", " ").split()


def lately(answer: Mapping[str, Any]) -> set[str]:
    """Return the phases of an answer's last moments; a retry comes after an end."""
    last = answer["timeline"][-2 * AT_ONCE :]
    ends = laws.ENDS if any(event["what"] == "retry" for event in last) else frozenset()
    return {"", answer["phase"], *ends, *(event["phase"] for event in last)}


def true(said: Said, told: list[dict[str, str]]) -> None:
    """Assert that an answer is the truth, by the audit: what was done is there once, and what was refused is not."""
    mine = [at for at, entry in enumerate(told) if _is(said.order, entry)]
    if isinstance(said.answer, LinnetError):
        assert isinstance(said.answer, Conflict | Refused), said
        assert not mine, said
        return
    if not mine:
        assert IDLE[said.order.verb] & lately(said.answer), said
        return
    assert len(mine) == 1, said
    entry = told[mine[0]]
    assert (entry["who"], entry["what"]) == ("ann", said.order.verb), (said, entry)
    assert said.answer["generation"] >= int(entry["generation"])
    if said.order.if_generation is not None:
        assert told[mine[0] - 1]["generation"] == str(said.order.if_generation), (said, entry)


async def test_a_thousand_orders_race_a_controller(store: Store, fragile: Fragile) -> None:
    """Each is carried out once or refused, each change has its entry, and no law is broken."""
    chance, life = random.Random(1), Life(store, fragile)
    await life.begin(SHORT)
    await life.until(lambda release: release.percent == 5)
    said: list[Said] = []
    for turn in range(TURNS):
        life.now += chance.choice([0.5, 1, 3])
        await life.users()
        generation = (await life.release()).generation
        orders = [order(chance, turn * AT_ONCE + number, generation) for number in range(AT_ONCE)]
        talk = (say(store, one, life.now, chance.random() / 100) for one in orders)
        _, *answers = await asyncio.gather(life.controller.step(), *talk)
        said += answers
        if turn % 25 == 0:
            await laws.hold(store)
    told = laws.changes(await laws.hold(store))
    for one in said:
        true(one, told)
    done = {entry["what"] for entry in told if entry["who"] == "ann"}
    assert done >= {"set-weight", "promote", "pause", "resume", "freeze", "unfreeze", "abort", "rollback", "retry"}
    assert sum(entry["who"] == "controller" for entry in told) > 20
    assert sum(isinstance(one.answer, Conflict) for one in said) > 50
    assert (await life.release()).phase in Phase
