"""What an arm serves when it is kept busy, from the records of its saturation run (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loadtest.fit import price
from loadtest.records import Record, Saturation, Trace
from serving.cost import bill_usd_per_million_tokens


@dataclass(frozen=True, slots=True)
class Capacity:
    """The part of a saturation run that counts: what ended within `seconds`, from the ramp's end to the run's.

    The ramp is each user's first request; it ends when the last of them has. An answer under way at the ramp's end
    counts in full and one under way at the run's end not at all: in a steady state the two make up for each other.
    """

    asked: Saturation
    seconds: float
    ended: tuple[Record, ...]
    cpu_share: float

    @property
    def good(self) -> tuple[Record, ...]:
        """The good answers among those that ended."""
        return tuple(record for record in self.ended if record.ok)

    def figures(self) -> dict[str, Any]:
        """Plain values for JSON (see loadtest.report.FORMULAS)."""
        good = self.good
        prompt, completion = (sum(getattr(record, name) for record in good) for name in ("prompt_tokens", "tokens"))
        return {
            "in_flight": self.asked.in_flight,
            "seconds": round(self.seconds, 3),
            "requests": len(self.ended),
            "failed": len(self.ended) - len(good),
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "tokens_per_s": self._a_second(prompt + completion),
            "completion_tokens_per_s": self._a_second(completion),
            "requests_per_s": self._a_second(len(good)),
            "cpu_share": round(self.cpu_share, 4),
        }

    def cost(self, usd_per_hour: float, rates: tuple[float, float] | None = None) -> dict[str, Any]:
        """Return the bill of a million completion tokens and the price; null where nothing good ended.

        The price is fitted to the hours' bill, or given by `rates`: USD a million prompt and completion tokens.
        """
        good, tokens = self.good, sum(record.tokens for record in self.good)
        if rates is not None:
            prompts = sum(record.prompt_tokens for record in good)
            bill = rates[0] * prompts / tokens + rates[1] if tokens else None
            return {"usd_per_million_tokens": bill, "price": [0.0, rates[0] / 1e6, rates[1] / 1e6]}
        fitted = price(good, usd_per_hour, self.seconds)
        return {
            "usd_per_million_tokens": bill_usd_per_million_tokens(usd_per_hour, tokens, self.seconds)
            if tokens
            else None,
            "price": None if fitted is None else list(fitted.to_tuple()),
        }

    def _a_second(self, amount: int) -> float:
        return round(amount / self.seconds, 4) if self.seconds else 0.0


def capacity(asked: Saturation, trace: Trace) -> Capacity:
    """Cut the ramp off a saturation run, and what ended after it."""
    records = sorted(trace.records, key=lambda record: record.at)
    ramp, steady = records[: asked.in_flight], records[asked.in_flight :]
    begin = min(max(map(_end, ramp), default=asked.duration), asked.duration)
    ended = tuple(record for record in steady if begin < _end(record) <= asked.duration)
    return Capacity(asked, asked.duration - begin, ended, trace.client.cpu_share)


def _end(record: Record) -> float:
    return record.at + (record.e2e_ms or 0.0) / 1000
