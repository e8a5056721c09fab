"""What evidence costs: microseconds a request in a worker, milliseconds a decision: `python -m bench.guardrails.price`.

CPU time of one process on the interpreted source; the smallest of several rounds, because a busy machine only ever adds
to it. A decision is a look at every guardrail there is on three slices, in the first and the fourth stage of an
attempt, with the sums read from the store's text and the memory written down. Writes bench/results/decisions.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from canary.core.arms import Arm, Endpoint, Split
from canary.core.assignment import assign
from canary.core.finding import OnBreach
from canary.core.guardrails import Analysis, StageEvidence, look
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.policy import Guard, Policy
from canary.core.signals import SIGNALS
from canary.core.tally import Reader, Tally

START = 1_800_000_000.0
SLICES = ("", "domain", "general")
SHARES = (0.05, 0.1, 0.25, 0.5)
Shares = tuple[float, ...]
REQUESTS = 1500  # a stage and slice
LOOKS, ROUNDS = 20, 5
MARGINS = {"rate": 0.01, "ratio": 1.1, "difference": -0.02, "limit": 0.2, "seconds": 2.0}
_OUT = Path(__file__).parents[1] / "results" / "decisions.md"
Sums = dict[str, str]


def policy() -> Policy:
    """Return every guardrail there is, on all traffic and on two slices."""
    rows = SIGNALS.items()
    breach = {True: OnBreach.ROLLBACK, False: OnBreach.WARN}
    return Policy(tuple(Guard(name, MARGINS[row.unit], SLICES, breach[row.weight > 0]) for name, row in rows))


def outcome(
    chance: np.random.Generator, arm: Arm, at: float, stage: int = 1, *, slice_: str = "", unit: int = 0
) -> Outcome:
    """Draw one answer; `at` is when its arm was drawn, in Unix seconds."""
    ttft, tpot = 0.3 * chance.lognormal(0, 0.5), 0.02 * chance.lognormal(0, 0.2)
    return Outcome(
        arm,
        Result.OK if chance.random() > 0.005 else Result.ERROR,
        slice=slice_,
        stage=stage,
        e2e=float(ttft + 100 * tpot),
        ttft=float(ttft),
        tpot=float(tpot),
        stall=float(3 * tpot),
        prompt_tokens=100,
        completion_tokens=100,
        finish_reason="stop",
        cost_usd=2e-4,
        at=at,
        unit=unit,
    )


def attempt(shares: Shares, seed: int = 1) -> list[Sums]:
    """Return the store's text at each of some looks, a second apart, in the last stage of an attempt."""
    chance, ledger = np.random.default_rng(seed), Ledger()
    for stage, _ in enumerate(shares, start=1):
        for slice_ in SLICES[1:]:
            for arm in Arm:
                for number in range(REQUESTS):
                    ledger.assigned(stage, arm, slice_)
                    ledger.record(outcome(chance, arm, START + number // 20, stage, slice_=slice_))
                if arm is Arm.CANDIDATE:
                    for _ in range(REQUESTS):
                        ledger.pair(stage, slice_, float(np.clip(chance.normal(0, 0.25), -1, 1)))
    found, sums = [], dict[str, float]()
    for second in range(LOOKS + 1):
        for name, amount in ledger.drain().items():
            sums[name] = sums.get(name, 0) + amount
        found.append({name: str(amount) for name, amount in sums.items()})
        for _ in range(20):
            arm = Arm.CANDIDATE if chance.random() < shares[-1] else Arm.BASELINE
            ledger.record(outcome(chance, arm, START + REQUESTS // 20 + second, len(shares), slice_=SLICES[1]))
    return found


def stages(tallies: Mapping[tuple[int, str, str], Tally], shares: Shares) -> list[StageEvidence]:
    """Return the sums by stage."""
    grouped: dict[int, dict[tuple[str, str], Tally]] = {}
    for (stage, arm, slice_), tally in tallies.items():
        grouped.setdefault(stage, {})[arm, slice_] = tally
    return [StageEvidence(stage, shares[stage - 1], found) for stage, found in sorted(grouped.items())]


def decisions(shares: Shares) -> dict[str, float]:
    """Return milliseconds of one decision: reading the sums, judging, writing the memory down."""
    held, texts = policy(), attempt(shares)
    reader, spent = Reader(), dict[str, float]()
    analysis, _ = look(Analysis.initial(), held, stages(reader.read(texts[0]), shares), START)

    def timed(name: str, begun: float) -> float:
        now = time.process_time()
        spent[name] = spent.get(name, 0.0) + 1e3 * (now - begun) / LOOKS
        return now

    for second, text in enumerate(texts[1:], start=1):
        begun = time.process_time()
        seen = stages(reader.read(text), shares)
        begun = timed("sums read", begun)
        analysis, _ = look(analysis, held, seen, START + REQUESTS // 20 + second)
        begun = timed("judged", begun)
        analysis.to_json()
        timed("memory written", begun)
    return spent


def requests() -> dict[str, float]:
    """Return microseconds a request in a worker, by how it is counted."""
    chance, base = np.random.default_rng(2), Endpoint("base", "base", ("http://127.0.0.1:1",))
    split = Split("m", 1, base, base, "r", 1, 1, "canary", 50.0)
    alone = [outcome(chance, Arm.CANDIDATE, START + number / 100) for number in range(5000)]
    sticky = [outcome(chance, Arm.CANDIDATE, START + n / 100, unit=int(chance.integers(1, 2**53))) for n in range(5000)]
    return {
        "arm drawn": _each(5000, lambda number: assign(split, f"user:{number}")),
        "counted, a request by itself": _recorded(alone),
        "counted, a new unit each": _recorded(sticky),
        "counted, a unit of a thousand requests": _recorded([sticky[number % 5] for number in range(5000)]),
    }


def _recorded(outcomes: list[Outcome]) -> float:
    ledger = Ledger()

    def record(number: int) -> None:
        ledger.assigned(1, Arm.CANDIDATE, "", outcomes[number].unit)
        ledger.record(outcomes[number])

    return _each(len(outcomes), record)


def _each(count: int, act: Callable[[int], object]) -> float:
    begun = time.process_time()
    for number in range(count):
        act(number)
    return 1e6 * (time.process_time() - begun) / count


def least(measure: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Return the smallest of some rounds, by name."""
    rounds = [measure() for _ in range(ROUNDS)]
    return {name: min(one[name] for one in rounds) for name in rounds[0]}


def page(ms: Mapping[int, Mapping[str, float]], us: Mapping[str, float], keys: int) -> str:
    """Return the results as a page."""
    made = (
        f"{datetime.now(UTC):%Y-%m-%d}. Made by `python -m bench.guardrails.price`: CPU time of one process on the "
        f"interpreted source, the smallest of {ROUNDS} rounds. A decision is over {len(SIGNALS)} guardrails on "
        f"{len(SLICES)} slices ({keys} in all), in stage 1 or 4 of an attempt, {4 * REQUESTS:,} requests a stage."
    )
    rows = [
        f"| a decision, stage {at}: {name} | {value:.1f} ms |" for at, one in ms.items() for name, value in one.items()
    ]
    rows += [f"| a request: {name} | {value:.2f} us |" for name, value in us.items()]
    return "\n".join(["# What evidence costs", "", made, "", "| what | cost |", "|---|---:|", *rows, ""])


def main() -> None:
    """Measure and write."""
    keys = len(policy().weights())
    text = page({len(one): least(partial(decisions, one)) for one in (SHARES[-1:], SHARES)}, least(requests), keys)
    _OUT.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
