"""Engines asked for themselves: real ones that answer, refuse and hang, and when they are asked again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable

import pytest

from canary import health
from canary.health import Health, HttpAsk
from tests.canary.test_main import free_port
from tests.support.simulated import SimulatedProcess, SimulatedThread

A, B = "http://a", "http://b"


class Asked:
    """Engines that say what they are told to, on a clock of their own; "hang" waits until they are free."""

    def __init__(self) -> None:
        self.now = 100.0
        self.says: dict[str, str] = {}
        self.times: list[str] = []
        self.free = asyncio.Event()
        self.health = Health(self, lambda: self.now)

    async def __call__(self, url: str) -> str:
        """See Ask."""
        self.times.append(url)
        if self.says.get(url) == "hang":
            await self.free.wait()
        return self.says.get(url, "")


async def test_an_engine_that_answers_is_there(simulated: Callable[..., SimulatedThread]) -> None:
    """Also one that has no such route."""
    ask, url = HttpAsk(), simulated().url
    assert await ask(url) == ""
    assert await ask(f"{url}/elsewhere") == ""


async def test_an_engine_that_is_gone_refuses() -> None:
    """As does one whose host nobody knows."""
    ask = HttpAsk()
    assert await ask(f"http://127.0.0.1:{free_port()}") == "no connection"
    assert await ask("http://nobody.invalid:1") == "no connection"


async def test_an_engine_that_is_stopped_hangs_no_longer_than_the_timeout(
    simulated_process: Callable[..., SimulatedProcess],
) -> None:
    """The kernel takes the connection, and nobody answers."""
    engine = simulated_process()
    os.kill(engine.process.pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        assert await HttpAsk(0.3)(engine.url) == "none within 0.3 s"
        assert time.monotonic() - begun < 2
    finally:
        os.kill(engine.process.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("answer", "trouble"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "HTTP 503"),
        (b"SSH-2.0-none\r\n", "RemoteProtocolError"),
        (b"", "RemoteProtocolError"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", ""),
    ],
)
async def test_only_the_status_counts(answer: bytes, trouble: str) -> None:
    """A body that never ends is not waited for."""
    served = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        if answer.endswith(b"chunked\r\n\r\n"):
            await reader.read()
        writer.close()
        await writer.wait_closed()
        served.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await HttpAsk(2.0)(f"http://127.0.0.1:{port}") == trouble
        await served.wait()


async def test_an_answer_counts_for_a_few_seconds_and_no_longer() -> None:
    """It is renewed while looks go on; after a pause nothing old is believed."""
    asked = Asked()
    for _ in range(3):
        assert await asked.health.silent([A, B]) == {}
    assert asked.times == [A, B]
    asked.says[A] = "no connection"
    asked.now += health.FRESH_S
    assert await asked.health.silent([A]) == {}
    await asyncio.sleep(0)
    assert await asked.health.silent([A]) == {A: "no connection"}
    asked.says[A] = "hang"
    asked.now += health.KEPT_S
    assert await asked.health.silent([A, B]) == {A: "not yet"}
    asked.free.set()


async def test_a_look_waits_a_moment_and_only_for_who_was_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging engine holds up one look a little, and no further one is asked beside the first."""
    asked = Asked()
    asked.says[A] = "hang"
    begun = time.monotonic()
    assert await asked.health.silent([A, B]) == {A: "not yet"}
    assert health.PATIENCE_S <= time.monotonic() - begun < health.PATIENCE_S + 5
    await asked.health.silent([A])
    assert asked.times == [A, B]
    asked.says[A] = "none within 1 s"
    asked.free.set()
    await asyncio.sleep(0.01)
    asked.free.clear()
    assert await asked.health.silent([A]) == {A: "none within 1 s"}
    asked.says[A], asked.now = "hang", asked.now + health.FRESH_S
    monkeypatch.setattr(health, "PATIENCE_S", 5.0)
    begun = time.monotonic()
    assert await asked.health.silent([A]) == {A: "none within 1 s"}
    assert time.monotonic() - begun < health.PATIENCE_S / 2
    asked.free.set()
