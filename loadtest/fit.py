"""From the records of a run to its price (pure)."""

from __future__ import annotations

from collections.abc import Iterable

from loadtest.records import Record
from serving.cost import CostError, Price
from serving.fit import Sample, fit


def price(records: Iterable[Record], usd_per_hour: float, seconds: float) -> Price | None:
    """Fit the price of the good answers of a run (see serving.fit); None where nothing can be fitted.

    Lateness of the client is not the engine's work, so the time charged starts when the request was sent. `seconds` is
    the time the records ended in.
    """
    samples = [
        Sample(record.prompt_tokens, record.tokens, max(record.e2e_ms - record.lag_ms, 0.0) / 1000)
        for record in records
        if record.ok and record.e2e_ms is not None
    ]
    try:
        return fit(samples, usd_per_hour, seconds)
    except CostError:
        return None
