"""The controller dies, or loses the store, at every command there is: the next one goes on, and nobody can tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count

import pytest

from canary.core.release import Phase
from canary.storage.store import Store, StoreError
from tests.release import laws
from tests.release.life import Fragile, Killed, Life


@dataclass(frozen=True)
class Story:
    """What happens, up to where the controller may die, and from there on."""

    opening: Callable[[Life], Awaitable[object]]
    rest: Callable[[Life], Awaitable[object]]


async def promoted(life: Life) -> None:
    """Everything is well, to the end and a look beyond."""
    await life.until(lambda release: release.phase is Phase.PROMOTED)
    await life.second()


async def breached(life: Life) -> None:
    """The candidate fails, and every worker hears of the end."""
    await life.until(lambda release: not release.active, errors=200)
    await life.second()


async def tripped(life: Life) -> None:
    """A worker's tripwire fires; whoever leads after a death reads all trips again."""
    fired = await life.trip()
    await life.hear(fired)
    ended = await life.second()
    await life.hear(fired)
    assert await life.release() == ended


def canary(percent: float) -> Callable[[Life], Awaitable[object]]:
    """Live on to a share."""

    async def opening(life: Life) -> None:
        await life.begin()
        await life.until(lambda release: release.percent == percent)

    return opening


STORIES = {
    "promoted": Story(Life.begin, promoted),
    "breached": Story(canary(50), breached),
    "tripped": Story(canary(5), tripped),
}


async def told(
    life: Life, story: Story, *, at: int | None, after: bool, failure: type[BaseException]
) -> list[tuple[str, ...]]:
    """Live a story in which the controller fails at a command; return the audit's. The laws hold."""
    await story.opening(life)
    if at is not None:
        life.fragile.fail(at, after=after, failure=failure)
    await story.rest(life)
    return laws.story(await laws.hold(life.store))


@pytest.mark.parametrize("failure", [Killed, StoreError])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", STORIES)
async def test_a_death_at_any_command_changes_no_word_of_the_audit(
    store: Store, fragile: Fragile, name: str, *, after: bool, failure: type[BaseException]
) -> None:
    """Nothing is lost, doubled or early: the story is told as if nobody had died."""
    story = STORIES[name]
    well = await told(Life(store, fragile), story, at=None, after=after, failure=failure)
    for at in count(1):
        life = Life(store, fragile)
        await life.clear()
        assert await told(life, story, at=at, after=after, failure=failure) == well, f"command {at}"
        if fragile.left is not None:
            break  # the story was over first
    fragile.left = None
    assert at > 10
