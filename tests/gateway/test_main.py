from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from canary.storage.store import Store
from gateway.__main__ import Workers, bind
from gateway.record.page import Page
from tests.gateway.rig import MODEL, NOWHERE, Sim, events, until


@asynccontextmanager
async def running(tmp_path: Path, base: Sim, **more: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str, str]]:
    """`python -m gateway` as an operator runs it: the process, its address, its operations address."""
    models = tmp_path / "models.yaml"
    entry = {"engine": "base", "served_model": "base", "replicas": [base.url]}
    models.write_text(yaml.safe_dump({"models": {MODEL: entry}}))
    env = {
        **os.environ,
        "LINNET_GATEWAY_PORT": "0",
        "LINNET_OPS_PORT": "0",
        "LINNET_MODELS": str(models),
        "LINNET_STATE": str(tmp_path / "state"),
        "LINNET_REDIS_URL": NOWHERE,
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        said = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        url, ops = re.findall(r"(http://[^/]+)/", said)
        yield process, url, ops
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.stdout.read(), 20)  # its workers hold the other end too
        await asyncio.wait_for(process.wait(), 20)


async def test_two_workers_serve_sum_their_metrics_and_drain(tmp_path: Path, base: Sim, store: Store, valkey_url: str):
    """The whole life: start, serve, metrics of all workers, a killed worker replaced, SIGTERM amid a stream, exit 0."""
    base.behave(ttft_ms=50, tpot_ms=30)
    asked = {"model": MODEL, "prompt": "x", "max_tokens": 40, "ignore_eos": True, "stream": True}
    async with running(tmp_path, base, LINNET_REDIS_URL=valkey_url) as (process, url, ops), httpx.AsyncClient() as http:
        for _ in range(8):
            async with httpx.AsyncClient() as fresh:  # a connection of its own: any worker may take it
                small = {"model": MODEL, "prompt": "x", "max_tokens": 1}
                assert (await fresh.post(f"{url}/v1/completions", json=small)).status_code == 200

        async def beating() -> set[str]:
            found = set(await store._redis.zrange("linnet:workers", 0, -1))
            return found if len(found) == 2 else set()

        workers = await until(beating, "two workers")

        async def counted() -> str:
            page = (await http.get(f"{ops}/metrics")).text
            return page if 'linnet_requests_total{arm="baseline",model="support",outcome="ok"} 8.0' in page else ""

        page = await until(counted, "both workers' sums")
        assert re.search(r'linnet_overhead_seconds_bucket\{le="0.0\d+",model="support"\} 8.0', page)
        assert "linnet_store_up 1.0" in page
        assert (await http.get(f"{url}/metrics")).status_code == 404

        victim = int(min(workers).split("-")[-2])
        os.kill(victim, signal.SIGKILL)

        async def replaced() -> bool:
            return len(await store._redis.zrange("linnet:workers", 0, -1)) == 3

        await until(replaced, "a new worker", seconds=15)
        assert await counted()  # what the dead one counted stays

        async with http.stream("POST", f"{url}/v1/completions", json=asked) as answer:
            pieces = answer.aiter_raw()
            first = await anext(pieces)
            process.send_signal(signal.SIGTERM)
            rest = b"".join([piece async for piece in pieces])
        seen = events(first + rest)
        assert seen[-1] == "[DONE]"
        assert not [event for event in seen if "error" in event]
        assert await asyncio.wait_for(process.wait(), 10) == 0
        with pytest.raises(httpx.ConnectError):
            await http.get(f"{url}/livez")


async def test_a_stream_longer_than_the_drain_is_ended_properly(tmp_path: Path, base: Sim):
    """The limit passes: an error event and [DONE], never a torn connection; exit 0."""
    base.behave(tpot_ms=300)
    asked = {"model": MODEL, "prompt": "x", "max_tokens": 60, "ignore_eos": True, "stream": True}
    more = {"LINNET_DRAIN_SECONDS": "1", "LINNET_WORKERS": "1"}
    async with running(tmp_path, base, **more) as (process, url, _), httpx.AsyncClient() as http:
        async with http.stream("POST", f"{url}/v1/completions", json=asked) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.2)
            seen = events(b"".join([piece async for piece in pieces]))
        assert seen[-1] == "[DONE]"
        assert seen[-2]["error"]["code"] == "shutting_down"
        assert await asyncio.wait_for(process.wait(), 10) == 0
    await until(lambda: base.running == 0, "freed")


async def test_a_drain_is_told_at_once_and_waited_for_by_nobody(
    tmp_path: Path, base: Sim, store: Store, valkey_url: str
):
    """SIGTERM: /readyz says no on a connection that is open, and the store knows of no worker once it has ended."""
    base.behave(tpot_ms=100)
    asked = {"model": MODEL, "prompt": "x", "max_tokens": 12, "ignore_eos": True, "stream": True}
    more = {"LINNET_REDIS_URL": valkey_url, "LINNET_WORKERS": "1"}
    async with running(tmp_path, base, **more) as (process, url, _), httpx.AsyncClient(base_url=url) as http:
        async with http.stream("POST", "/v1/completions", json=asked) as answer:
            pieces = answer.aiter_raw()
            await anext(pieces)
            assert (await http.get("/readyz")).status_code == 200  # a second connection, open from here on
            assert len(await store.workers(_now_ms())) == 1
            process.send_signal(signal.SIGTERM)

            async def says_no() -> bool:
                ready = await http.get("/readyz")
                return (ready.status_code, ready.json()["status"]) == (503, "draining")

            await until(says_no, "not ready", seconds=0.4)
            assert events(b"".join([piece async for piece in pieces]))[-1] == "[DONE]"
        assert await asyncio.wait_for(process.wait(), 10) == 0
    assert await store.workers(_now_ms()) == ()


