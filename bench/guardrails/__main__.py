"""False rollbacks and detection times of the whole family: `python -m bench.guardrails [--runs N] [--every S]`.

Each run is the controller's own code over 20 requests a second of made-up traffic (`canary.simulate`), up to 10,000
requests of the candidate. Seeded: run i of a case has the seed i. Writes bench/results/guardrails.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from math import inf
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from scipy.stats import beta

from canary.core.policy import Guard, Policy
from canary.simulate import Harm, OwnNoise, Step, Told, World, tell

REQUESTS = 10_000  # of the candidate
POLICY = Policy(
    (
        Guard("error_rate", 0.005),
        Guard("empty", 0.01),
        Guard("truncated", 0.01),
        Guard("ttft_p95", 1.10),
        Guard("ttft_p99", 1.25),
        Guard("tpot_p95", 1.10),
        Guard("cost_per_token", 1.05),
        Guard("cost_per_request", 1.15),
        Guard("shadow_quality", -0.02),
    )
)
_OUT = Path(__file__).parents[1] / "results" / "guardrails.md"
_HALF = (Step(0.5, 1000),)
_RAMP = (Step(0.05, 400), Step(0.25, 400, 1.65), Step(0.5, 400, 2.5))


def _noisy(tau: float, *, both: bool = False) -> OwnNoise:
    return OwnNoise(0.18, 0.10, tau, both)


EQUAL: Mapping[str, World] = {
    "exchangeable arms": World(_HALF),
    "the candidate's own noise, 1 min": World(_HALF, noise=_noisy(60)),
    "the candidate's own noise, 3 min": World(_HALF, noise=_noisy(180)),
    "the candidate's own noise, 10 min": World(_HALF, noise=_noisy(600)),
    "both arms noisy, 10 min": World(_HALF, noise=_noisy(600, both=True)),
    "a ramp 5-25-50 % with load x1.65 and x2.5": World(_RAMP),
    "that, with own noise of 3 min": World(_RAMP, noise=_noisy(180)),
}
WORSE: Mapping[str, Harm] = {
    "error +5 pp": Harm(error=0.05),
    "error +1 pp": Harm(error=0.01),
    "cost x1.15": Harm(cost=1.15),
    "quality -0.1": Harm(quality=0.1),
    "TTFT x1.5": Harm(ttft=1.5),
    "TTFT x2": Harm(ttft=2.0),
    "TTFT x5 on 10 % of requests": Harm(stall=5.0, stalled=0.1),
    "TPOT x1.25": Harm(tpot=1.25),
    "TPOT x1.5": Harm(tpot=1.5),
}


def upper(hits: int, runs: int) -> float:
    """Return the one-sided 95 % upper bound of a rate (Clopper and Pearson, 1934)."""
    return 1.0 if hits == runs else float(beta.ppf(0.95, hits + 1, runs - hits))


def middle(stories: Sequence[Told]) -> str:
    """Return the median of the candidate's requests until rollback, or that fewer than half came to one."""
    found = median(told.requests if told.failed else inf for told in stories)
    return f"{found:,.0f}" if found < inf else f"not in {REQUESTS:,}"


def by(stories: Sequence[Told]) -> str:
    """Return which guardrails rolled back, the most frequent first."""
    counted = Counter(told.failed for told in stories if told.failed)
    return ", ".join(f"{name} {times}" for name, times in counted.most_common()) or "none"


def tables(equal: Mapping[str, Sequence[Told]], worse: Mapping[str, Sequence[Told]]) -> str:
    """Return both tables."""
    lines = ["| equal arms | rolled back | of runs | 95 % upper bound | by |", "|---|---:|---:|---:|---|"]
    for name, stories in equal.items():
        hits = sum(bool(told.failed) for told in stories)
        lines.append(f"| {name} | {hits} | {len(stories)} | {upper(hits, len(stories)):.2%} | {by(stories)} |")
    lines += ["", "| worse, share 50 % | median candidate requests to rollback | runs | by |", "|---|---:|---:|---|"]
    lines += [f"| {name} | {middle(stories)} | {len(stories)} | {by(stories)} |" for name, stories in worse.items()]
    return "\n".join(lines)


def page(told: argparse.Namespace, shown: str, seconds: float) -> str:
    """Return the results as a page."""
    return f"""# The guardrails over made-up traffic

{datetime.now(UTC):%Y-%m-%d}. Made by `python -m bench.guardrails --runs {told.runs} --worse {told.worse} \
--every {told.every}` in {seconds:.0f} s. 20 requests a second, up to {REQUESTS:,} of the candidate (1,200 s in the \
ramps), nine guardrails at their default margins, no reference. Equal arms are looked at every {told.every} s, worse \
ones every second. Own noise: 18 % of TTFT, 10 % of TPOT. The worker's tripwire is not in it.

{shown}
"""


def stories(pool: ProcessPoolExecutor, world: World, runs: int, every: int) -> list[Told]:
    """Tell one story with each seed."""
    return list(pool.map(partial(tell, world, POLICY, every=every), range(runs), chunksize=2))


def main(words: Sequence[str] | None = None) -> int:
    """Run and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.guardrails", description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="of each case of equal arms")
    parser.add_argument("--worse", type=int, default=20, help="runs of each case of harm")
    parser.add_argument("--every", type=int, default=5, help="seconds between two looks at equal arms")
    told = parser.parse_args(words)
    began = time.monotonic()
    equal, worse = {}, {}
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for name, world in EQUAL.items():
            equal[name] = stories(pool, world, told.runs, told.every)
            sys.stderr.write(f"bench: {name}: {by(equal[name])}\n")
        for name, harm in WORSE.items():
            worse[name] = stories(pool, World(_HALF, harm=harm), told.worse, 1)
            sys.stderr.write(f"bench: {name}: {middle(worse[name])}\n")
    shown = tables(equal, worse)
    _OUT.write_text(page(told, shown, time.monotonic() - began))
    print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
