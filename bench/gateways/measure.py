"""One peer through the scenarios: rows of plain numbers, so that every sample can be kept."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.errors import BenchError
from bench.gateways.machine import busy_s, renice, usage_of
from bench.gateways.peers import Peer, Places
from bench.gateways.running import Running, running
from bench.gateways.scenarios import SCENARIOS, WARMING, Scenario
from bench.gateways.stage import Stage

Row = dict[str, float | str]
_MB = 2**20


def one_peer(peer: Peer, places: Places, scene: Stage, names: Sequence[str], paced_nice: int = 0) -> dict[str, Row]:
    """Take a peer through scenarios; a scenario that fails has a row {"failed": why}."""
    wanted = [name for name in names if peer.scenarios is None or name in peer.scenarios]
    rows: dict[str, Row] = {}
    try:
        with running(peer, places, scene) as target:
            warm(target, scene, [SCENARIOS[name] for name in wanted])
            for name in wanted:
                rows[name] = _row(target, scene, SCENARIOS[name], paced_nice)
            if wanted and target.session:
                rows[wanted[0]]["start_s"] = round(target.start_s, 2)
    except (BenchError, OSError, subprocess.TimeoutExpired) as error:
        rows |= {name: {"failed": str(error)[:300]} for name in wanted if name not in rows}
    return rows


def warm(target: Running, scene: Stage, scenarios: Sequence[Scenario]) -> None:
    """Let a peer open its connections and compile what it compiles, as the scenarios will need it."""
    kinds = {scenario.streamed: scenario.users for scenario in scenarios}
    for scenario in WARMING:
        if scenario.streamed in kinds:
            users = kinds[scenario.streamed]
            _drive(target, scene, replace(scenario, seconds=target.peer.warm_s, users=users))


def _drive(target: Running, scene: Stage, scenario: Scenario) -> dict[str, Any]:
    peer = target.peer
    return scene.drive(scenario, target.port, peer.path, peer.model, target.headers)


def _row(target: Running, scene: Stage, scenario: Scenario, paced_nice: int) -> Row:
    try:
        with_nice = paced_nice if scenario.paced else 0
        for session in (target.session, scene.engine.pid):
            if session and with_nice:
                renice(session, with_nice)
        return measured(target, scene, scenario)
    except (BenchError, subprocess.TimeoutExpired) as error:
        return {"failed": str(error)[:300]}
    finally:
        for session in (target.session, scene.engine.pid):
            if session and paced_nice:
                renice(session, 0)


def measured(target: Running, scene: Stage, scenario: Scenario) -> Row:
    """Run one scenario and return what it cost. Raises BenchError if the generator fails."""
    counts, used, beside = scene.counts(), target.usage(), target.usage_beside()
    core = {} if scene.cores.proxy is None else busy_s([scene.cores.proxy])
    load, begun = os.getloadavg()[0], time.monotonic()
    said = _drive(target, scene, scenario)
    wall = time.monotonic() - begun
    after, store = target.usage(), target.usage_beside()
    foreign = [busy - core[which] for which, busy in busy_s(core).items()]
    spent, asked, chunks, candidates = after.cpu_s - used.cpu_s, *_grown(counts, scene.counts())
    row: Row = {
        "requests": asked,
        "chunks": chunks,
        "cpu_s": round(spent, 3),
        "candidate_share": round(candidates / max(1, asked), 4),
        "rss_mb": round(after.rss / _MB, 1),
        "rss_one_mb": round(max((usage_of(pid).rss for pid in after.pids), default=0) / _MB, 1),
        "processes": len(after.pids),
        "beside_cpu_s": round(store.cpu_s - beside.cpu_s, 3),
        "beside_us": round((store.cpu_s - beside.cpu_s) / max(1, asked) * 1e6, 2),
        "beside_rss_mb": round(store.rss / _MB, 1),
        "others_share": round((sum(foreign) - spent) / wall, 3) if foreign else 0.0,
        "load1": round(load, 2),
    }
    return row | (_streamed(said, spent, chunks) if scenario.streamed else _whole(said, spent, asked))


def _grown(before: list[dict[str, int]], after: list[dict[str, int]]) -> tuple[int, int, int]:
    """Return the requests, the chunks and the candidate's requests between two counts."""
    grown = [{key: b[key] - a[key] for key in ("requests", "chunks")} for a, b in zip(before, after, strict=True)]
    return (
        sum(one["requests"] for one in grown),
        sum(one["chunks"] for one in grown),
        sum(one["requests"] for one in grown[1:]),
    )


def _whole(said: dict[str, Any], spent: float, asked: int) -> Row:
    return {
        "cpu_us": round(spent / max(1, asked) * 1e6, 2),
        "answers": said["requests"],
        "rps": round(said["requests"] / said["seconds"], 1),
        "errors": said["errors"],
        **{key: said[key] for key in ("p50_us", "p99_us")},
    }


def _streamed(said: dict[str, Any], spent: float, chunks: int) -> Row:
    return {
        "cpu_us": round(spent / max(1, chunks) * 1e6, 3),
        "chunks_per_s": round(said["chunks"] / said["seconds"], 1),
        "streams": said["streams"],
        "errors": said["errors"] + said["short"],
        **{f"{name}_{share}_us": said[f"{name}_us"][share] for name in ("first", "way") for share in ("p50", "p99")},
    }
