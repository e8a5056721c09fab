"""Access logs for the tests, line by line as the gateway writes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gateway.record.log import Entry, line

ENTRY = Entry(
    unix_ms=1_800_000_001_000,
    request_id="r",
    model="m",
    path="/v1/chat/completions",
    status=200,
    result="ok",
    e2e_ms=1_000.0,
    arm="baseline",
    stream=True,
    ttft_ms=100.0,
    prompt_tokens=50,
    completion_tokens=10,
    cost_usd=1e-4,
    finish_reason="stop",
)


def entries(count: int, seed: int = 1, *, gap: float = 0.1, slices: tuple[str, ...] = ("",)) -> list[Entry]:
    """Return requests of a baseline, so many seconds apart on average; one in fifty fails."""
    chance = np.random.default_rng(seed)
    at = np.cumsum(chance.exponential(gap, count))
    ttft, tpot = 100 * np.exp(0.5 * chance.standard_normal(count)), 20 * np.exp(0.2 * chance.standard_normal(count))
    tokens = chance.integers(20, 100, count)
    found = []
    for i in range(count):
        failed = bool(chance.random() < 0.02)
        e2e = float(ttft[i] + (tokens[i] - 1) * tpot[i])
        entry = replace(
            ENTRY,
            unix_ms=int(1_800_000_000_000 + 1000 * at[i] + e2e),
            e2e_ms=e2e,
            slice=slices[i % len(slices)],
            ttft_ms=None if failed else float(ttft[i]),
            completion_tokens=0 if failed else int(tokens[i]),
            cost_usd=None if failed else 1e-4 * float(np.exp(0.5 * chance.standard_normal())),
            finish_reason="" if failed else "stop",
            result="error" if failed else "ok",
        )
        found.append(entry)
    return found


def lines(of: list[Entry]) -> list[bytes]:
    """Return them as an access log has them."""
    return [line(entry) for entry in of]
