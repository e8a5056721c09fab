"""A worker that was besieged from both sides holds no more memory than before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from tests.gateway.hostile.test_engines import WITHOUT_END
from tests.gateway.hostile.test_heads import ENDLESS_PARTS
from tests.gateway.hostile.wire import BODY, CHAT, Raw, line, raw_engine, repeating, well
from tests.support.gateway import GatewayProcess, entry

MEGABYTE = 1 << 20
AT_ONCE = 10


def resident(pid: int) -> int:
    """The bytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


def worker_of(pid: int) -> int:
    """The one worker of a gateway."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


async def ask(url: str, count: int) -> list[int]:
    """Ask so often at once; return the statuses."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        head = {"content-type": "application/json"}
        answers = await asyncio.gather(*(http.post(CHAT, content=BODY, headers=head) for _ in range(count)))
    return [answer.status_code for answer in answers]


async def flood(url: str, start: bytes, piece: bytes) -> None:
    """Send without end."""
    async with line(url) as client:
        await client.flood(start, piece, 16 * MEGABYTE)


async def besiege(url: str, engine: Raw) -> None:
    """Floods by many clients at once, and answers without end by the engine."""
    for start, piece in ENDLESS_PARTS.values():
        await asyncio.gather(*(flood(url, start, piece) for _ in range(AT_ONCE)))
    for start, piece in WITHOUT_END.values():
        engine.script = repeating(start, piece, 4 * MEGABYTE, [])
        assert 500 not in await ask(url, AT_ONCE // 2)
    engine.script = well
    assert await ask(url, 20) == [200] * 20


async def test_one_siege_more_takes_no_more_memory(tmp_path: Path) -> None:
    """What the first one made the worker hold is used again by the others: nothing is kept for good."""
    limits = {"LINNET_REQUEST_TIMEOUT": "5", "LINNET_TOTAL_TIMEOUT": "3", "LINNET_BODY_LIMIT": str(MEGABYTE)}
    async with raw_engine() as engine:
        models = {"support": entry(engine.url, served_model="raw", failures=10_000, window_least=10_000)}
        with GatewayProcess(tmp_path, models, **limits) as gateway:
            pid = worker_of(gateway.pid)
            await besiege(gateway.url, engine)
            held = resident(pid)
            for _ in range(2):
                await besiege(gateway.url, engine)
            assert resident(pid) - held < 16 * MEGABYTE  # what was kept for good came to 28 and more
            assert "Traceback" not in gateway.err
