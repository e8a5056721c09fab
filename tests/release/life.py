"""A release's life, second by second, on a store whose every command may be the last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from canary.controller import Controller
from canary.core.release import Phase, Release
from canary.storage import keys
from canary.storage.store import Store, StoreError, Trip
from tests.canary.specs import changed
from tests.canary.world import BY, EVAL, LOAD, World

SHORT = changed("min_samples: 20}", "min_samples: 400}", changed("min_samples: 50}", "min_samples: 500}"))
EACH = 300  # the candidate's answers in a second


class Killed(BaseException):
    """The process is gone: nothing in it may catch this."""


class Fragile(Store):
    """A store that fails its user at the n-th command from now: before it reaches the server, or when it is done."""

    left: int | None = None
    after = False
    commands = 0
    failure: type[BaseException] = Killed
    between: Callable[[], Awaitable[Any]] | None = None

    def fail(self, at: int, *, after: bool, failure: type[BaseException] = Killed) -> None:
        """Fail once, at the `at`-th command from now (1 is the next), with or without its effect."""
        self.left, self.after, self.failure = at, after, failure

    async def _ask(self, call: Any) -> Any:
        self.commands += 1
        if self.between is not None:
            await self.between()
        self.left = None if self.left is None else self.left - 1
        if self.left != 0:
            return await super()._ask(call)
        self.left = None
        if self.after:
            await super()._ask(call)
        else:
            call.close()
        raise self.failure("at a command")


class Life(World):
    """A world whose controller stands on a store of its own, and is replaced when it dies."""

    def __init__(self, store: Store, fragile: Fragile) -> None:
        self.fragile = fragile
        self.deaths = 0
        super().__init__(store)

    def another(self, name: str, lease_ms: int = 5000) -> Controller:
        """Return a further controller, on the fragile store."""
        plain, self.store = self.store, self.fragile
        try:
            return super().another(name, lease_ms)
        finally:
            self.store = plain

    async def begin(self, spec: str = SHORT) -> Release:
        """Start a release whose gates are passed."""
        await self.engines()
        await self.start(spec)
        await self.store.put_report("m", "load", "d-new", LOAD, BY)
        await self.store.put_report("m", "eval", "d-new", EVAL, BY)
        return await self.release()

    async def users(self, errors: int = 0) -> None:
        """Let a second of traffic and the worker's own beat reach the store."""
        release = await self.release()
        await self.acknowledge(0)
        if release.phase is Phase.SHADOW:
            await self.pairs()
        if release.phase in (Phase.CANARY, Phase.BAKE) and release.percent:
            await self.traffic(EACH, errors)

    async def second(self, errors: int = 0) -> Release:
        """Live through one second; a controller that dies in it is followed by another, which looks at once."""
        self.now += 1
        await self.users(errors)
        await self.again(Controller.step)
        return await self.release()

    async def hear(self, trip: Trip) -> None:
        """Let the leader hear of a trip; whoever leads next reads all trips again."""
        await self.again(lambda leader: leader.tripped(trip))

    async def again(self, act: Callable[[Controller], Awaitable[object]]) -> None:
        """Let the leader do something; what a death or a lost store cuts short is done again, by whoever leads then."""
        try:
            await act(self.controller)
        except Killed:
            await self.succeed()
            await act(self.controller)
        except StoreError:
            if not self.controller.leading:  # the grant of the lease was lost on the way: it runs out
                await self.succeed()
            await act(self.controller)

    async def succeed(self) -> None:
        """Another controller takes over from one that died, whose lease has run out, and looks."""
        self.deaths += 1
        await self.store._redis.delete(keys.LEADER)
        self.controller = self.another(f"heir{self.deaths}")
        await self.controller.step()

    async def clear(self) -> None:
        """Empty the store: FLUSHALL is a new append-only file, a quarter of a second each."""
        found = await self.store._redis.keys("*")
        if found:
            await self.store._redis.delete(*found)

    async def until(self, true: Callable[[Release], bool], most: int = 40, errors: int = 0) -> Release:
        """Live on until something is true of the release."""
        for _ in range(most):
            release = await self.second(errors)
            if true(release):
                return release
        raise AssertionError(f"not within {most} s: the release stands in {release.place}, {release.held}")
