from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from gateway.pool.health import Health, answers
from gateway.pool.options import PoolOptions

LONG_AGO = -1e9
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@dataclass(eq=False)
class Spot:
    """A replica that remembers what it was told."""

    port: int = 1
    host: str = "127.0.0.1"
    prefix: bytes = b"/base"
    options: PoolOptions = field(default_factory=lambda: PoolOptions(health_s=5, health_timeout_s=0.2))
    answered_at: float = LONG_AGO
    told: list[bool] = field(default_factory=list)

    def found(self, *, up: bool) -> None:
        """Remember."""
        self.told.append(up)


class Clock:
    """A time that stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


@asynccontextmanager
async def listening(says: bytes, seen: list[bytes] | None = None) -> AsyncIterator[Spot]:
    """A server that reads one head and says something."""

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(says)
        if not says:
            await reader.read(1)
        await ending(writer)

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    async with server:
        yield Spot(server.sockets[0].getsockname()[1])
        await asyncio.sleep(0.02)


async def ending(writer: asyncio.StreamWriter) -> None:
    """Close; the other side may have gone first."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("says", "well"),
    [
        (OK, True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
        (b"", False),
        (b"SSH-2.0-OpenSSH\r\n", False),
        (b"x" * 70_000, False),
    ],
)
async def test_what_is_well(says: bytes, *, well: bool):
    """Anything but a 5xx, in time, in HTTP."""
    async with listening(says) as spot:
        assert await answers(spot) is well


async def test_nobody_there_is_not_well():
    """A refused connection."""
    assert not await answers(Spot(1))


async def test_the_base_path_of_a_replica_is_kept():
    """Its /health is below it."""
    seen: list[bytes] = []
    async with listening(OK, seen) as spot:
        await answers(spot)
    assert seen[0].startswith(b"GET /base/health HTTP/1.1\r\nhost: 127.0.0.1:")


async def test_a_replica_is_down_after_some_failures_in_a_row_and_up_after_one_good_check():
    """Three by default."""
    spot, clock = Spot(1), Clock()
    health = Health(lambda: [spot], clock, lambda: 0.0)
    for _ in range(3):
        assert not spot.told
        await health.look()
        clock.now += 5
    assert spot.told == [False]
    async with listening(OK) as there:
        spot.port = there.port
        await health.look()
    assert spot.told == [False, True]


async def test_an_engine_that_answers_requests_is_not_down():
    """Its /health may be late under load; taking it away would only load the others."""
    spot, clock = Spot(1), Clock()
    health = Health(lambda: [spot], clock, lambda: 0.0)
    for _ in range(9):
        spot.answered_at = clock.now - 2
        await health.look()
        clock.now += 5
    assert spot.told == []


async def test_checks_come_in_their_own_time():
    """The first after a random part of the pause, the next ones a pause apart, give or take a tenth."""
    seen: list[bytes] = []
    clock, times = Clock(), []
    async with listening(OK, seen) as spot:
        health = Health(lambda: [spot], clock, lambda: 0.5)
        for _ in range(150):
            before = len(seen)
            await health.look()
            times += [clock.now] if len(seen) > before else []
            clock.now += 0.1
    assert times == pytest.approx([102.5, 107.5, 112.5], abs=0.35)


async def test_zero_seconds_are_never():
    """Active checks are a choice."""
    spot, clock = Spot(1, options=PoolOptions(health_s=0, health_failures=1)), Clock()
    health = Health(lambda: [spot], clock, lambda: 0.0)
    for _ in range(3):
        await health.look()
        clock.now += 100
    assert spot.told == []


async def test_a_forgotten_replica_is_not_remembered():
    """What no split names any more leaves nothing behind."""
    spots, clock = [Spot(1), Spot(1)], Clock()
    health = Health(lambda: spots, clock, lambda: 0.0)
    await health.look()
    del spots[0]
    clock.now += 5
    await health.look()
    assert (len(health._pulses), spots[0] in health._pulses) == (1, True)


async def test_only_some_are_checked_at_a_time():
    """A hundred replicas that hang do not cost a hundred connections."""
    inside, most = 0, 0
    hang, left = asyncio.Event(), asyncio.Queue[None]()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if most == 16:
            asyncio.get_running_loop().call_later(0.05, hang.set)
        await hang.wait()
        inside -= 1
        writer.write(OK)
        await ending(writer)
        left.put_nowait(None)

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    async with server:
        options = PoolOptions(health_timeout_s=5)
        spots = [Spot(server.sockets[0].getsockname()[1], options=options) for _ in range(40)]
        await Health(lambda: spots, Clock(), lambda: 0.0).look()
        for _ in spots:
            await left.get()
    assert ([spot.told for spot in spots], most) == ([[True]] * 40, 16)
