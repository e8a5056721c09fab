"""Every verb that changes a release works straight on the store, with no control plane alive, and says the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from canary.commands import VERBS
from canary.console.client import Client, Http, Order
from canary.console.direct import Direct
from canary.storage.store import Store
from tests.canary.specs import SPEC
from tests.canary.world import World
from tests.release import laws

CHANGES = ("phase", "percent", "generation", "overlays", "desired", "attempt")
STORY: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pause", {}),
    ("resume", {}),
    ("set-weight", {"percent": 20.0}),
    ("freeze", {}),
    ("unfreeze", {}),
    ("rollback", {}),
    ("retry", {}),
    ("abort", {}),
    ("start", {"spec": SPEC, "where": "r.yaml"}),
    ("start", {"spec": SPEC.replace("release: r1", "release: r2"), "where": "r.yaml", "supersede": True}),
)
PROMOTION = (("promote", {"skip_analysis": True}), ("rollback", {}))


def told(way: Client, store_url: str, story: tuple[tuple[str, dict[str, Any]], ...]) -> list[dict[str, Any]]:
    """Tell a story by one way, from a release in the canary; return what each verb answered."""
    asyncio.run(_canary(store_url))
    answers = []
    for number, (verb, args) in enumerate(story):
        order = Order(verb, "ann", f"because {number}", f"k{number}", args=args)
        answer = way.start(args["spec"], args["where"], order) if verb == "start" else way.command("m", order)
        answers.append({"verb": verb, **{name: answer[name] for name in CHANGES}})
    return answers


async def _canary(url: str) -> None:
    store = Store.connect(url)
    await store._redis.flushall()
    world = World(store)
    world.now = time.time()
    await world.to_canary()
    await store.close()


@pytest.mark.parametrize("story", [STORY, PROMOTION], ids=["all but promote", "promote and back"])
def test_the_store_alone_does_what_the_control_plane_does(
    valkey_url: str, control_url: str, story: tuple[tuple[str, dict[str, Any]], ...]
) -> None:
    """Both ways answer alike, leave the same audit, and keep the laws."""
    ways: list[Callable[[], Client]] = [lambda: Http(control_url, ""), lambda: Direct(valkey_url)]
    answers, audits = [], []
    for way in ways:
        answers.append(told(way(), valkey_url, story))
        audits.append(laws.story(asyncio.run(_hold(valkey_url))))
    assert answers[0] == answers[1]
    assert audits[0] == audits[1]


def test_no_verb_is_left_out() -> None:
    """The two stories say every verb there is."""
    assert {verb for verb, _ in STORY + PROMOTION} == {*VERBS, "start"}


async def _hold(url: str) -> list[dict[str, str]]:
    store = Store.connect(url)
    try:
        return await laws.hold(store)
    finally:
        await store.close()
