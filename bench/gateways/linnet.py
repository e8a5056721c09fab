"""Start our gateway with everything on, for a benchmark: `python -m bench.gateways.linnet --port P --folder F ...`.

A real Valkey and a process that pushes splits run in sessions of their own, off the proxy's core, and end when the
gateway ends. This process then becomes the gateway: whoever counts its session counts the gateway and its workers, and
nothing else. `store.pid` in the folder names the Valkey, so that its share can be told.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from redis import Redis

from bench.errors import BenchError
from bench.gateways.pusher import publish
from bench.rig import store_argv, store_url, until
from canary.core.arms import Arm, Endpoint, Split

MODEL = "m"
PRICE = (1e-5, 1e-7, 1e-6)
PERCENT = 10.0


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateways.linnet", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the store's data, the models' file, the state")
    parser.add_argument(
        "--engines", required=True, help="the ports of the baseline and of the candidate, comma-separated"
    )
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args(words)


def split_of(baseline: Sequence[str], candidate: Sequence[str], model: str = MODEL, percent: float = PERCENT) -> Split:
    """Return a canary: `percent` of the users to the candidate's replicas (base URLs)."""
    first, second = (
        Endpoint(arm, MODEL, tuple(urls), price=PRICE) for arm, urls in zip(Arm, (baseline, candidate), strict=True)
    )
    return Split(model, 1, first, second, release="bench", attempt=1, stage=1, phase="canary", percent=percent)


def beside(argv: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Run a process off this one's cores, in a session of its own, until this one ends, whatever it becomes."""
    mine = os.sched_getaffinity(0)
    others = set(range(os.cpu_count() or 1)) - mine or mine
    pin = ["taskset", "-c", ",".join(map(str, sorted(others))), "setpriv", "--pdeathsig", "TERM"]
    with log.open("wb") as file:
        return subprocess.Popen(
            [*pin, *argv], stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )


def environment(folder: Path, port: int, workers: int, store: str) -> dict[str, str]:
    """Return the gateway's settings."""
    return {
        "LINNET_GATEWAY_PORT": str(port),
        "LINNET_OPS_PORT": "0",
        "LINNET_WORKERS": str(workers),
        "LINNET_MODELS": str(folder / "models.yaml"),
        "LINNET_STATE": str(folder / "state"),
        "LINNET_REDIS_URL": store,
        "LINNET_DRAIN_SECONDS": "1",
    }


def write_models(folder: Path, baselines: dict[str, Sequence[str]]) -> None:
    """Write the file of models: each with its baseline's base URLs."""
    entries = {
        name: {"engine": Arm.BASELINE.value, "served_model": MODEL, "replicas": list(urls)}
        for name, urls in baselines.items()
    }
    (folder / "models.yaml").write_text(yaml.safe_dump({"models": entries}))


def main() -> None:
    """Prepare, then become the gateway."""
    told = arguments(sys.argv[1:])
    urls = [f"http://127.0.0.1:{port}" for port in told.engines.split(",")]
    folder: Path = told.folder
    split = split_of(urls[:1], urls[1:])
    write_models(folder, {MODEL: urls[:1]})
    store = beside(store_argv(folder), folder / "store.log")
    (folder / "store.pid").write_text(str(store.pid))
    with Redis.from_url(store_url(folder), decode_responses=True) as redis:
        until("the store", lambda: bool(redis.ping()))
        publish(redis, split)
    listening = ["--listen"] if told.workers == 1 else []
    beside([sys.executable, "-m", "bench.gateways.pusher", store_url(folder), MODEL, *listening], folder / "pusher.log")
    os.environ |= environment(folder, told.port, told.workers, store_url(folder))
    os.execv(sys.executable, [sys.executable, "-m", "gateway"])  # noqa: S606 - the very point: no process in between


if __name__ == "__main__":
    try:
        main()
    except BenchError as trouble:
        sys.exit(f"bench: {trouble}")
