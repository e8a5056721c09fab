"""The notifier in the control plane's own process: it sends, is killed, and the next one goes on."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from canary.storage.store import Store
from tests.canary.notify.receiver import hang, receiver, status
from tests.canary.notify.test_notifier import hook
from tests.canary.notify.test_target import spec
from tests.canary.world import World


async def control_plane(url: str) -> asyncio.subprocess.Process:
    """Start `python -m canary` with the secret in its environment."""
    ours = {"LINNET_REDIS_URL": url, "LINNET_CONTROL_PORT": "0", "LINNET_LOOK_SECONDS": "0.1", "LINNET_LEASE_MS": "500"}
    environment = {**os.environ, **ours, "LINNET_NOTIFY_SECRET": "s3cret"}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "canary", env=environment, stderr=asyncio.subprocess.PIPE
    )


@pytest.mark.parametrize("copies", [1, 2])
async def test_signal_nine_loses_no_notification(store: Store, valkey_url: str, copies: int) -> None:
    """Killed while the receiver hangs: the next one, or the standby, sends the same message and all that followed."""
    async with receiver(hang, status(200)) as one:
        processes = [await control_plane(valkey_url) for _ in range(copies)]
        try:
            world = World(store)
            await world.engines()
            await world.start(spec(hook(one, "phase, rollback")))
            await one.until(1, 20)
            leader = (await store._redis.get("linnet:leader") or "").split(":")[0].rpartition(".")[2]
            victim = next(process for process in processes if str(process.pid) == leader)
            victim.kill()
            await world.say("rollback")
            if copies == 1:
                processes.append(await control_plane(valkey_url))
            async with asyncio.timeout(20):
                while one.bodies()[-1]["what"] not in {"rollback", "acknowledged"}:  # noqa: ASYNC110 - a test polls
                    await asyncio.sleep(0.05)
            assert len(set(one.ids())) < len(one.ids())
            assert {"start", "rollback"} <= {body["what"] for body in one.bodies()}
            said = [body["audit"]["seq"] for body in one.bodies()]
            assert said == sorted(said)
        finally:
            for process in processes:
                if process.returncode is None:
                    process.terminate()
            ends = await asyncio.gather(*(process.communicate() for process in processes))
        assert all(b"Traceback" not in said and b"s3cret" not in said for _, said in ends)
        assert [process.returncode for process in processes if process is not victim] == [0]
