"""Put gateways side by side: `python -m bench.gateways [--peers a,b] [--scenarios S1c64,S2] [--rounds N]`.

Rounds are the outer loop and peers the inner one, so that the machine's drift falls on all alike; the proxy has a core,
the generator and the engines the other. Writes bench/results/gateways.md, and gateways.json with every sample.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.errors import BenchError
from bench.gateways.alone import alone
from bench.gateways.machine import await_quiet
from bench.gateways.measure import Row, one_peer
from bench.gateways.peers import Peer, Places, chosen, filled, read_peers
from bench.gateways.running import installed
from bench.gateways.scenarios import SCENARIOS, USUAL
from bench.gateways.stage import Cores, stage
from bench.gateways.tables import Results, cpu_table, goals, wall_table
from bench.gateways.tools import check

_BENCH = Path(__file__).parents[1]
_OURS = ("linnet", "linnet-interpreted")
_SHARE = 0.2  # of a core that others may use when a peer starts, while --quiet lasts

Samples = dict[str, dict[str, list[Row]]]


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateways", description=__doc__)
    parser.add_argument("--peers", default="", help="only these, comma-separated; direct and nginx are the references")
    parser.add_argument("--scenarios", default=",".join(USUAL), help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-list", type=Path, default=_BENCH / "peers.json")
    parser.add_argument("--peers-dir", type=Path, default=Path(tempfile.gettempdir(), "peers"), help="where they are")
    parser.add_argument("--cores", default="0,1", help="the proxy's core and everybody else's")
    parser.add_argument(
        "--quiet", type=float, default=0.0, help="seconds to wait, before each peer, for a quiet machine"
    )
    parser.add_argument("--paced-nice", type=int, default=0, help="niceness in paced scenarios; below 0 needs root")
    parser.add_argument("--out", type=Path, default=_BENCH / "results" / "gateways.md")
    parser.add_argument("--merge", action="store_true", help="add to the samples that are there")
    return parser.parse_args(words)


def run(told: argparse.Namespace) -> Results:
    """Measure everything that is asked for. Raises BenchError with one line."""
    check()
    names = _scenarios(told.scenarios)
    places = Places(told.peer_list.resolve().parent, told.peers_dir.resolve())
    peers = _there(chosen(read_peers(told.peer_list), told.peers), places)
    raw: Samples = _read(told.out) if told.merge else {}
    first = max((int(row["round"]) for rows in raw.values() for each in rows.values() for row in each), default=0)
    cores = [int(core) for core in told.cores.split(",")]
    with (
        tempfile.TemporaryDirectory(prefix="lb-", ignore_cleanup_errors=True) as folder,
        stage(Path(folder), Cores(*cores)) as scene,
    ):
        for number in range(first + 1, first + told.rounds + 1):
            for peer in peers:
                await_quiet(cores, _SHARE, told.quiet)
                begun = time.monotonic()
                rows = one_peer(peer, places, scene, names, told.paced_nice)
                for name, row in rows.items():
                    raw.setdefault(peer.name, {}).setdefault(name, []).append({"round": number, **row})
                _tell(f"round {number}, {peer.name}, {time.monotonic() - begun:.0f} s: {_brief(rows)}")
            told.out.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    return Results(raw)


def page(results: Results, told: argparse.Namespace, now: datetime) -> str:
    """Return the results as a page."""
    peers = [peer for peer in read_peers(told.peer_list) if peer.name in results.raw]
    rounds = max((len(rows) for each in results.raw.values() for rows in each.values()), default=0)
    failed = "".join(f"- {line}\n" for line in results.failures()) or "- nothing\n"
    return f"""# Gateways side by side

{now:%Y-%m-%d}, {_processor()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()} \
({"with" if _optimized() else "without"} profile-guided optimization).
Made by `{_command(told)}`; medians of {rounds} rounds, ratios taken within a round. [Every sample](gateways.json);
[what is measured and how](../gateways/README.md).

## What was asked for

{_goals(results)}

## CPU of the proxy

{cpu_table(results)}

## Wall clock

{wall_table(results)}

## Who they are

{_who(peers, told.peers_dir)}

What failed:

{failed}"""


def _goals(results: Results) -> str:
    return "\n\n".join(goals(results, name) for name in results.raw if name in _OURS)


def _optimized() -> bool:
    """Tell whether the interpreter was built with profiles: that alone is worth a tenth."""
    return "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")


def _scenarios(names: str) -> list[str]:
    wanted = names.split(",")
    if missing := set(wanted) - set(SCENARIOS):
        raise BenchError(f"no scenario named {', '.join(sorted(missing))}; there are {', '.join(SCENARIOS)}")
    return wanted


def _there(peers: Sequence[Peer], places: Places) -> list[Peer]:
    """Leave out who is not installed, and say so."""
    there = [peer for peer in peers if installed(peer, places)]
    if left := [peer.name for peer in peers if peer not in there]:
        _tell(f"not installed, left out: {', '.join(left)} (sh bench/gateways/install_peers.sh)")
    return there


def _read(out: Path) -> Samples:
    file = out.with_suffix(".json")
    samples: Samples = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return samples


def _brief(rows: dict[str, Row]) -> str:
    return ", ".join(f"{name} {row.get('failed') or row['cpu_us']}" for name, row in rows.items())


def _who(peers: Sequence[Peer], folder: Path) -> str:
    lines = ["| | | version | split |", "|---|---|---|---|"]
    lines += [f"| {peer.name} | {peer.about} | {_version(peer, folder)} | {peer.split} |" for peer in peers]
    return "\n".join(lines)


def _version(peer: Peer, folder: Path) -> str:
    """Ask a peer for its version; its first line with a digit, "" if it says none."""
    if not peer.version:
        return ""
    argv = [filled(word, {"peers": folder.resolve()}) for word in peer.version]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, cwd=_BENCH.parent)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if any(letter.isdigit() for letter in line)]
    return lines[0].strip()[:60] if lines else ""


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _command(told: argparse.Namespace) -> str:
    asked = {"peers": told.peers, "scenarios": told.scenarios, "rounds": str(told.rounds)}
    usual = {"peers": "", "scenarios": ",".join(USUAL)}
    words = [f"--{name} {value}" for name, value in asked.items() if value != usual.get(name)]
    return " ".join(["python -m bench.gateways", *words])


def _tell(line: str) -> None:
    sys.stderr.write(f"bench: {line}\n")
    sys.stderr.flush()


def main() -> int:
    """Measure and write; 1 if there is no measurement."""
    told = arguments(sys.argv[1:])
    try:
        with alone():
            results = run(told)
    except (BenchError, OSError) as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    told.out.write_text(page(results, told, datetime.now(UTC)))
    print(f"{cpu_table(results)}\n\n{wall_table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
