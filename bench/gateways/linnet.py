"""Start our gateway for a benchmark: `python -m bench.gateways.linnet --port P --folder F --baseline P --candidate P`.

A real Valkey and a process that pushes splits run in sessions of their own, off the proxy's core, and end when the
gateway ends. This process then becomes the gateway: whoever counts its session counts the gateway and its workers, and
nothing else. `store.pid` in the folder names the Valkey, so that its share can be told.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from redis import Redis

from bench.errors import BenchError
from bench.gateways.pusher import publish
from bench.gateways.scenarios import USER
from bench.rig import store_argv, store_url, until
from canary.core.arms import Arm, Endpoint, Split
from canary.storage import keys
from canary.storage.apikeys import ApiKey, KeyLimits, Scope, hash_of
from gateway import compiled
from gateway.compiled import CompileError

SECRET = "lk-bench"  # noqa: S105 - the key of a gateway that lives for a minute on loopback
MODEL = "m"
_PRICE = (1e-5, 1e-7, 1e-6)
_PERCENT = 10.0
_HIGH = KeyLimits(rpm=10**9, tpm=10**12, usd_per_day=1e6)  # counted as any limit is, and never reached


class Feature(StrEnum):
    """What can be left out, or added."""

    KEYS = "keys"
    LIMITS = "limits"
    TALLIES = "tallies"
    SLOTS = "slots"
    LOG = "log"
    AFFINITY = "affinity"
    SHADOW = "shadow"
    OTEL = "otel"


USUAL = frozenset({Feature.KEYS, Feature.LIMITS, Feature.TALLIES, Feature.SLOTS})


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateways.linnet", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the store's data, the models' file, the state")
    parser.add_argument("--baseline", required=True, help="the ports of its replicas, comma-separated")
    parser.add_argument("--candidate", required=True, help="the ports of its replicas, comma-separated")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--models", type=int, default=0, help="so many models, named by the generators' numbers")
    parser.add_argument("--interpreted", action="store_true", help="run the source, not the compiled copy")
    parser.add_argument("--with", dest="more", default="", help=f"of {', '.join(set(Feature) - USUAL)}")
    parser.add_argument("--without", dest="less", default="", help=f"of {', '.join(USUAL)}")
    return parser.parse_args(words)


def features(told: argparse.Namespace) -> frozenset[Feature]:
    """Return what is on. Raises ValueError for an unknown word."""
    more, less = (frozenset(Feature(word) for word in words.split(",") if word) for words in (told.more, told.less))
    return (USUAL | more) - less


def names(models: int) -> list[str]:
    """Return the public names: one, or as many as asked for, each in place of a user of the generators'."""
    return [f"{USER[:-8]}{number:08}" for number in range(1, models + 1)] or [MODEL]


def split_of(
    baseline: Sequence[str], candidate: Sequence[str], model: str = MODEL, on: frozenset[Feature] = USUAL
) -> Split:
    """Return a canary: a tenth of the users to the candidate's replicas (base URLs)."""
    first, second = (
        Endpoint(arm, MODEL, tuple(urls), price=_PRICE) for arm, urls in zip(Arm, (baseline, candidate), strict=True)
    )
    shadowed = 10.0 if Feature.SHADOW in on else 0.0
    return Split(
        model,
        1,
        first,
        second,
        release="bench" if Feature.TALLIES in on else "",
        attempt=1,
        stage=1,
        phase="canary",
        percent=_PERCENT,
        shadow_percent=shadowed,
        shadow_concurrency=16,
    )


def pool(on: frozenset[Feature]) -> dict[str, Any]:
    """Return the rules for the replicas."""
    slots = {"slots": 10_000} if Feature.SLOTS in on else {}
    return slots | ({"balance": "affinity"} if Feature.AFFINITY in on else {})


def environment(told: argparse.Namespace, folder: Path, on: frozenset[Feature]) -> dict[str, str]:
    """Return the gateway's settings."""
    log = {"LINNET_ACCESS_LOG": str(folder / "access.log")} if Feature.LOG in on else {}
    # Nobody listens there: what the exporter loses is not on the way of a request.
    otel = {"LINNET_OTEL_ENDPOINT": "http://127.0.0.1:9"} if Feature.OTEL in on else {}
    return {
        "LINNET_GATEWAY_PORT": str(told.port),
        "LINNET_OPS_PORT": "0",
        "LINNET_WORKERS": str(told.workers),
        "LINNET_COMPILED": str(not told.interpreted),
        "LINNET_MODELS": str(folder / "models.yaml"),
        "LINNET_STATE": str(folder / "state"),
        "LINNET_REDIS_URL": store_url(folder),
        "LINNET_DRAIN_SECONDS": "1",
        **log,
        **otel,
    }


def beside(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Run a process off this one's cores, in a session of its own, until this one ends, whatever it becomes."""
    mine = os.sched_getaffinity(0)
    others = set(range(os.cpu_count() or 1)) - mine or mine
    pin = ["taskset", "-c", ",".join(map(str, sorted(others))), "setpriv", "--pdeathsig", "TERM"]
    with log.open("wb") as file:
        return subprocess.Popen(
            [*pin, *argv], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


def fill_store(redis: Redis, splits: Sequence[Split], on: frozenset[Feature]) -> None:
    """Write the key and the splits."""
    if Feature.KEYS in on:
        limits = _HIGH if Feature.LIMITS in on else KeyLimits()
        scopes = frozenset({Scope.INFERENCE, Scope.TESTER})
        key = ApiKey("key_bench", "bench", scopes, limits, created_ms=int(time.time() * 1000))
        redis.hset(keys.API_KEYS, hash_of(SECRET), key.to_json())
    for split in splits:
        publish(redis, split)


def main() -> None:
    """Prepare, then become the gateway."""
    told = arguments(sys.argv[1:])
    if not told.interpreted:
        compiled.build()  # takes a minute once
    on, folder = features(told), Path(told.folder)
    baseline, candidate = (
        [f"http://127.0.0.1:{port}" for port in ports.split(",")] for ports in (told.baseline, told.candidate)
    )
    models = names(told.models)
    entry = {"engine": Arm.BASELINE.value, "served_model": MODEL, "replicas": baseline, "pool": pool(on)}
    (folder / "models.yaml").write_text(json.dumps({"models": dict.fromkeys(models, entry)}))  # JSON is YAML
    store = beside(store_argv(folder), folder / "store.log")
    (folder / "store.pid").write_text(str(store.pid))
    with Redis.from_url(store_url(folder), decode_responses=True) as redis:
        until("the store", lambda: bool(redis.ping()))
        fill_store(redis, [split_of(baseline, candidate, model, on) for model in models], on)
    listening = ["--listen"] if told.workers == 1 else []
    pusher = [sys.executable, "-m", "bench.gateways.pusher", store_url(folder), models[0], *listening]
    beside(pusher, folder / "pusher.log")
    os.environ |= environment(told, folder, on)
    os.execv(sys.executable, [sys.executable, "-m", "gateway"])  # noqa: S606 - the very point: no process in between


if __name__ == "__main__":
    try:
        main()
    except (BenchError, CompileError) as trouble:
        sys.exit(f"bench: {trouble}")
