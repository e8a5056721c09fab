"""False rollbacks and detection times of the whole family: `python -m bench.guardrails [--quick] [--part false]`.

Twenty requests a second of made-up traffic, looked at every second, up to 10,000 requests of the candidate; thousands
of runs side by side (crowd.py), held to the product by a test. Chance is seeded by case and batch, so the same runs
come out whatever the number of processes. Writes bench/results/guardrails.json, and guardrails.md from that; a part
that was not asked for stays as it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.guardrails.cases import BESIDE, EQUAL, HALF, LATELY, WORSE
from bench.guardrails.pages import Count, counted, equal_table, page, worse_table
from bench.guardrails.telling import tell, tell_all, tell_peers

_RESULTS = Path(__file__).parents[1] / "results"
_JSON, _PAGE = _RESULTS / "guardrails.json", _RESULTS / "guardrails.md"
_BATCH, _WORSE_BATCH = 500, 100
PARTS = ("false", "detection", "peers")


def main(words: Sequence[str] | None = None) -> int:
    """Run and write, each case when it is told; a quick run is only shown."""
    told = _arguments(words)
    if told.quick:
        quick = {part: dict(_told(part, told)) for part in PARTS[:2]}
        print("\n\n".join((equal_table(counts(quick)), worse_table(counts(quick)))))
        return 0
    for part in PARTS if told.part == "all" else (told.part,):
        for key, case in _told(part, told):
            _keep(part, key, case)
    print(_PAGE.read_text())
    return 0


def _keep(part: str, key: str, case: Mapping[str, Any]) -> None:
    """Write what was counted of one case, beside what is there."""
    kept = json.loads(_JSON.read_text()) if _JSON.exists() else {}
    kept.setdefault(part, {})[key] = {"made": f"{datetime.now(UTC):%Y-%m-%d}", **case}
    _JSON.write_text(json.dumps(kept, separators=(",", ":"), sort_keys=True).replace("},", "},\n") + "\n")
    _PAGE.write_text(page(counts(kept), max(case["made"] for part in kept.values() for case in part.values())))


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.guardrails", description=__doc__)
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--runs50", type=int, default=2000, help="of each case of equal arms at a share of 50 %%")
    parser.add_argument("--runs5", type=int, default=1000, help="at 5 %%, where a run is ten times as long")
    parser.add_argument("--worse", type=int, default=100, help="runs of each case of harm")
    parser.add_argument("--beside", type=int, default=200, help="runs of each case that peers read too")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="50 runs a case of equal arms, 20 of harm, at 50 %% only; shown, not written",
    )
    told = parser.parse_args(words)
    if told.quick:
        told.runs50, told.runs5, told.worse = 50, 0, 20
    return told


def _told(part: str, told: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tell the cases of a part, and yield what was counted by name."""
    if part == "peers":
        yield from _told_beside(told)
        return
    equal = part == "false"
    runs = {True: told.runs50 if equal else told.worse, False: told.runs5 if equal else told.worse * (told.runs5 > 0)}
    some = EQUAL if equal else (*LATELY, *WORSE)
    cases = [(case, runs[case.share == HALF]) for case in some if told.only in case.key]
    size = _BATCH if equal else _WORSE_BATCH
    for case, stories in tell_all([one for one in cases if one[1]], size, told.processes, tell):
        count = counted([(story.requests, story.failed) for story in stories])
        sys.stderr.write(f"bench: {case.key}: {count.hits} of {count.runs}, median {count.median:,.0f}, {count.by}\n")
        yield case.key, {"runs": count.runs, "requests": count.requests, "by": count.by}


def _told_beside(told: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    cases = [(case, told.beside) for case in BESIDE if told.only in case.key and (told.runs5 or case.share == HALF)]
    for case, stories in tell_all(cases, _WORSE_BATCH, told.processes, tell_peers):
        for name in dict.fromkeys(name for name, _ in stories):
            count = counted([(story.requests, story.failed) for whose, story in stories if whose == name])
            sys.stderr.write(f"bench: {case.key}: {name}: {count.hits} of {count.runs}, median {count.median:,.0f}\n")
            yield f"{case.key} | {name}", {"runs": count.runs, "requests": count.requests, "by": count.by}


def counts(kept: Mapping[str, Any]) -> dict[str, Count]:
    """Return what was counted, by case."""
    cases = {key: case for part in kept.values() for key, case in part.items()}
    return {key: Count(case["runs"], tuple(case["requests"]), case["by"]) for key, case in cases.items()}


if __name__ == "__main__":
    sys.exit(main())