def _now_ms() -> int:
    return int(time.time() * 1000)


async def test_sighup_lets_every_worker_read_the_models_again(tmp_path: Path, base: Sim):
    """Told to the parent, done by all; a bad file is refused and shown, and the old models are served."""
    models = tmp_path / "models.yaml"
    entry = {"engine": "base", "served_model": "base", "replicas": [base.url]}
    async with running(tmp_path, base) as (process, url, _):
        put_unseen(models, {"models": {MODEL: entry}})
        await all_say(url, "/v1/models", lambda said: [model["id"] for model in said["data"]] == [MODEL])
        await asyncio.sleep(1.5)  # looked at, and not again
        put_unseen(models, {"models": {MODEL: entry, "other": entry}})
        process.send_signal(signal.SIGHUP)
        await all_say(url, "/v1/models", lambda said: len(said["data"]) == 2)
        put_unseen(models, {"models": {MODEL: {**entry, "replicas": ["no url"]}}})
        process.send_signal(signal.SIGHUP)
        await all_say(url, "/readyz", lambda said: f"{models}:5: models.{MODEL}.replicas.0" in said["models_file"])
        await all_say(url, "/v1/models", lambda said: len(said["data"]) == 2)


def put_unseen(path: Path, value: object) -> None:
    """Write a file of one size and one time: who knows one of them reads another only when told to."""
    text = yaml.safe_dump(value)
    path.write_text(text + "#" * (4096 - len(text)))
    os.utime(path, (0, 0))


async def all_say(url: str, path: str, true: Callable[[Any], bool]) -> None:
    """Wait until eight answers in a row, each on a connection of its own, say something."""

    async def say() -> bool:
        for _ in range(8):
            try:
                async with httpx.AsyncClient(base_url=url) as fresh:
                    if not true((await fresh.get(path)).json()):
                        return False
            except httpx.TransportError:  # no worker has started yet
                return False
        return True

    await until(say, f"{path} of all workers")


async def test_a_worker_that_is_told_to_reload_while_it_starts_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The signal would end a process without a handler; it waits until there is one."""
    (tmp_path / "models.yaml").write_text(
        f"models: {{{MODEL}: {{engine: e, served_model: s, replicas: ['http://127.0.0.1:1']}}}}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINNET_REDIS_URL", NOWHERE)
    with bind("a test's port", "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        workers = Workers(listener, Page(tmp_path), 1, {})
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            keeping = group.create_task(workers.keep())
            (process,) = await until(lambda: workers._running, "started")
            workers.reload()
            await all_say(url, "/readyz", lambda said: said["status"] == "ok")
            assert process.returncode is None
            stopping = group.create_task(workers.stop())
            await keeping
            stopping.cancel()


async def test_workers_do_not_outlive_their_parent(tmp_path: Path, base: Sim):
    """Kill -9 of the parent: nobody else would ever end them."""
    async with running(tmp_path, base) as (process, url, _), httpx.AsyncClient() as http:

        async def serves() -> bool:
            try:
                return (await http.get(f"{url}/readyz")).status_code == 200
            except httpx.HTTPError:
                return False

        async def gone() -> bool:
            return not await serves()

        await until(serves, "ready")
        process.kill()
        await until(gone, "gone")


def refused(tmp_path: Path, **env: str) -> str:
    """What a gateway says that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway"],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    return done.stderr


async def test_a_worker_that_starts_amid_the_stop_is_ended_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stop need not wait for the longest drain because a worker was just being replaced."""
    (tmp_path / "models.yaml").write_text(
        f"models: {{{MODEL}: {{engine: e, served_model: s, replicas: ['http://127.0.0.1:1']}}}}"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINNET_REDIS_URL", NOWHERE)
    with bind("a test's port", "127.0.0.1", 0) as listener:
        workers = Workers(listener, Page(tmp_path), 30, {})
        async with asyncio.timeout(15), asyncio.TaskGroup() as group:
            keeping = group.create_task(workers.keep())
            await asyncio.sleep(0)  # the worker is being started
            stopping = group.create_task(workers.stop())
            await keeping
            stopping.cancel()


def test_without_keys_only_loopback_is_served(tmp_path: Path):
    """An open port would let anyone choose an arm."""
    (tmp_path / "models.yaml").write_text("models: {m: {engine: e, served_model: s, replicas: ['http://127.0.0.1:1']}}")
    assert "loopback" in refused(tmp_path, LINNET_GATEWAY_HOST="0.0.0.0")


@pytest.mark.parametrize("name", ["LINNET_ACCESS_LOG", "LINNET_OTEL_ENDPOINT"])
def test_records_that_cannot_be_kept_are_one_line(tmp_path: Path, name: str):
    """Told by the process that starts the workers, instead of workers that end again and again."""
    (tmp_path / "models.yaml").write_text("models: {m: {engine: e, served_model: s, replicas: ['http://127.0.0.1:1']}}")
    assert name in refused(tmp_path, **{name: "nowhere/at/all"})


def test_a_taken_port_is_one_line(tmp_path: Path):
    """What, where, the mend."""
    (tmp_path / "models.yaml").write_text("models: {m: {engine: e, served_model: s, replicas: ['http://127.0.0.1:1']}}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(tmp_path, LINNET_GATEWAY_PORT=port)
    assert port in said
    assert "LINNET_GATEWAY_PORT" in said
