"""What is asked of every gateway, as a table (pure)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

_LINE = "Please explain, step by step, how a canary release limits the damage that a bad candidate can do. "
_KIB = 1024
USER = "user-00000000"  # the generators put the number of the user, or of the request, where the zeros are


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of traffic: `lines` connections in a closed loop for `seconds`.

    `prompt` and `reply` are bytes; `first_us` and `gap_us` microseconds to the first token and between tokens, 0 and 0
    for as fast as it goes. `users` take turns in whole answers; each stream is a user of its own. What is open after
    `seconds` may end within the grace.
    """

    lines: int
    seconds: float
    streamed: bool = False
    prompt: int = _KIB
    reply: int = 600
    tokens: int = 128
    first_us: int = 0
    gap_us: int = 0
    ramp_ms: int = 0
    warm_ms: int = 0
    users: int = 256
    step: bool = False
    grace_s: int = 20

    @property
    def paced(self) -> bool:
        """Whether the engine's pace, not the machine's, says how fast it goes."""
        return self.gap_us > 0


_STREAMS = Scenario(100, 5, streamed=True, first_us=20_000, gap_us=20_000, ramp_ms=2560, warm_ms=1000)

SCENARIOS: dict[str, Scenario] = {
    "S1c1": Scenario(1, 3),
    "S1c16": Scenario(16, 3),
    "S1c64": Scenario(64, 3),
    "S2c10": replace(_STREAMS, lines=10, seconds=3, warm_ms=500),
    "S2": _STREAMS,
    "S2step": replace(_STREAMS, step=True),
    "S3": Scenario(64, 3, streamed=True, tokens=512, warm_ms=300),
    "S4": Scenario(16, 3, prompt=100 * _KIB, users=40),
}
USUAL = ("S1c1", "S1c16", "S1c64", "S2c10", "S2", "S3", "S4")
WARMING = (Scenario(64, 1), Scenario(64, 1, streamed=True, tokens=32))


def body(scenario: Scenario, model: str) -> bytes:
    """Return the request's body."""
    text = (_LINE * (scenario.prompt // len(_LINE) + 1))[: scenario.prompt]
    asked = {
        "model": model,
        "messages": [{"role": "system", "content": "You are brief."}, {"role": "user", "content": text}],
        "temperature": 0.7,
        "max_tokens": scenario.tokens,
        "user": USER,
    }
    if scenario.streamed:
        asked |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(asked, separators=(",", ":")).encode()
