"""A worker between raw sockets, and what must hold after every attack on it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from tests.gateway.hostile.wire import Heard, Raw, raw_engine, talk, well
from tests.gateway.rig import LIMITS, House, gateway

QUICK = replace(
    LIMITS, head_s=1, stall_s=1, connect_s=0.5, first_byte_s=1, between_s=1, total_s=2, answer_bytes=256 * 1024
)


@dataclass(frozen=True, slots=True)
class Siege:
    """A worker, and the engine that must not be reached."""

    house: House
    engine: Raw

    async def refused(self, raw: bytes, *statuses: int) -> Heard:
        """Send these bytes: the client is refused and cut, the engine sees nothing, and the worker serves on."""
        heard = await talk(self.house.url, raw)
        await self.repelled(heard, *statuses)
        return heard

    async def repelled(self, heard: Heard, *statuses: int) -> None:
        """Hold what a client heard against what it should have: one refusal, and the end."""
        allowed = statuses or (*range(400, 500), 501, 505)
        assert [status in allowed for status in heard.statuses] == [True], (heard.statuses, heard.raw[:300])
        assert heard.closed, "the connection was left open"
        await self.unharmed()

    async def unharmed(self, reached: int = 0) -> None:
        """The engine has seen so many requests and no more, and an ordinary one is served."""
        assert len(self.engine.requests) == reached, self.engine.requests
        self.engine.script = well
        answer = await self.house.ask()
        assert (answer.status_code, answer.json()["model"]) == (200, "support"), answer.text
        assert len(self.engine.requests) == reached + 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def besieged(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Siege]:
    """One worker for a whole module: it must live through every attack of it."""
    folder = tmp_path_factory.mktemp("siege")
    async with raw_engine() as engine, gateway(folder, engine.split(), limits=QUICK) as house:
        yield Siege(house, engine)


@pytest.fixture
def siege(besieged: Siege, caplog: pytest.LogCaptureFixture) -> Iterator[Siege]:
    """The worker, behind it an engine that answers well and has seen nothing yet; no attack makes it stumble."""
    besieged.engine.script = well
    besieged.engine.requests.clear()
    yield besieged
    stumbles = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    assert stumbles == []
