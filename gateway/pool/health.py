"""Active checks of the replicas, off the request path: GET /health, now and then, a few at a time.

What requests saw outweighs what checks say, both ways. An engine that answers requests is not down, however late its
/health is under load. And vLLM's /health says 200 while the engine behind it is frozen: a check that passes lets a
refused replica be tried again, but only a real answer closes its breaker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Protocol

from gateway.pool.options import PoolOptions

_AT_A_TIME = 16
_SERVER_ERRORS = 500


class Checked(Protocol):
    """A replica. `answered_at` is when a request last heard from its engine, in monotonic seconds."""

    host: str
    port: int
    prefix: bytes
    options: PoolOptions
    answered_at: float

    def found(self, *, up: bool) -> None:
        """Hear how it is."""


class _Pulse:
    """What is known of one replica: when it is looked at next, how many checks in a row it has failed."""

    __slots__ = ("due", "missed")

    def __init__(self, due: float) -> None:
        self.due = due
        self.missed = 0

    def beat(self, replica: Checked, now: float, *, alive: bool) -> bool | None:
        """Return whether the replica is up after one more check, None if that is not clear."""
        if alive:
            self.missed = 0
            return True
        heard = now - replica.answered_at <= replica.options.health_s + replica.options.health_timeout_s
        self.missed = 0 if heard else self.missed + 1
        return False if self.missed >= replica.options.health_failures else None


class Health:
    """Looks at every replica in its own time. `chance` spreads the checks, so that workers do not come together."""

    def __init__(
        self,
        replicas: Callable[[], Collection[Checked]],
        clock: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._replicas = replicas
        self._clock = clock
        self._chance = chance
        self._pulses: dict[Checked, _Pulse] = {}
        self._room = asyncio.Semaphore(_AT_A_TIME)

    async def look(self) -> None:
        """Check whoever is due; call it about once a second."""
        now = self._clock()
        watched = [replica for replica in self._replicas() if replica.options.health_s]
        self._pulses = {replica: self._pulses.get(replica) or self._first(replica, now) for replica in watched}
        async with asyncio.TaskGroup() as group:
            for replica, pulse in self._pulses.items():
                if pulse.due <= now:
                    pulse.due = now + replica.options.health_s * (0.9 + 0.2 * self._chance())
                    group.create_task(self._check(replica, pulse))

    def _first(self, replica: Checked, now: float) -> _Pulse:
        return _Pulse(now + replica.options.health_s * self._chance())

    async def _check(self, replica: Checked, pulse: _Pulse) -> None:
        async with self._room:
            alive = await answers(replica)
        up = pulse.beat(replica, self._clock(), alive=alive)
        if up is not None:
            replica.found(up=up)


async def answers(replica: Checked) -> bool:
    """Tell whether GET /health is answered in time, by anything but a 5xx: not every engine has that route."""
    try:
        async with asyncio.timeout(replica.options.health_timeout_s):
            return _well(await _first_line(replica))
    except (OSError, TimeoutError, ValueError):
        return False


async def _first_line(replica: Checked) -> bytes:
    """Ask on a connection of its own: whether the engine still takes one is half the question."""
    reader, writer = await asyncio.open_connection(replica.host, replica.port)
    try:
        writer.write(
            b"GET %b/health HTTP/1.1\r\nhost: %b:%d\r\nconnection: close\r\n\r\n"
            % (replica.prefix, replica.host.encode(), replica.port)
        )
        return await reader.readline()
    finally:
        writer.transport.abort()


def _well(line: bytes) -> bool:
    version, _, rest = line.partition(b" ")
    status = rest[:3]
    return version.startswith(b"HTTP/1.") and status.isdigit() and int(status) < _SERVER_ERRORS
