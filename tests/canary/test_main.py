"""The control plane as a process: it starts, survives signal 9 with nothing lost, and says what is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from canary.core.events import Cause
from canary.storage import keys
from canary.storage.apikeys import KeyLimits, checked
from canary.storage.store import Store
from tests.canary.specs import SPEC
from tests.canary.world import BY, LOAD, following
from tests.support.simulated import SimulatedThread
from tests.support.valkey import Valkey


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def spawn(url: str, port: int, **more: str) -> asyncio.subprocess.Process:
    """Start `python -m canary`."""
    environment = {**os.environ, "LINNET_REDIS_URL": url, "LINNET_CONTROL_PORT": str(port), **more}
    environment |= {"LINNET_LOOK_SECONDS": "0.1", "LINNET_LEASE_MS": "1000"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "canary", env=environment, stderr=asyncio.subprocess.PIPE
    )


@asynccontextmanager
async def control(url: str, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a control plane until the block ends."""
    process = await spawn(url, port)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def phase(http: httpx.AsyncClient, wanted: str) -> dict:
    """Wait for a phase and return the status."""
    async with asyncio.timeout(20):
        while True:
            try:
                state = (await http.get("/admin/v1/models/m/status")).json()
                if state.get("phase") == wanted:
                    return state
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


async def test_signal_nine_loses_nothing(valkey: Valkey, simulated: Callable[..., SimulatedThread]) -> None:
    """Controller and store are killed in mid-release; both come back, and the release is where it was and goes on."""
    port, store = free_port(), Store.connect(valkey.url)
    for name in ("base", "new"):
        await store.register_engine({"name": name, "url": simulated(name).url, "digest": f"d-{name}", "state": "ready"})
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http, following(store):
        async with control(valkey.url, port) as first:
            await ready(http)
            body = {"spec": SPEC, "actor": "ann", "reason": "go"}
            assert (await http.post("/admin/v1/releases", json=body)).status_code == 201
            await phase(http, "preflight")
            await store.put_report("m", "load", "d-new", {**LOAD, "created_ms": int(time.time() * 1000)}, BY)
            before = await phase(http, "shadow")
            text = await store.release_text("m")
            first.kill()
            await first.wait()
            valkey.kill()
        valkey.start()
        assert await store.release_text("m") == text
        async with control(valkey.url, port) as second:
            after = await phase(http, "shadow")
            assert (after["generation"], after["desired"]) == (before["generation"], before["desired"])
            start = asyncio.get_running_loop().time()
            while not (await store.last_look("m"))["unix_ms"] / 1000 > time.time() - 0.5:
                await asyncio.sleep(0.05)
                assert asyncio.get_running_loop().time() - start < 5
            second.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(second.wait(), 5) == 0
            assert await store.lead("next", None, 100) is not None
    await store.close()


async def ready(http: httpx.AsyncClient) -> None:
    """Wait until the listener answers and the store does too."""
    async with asyncio.timeout(20):
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


async def test_a_taken_port_is_one_line(valkey_url: str) -> None:
    """Exit code 2, what, where and the mend; no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = await spawn(valkey_url, port)
        _, stderr = await process.communicate()
    assert process.returncode == 2
    assert stderr.decode().count("\n") == 1
    assert f"127.0.0.1:{port} cannot be bound" in stderr.decode()


async def test_a_bad_environment_is_one_line(valkey_url: str) -> None:
    """The variable is named, or what a store's URL looks like."""
    for more, code, word in (
        ({"LINNET_CONTROL_PORT": "many"}, 2, "LINNET_CONTROL_PORT=many"),
        ({"LINNET_CONTROL_HOST": "0.0.0.0"}, 2, "no admin key"),
        ({"LINNET_REDIS_URL": "http://nowhere"}, 3, "redis://HOST"),
    ):
        process = await spawn(valkey_url, 0, **more)
        _, stderr = await process.communicate()
        assert process.returncode == code
        assert word in stderr.decode()
        assert stderr.decode().count("\n") == 1


async def test_others_are_let_in_with_a_key_only(valkey_url: str) -> None:
    """An address that is not loopback's own is served once an admin's key is there, and never without one."""
    store, port = Store.connect(valkey_url), free_port()
    cause = Cause("ann", "because", time.time())
    _, admin = await store.api_keys().create(checked("root", ["admin"], KeyLimits()), cause)
    process = await spawn(valkey_url, port, LINNET_CONTROL_HOST="127.0.0.2")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.2:{port}") as http:
        await ready(http)
        await store._redis.delete(keys.API_KEYS)
        assert (await http.get("/admin/v1/models")).status_code == 401
        headers = {"Authorization": f"Bearer {admin}"}
        assert (await http.get("/admin/v1/models", headers=headers)).status_code == 401
        await store.api_keys().create(checked("app", ["inference"], KeyLimits()), cause)
        assert (await http.get("/admin/v1/models")).status_code == 401
    process.terminate()
    await process.communicate()
    assert process.returncode == 0
    await store.close()
