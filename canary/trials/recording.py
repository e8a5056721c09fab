"""Recorded traffic: one model's baseline as the gateway's access log tells it, to be drawn from again.

A log has no sessions, no texts and no waits within an answer, and does not say who was forced to an arm.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canary.core.arms import Arm
from canary.core.outcome import Result
from canary.traffic import LEAST

RESULTS = (Result.OK, Result.ERROR, Result.TIMEOUT)  # those that are evidence
AROUND_S = 30.0  # an answer is drawn from the requests so many seconds before and after
OTHERS = "of other models"
TOKENIZER = frozenset({"/tokenize", "/detokenize"})  # which is not the model
REQUEST = np.dtype(
    [
        ("at", "f8"),  # when it arrived, in seconds since the first
        ("result", "i1"),
        ("slice", "i4"),
        ("reason", "i4"),
        ("prompt", "i4"),
        ("completion", "i4"),
        ("e2e", "f4"),
        ("ttft", "f4"),  # seconds, like tpot; NaN: none
        ("tpot", "f4"),
        ("cost", "f4"),
    ]
)
_MOST = {"unix_ms": 1e14, "e2e_ms": 1e9, "ttft_ms": 1e9, "prompt_tokens": 2**31 - 1, "completion_tokens": 2**31 - 1}
_COST_MOST = 1e6  # USD
_CODES = {result.value: code for code, result in enumerate(RESULTS)}
_OTHERS = frozenset({*Result, "refused"}) - set(_CODES)
_OK = 0  # the code of Result.OK

Floats = NDArray[np.float64]
Requests = NDArray[np.void]  # of REQUEST


class RecordingError(ValueError):
    """A log that says too little; the message is what and the mend."""


@dataclass(frozen=True, slots=True)
class Usual:
    """How the baseline is without harm: rates in 0..1, quantiles in seconds; `lacks` what it has no figure of."""

    error: float
    empty: float
    truncated: float
    ttft_p95: float
    ttft_p99: float
    tpot_p95: float
    lacks: frozenset[str] = frozenset()  # of ttft, tpot, cost


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """The requests in order of arrival, and the seconds after which they begin again.

    `left` tells what was left out of the log, and why: a word to a number of lines.
    """

    requests: Requests
    seconds: float
    slices: tuple[str, ...]
    reasons: tuple[str, ...]
    usual: Usual
    left: Mapping[str, int]

    @property
    def rate(self) -> float:
        """Requests a second, on average."""
        return len(self.requests) / self.seconds

    def count(self, word: str) -> int:
        """Return how many have a figure: `ttft`, `tpot` or `cost`."""
        return int(np.count_nonzero(~np.isnan(self.requests[word])))

    def parts(self) -> dict[str, float]:
        """Return each slice's part in 0..1."""
        counts = np.bincount(self.requests["slice"], minlength=len(self.slices)) / len(self.requests)
        return dict(zip(self.slices, counts.tolist(), strict=True))

    def arrivals(self, begin: float, end: float) -> Floats:
        """Return when requests come from `begin` until before `end`, in seconds of a log that is told in a circle."""
        at, found = self.requests["at"], []
        for lap in range(math.floor(begin / self.seconds), math.floor(end / self.seconds) + 1):
            told = lap * self.seconds
            first, last = np.searchsorted(at, (begin - told, end - told))
            found.append(at[first:last] + told)
        return np.concatenate(found)

    def near(self, times: Floats, luck: Floats) -> Requests:
        """Return for each time a request from around the same minute of the log, by a number in 0..1."""
        at, then = self.requests["at"], times % self.seconds
        low = np.searchsorted(at, then - AROUND_S)
        room = np.searchsorted(at, then + AROUND_S, side="right") - low
        found: Requests = self.requests[low + (luck * room).astype(np.int64)]
        return found


def usual_of(requests: Requests, reasons: Sequence[str]) -> Usual:
    """Return how requests are as a whole."""
    ok = requests[requests["result"] == _OK]
    cut = ok["reason"] == reasons.index("length") if "length" in reasons else np.zeros(len(ok), bool)
    return Usual(
        1 - len(ok) / len(requests),
        float(np.count_nonzero(ok["completion"] == 0) / max(1, len(ok))),
        float(np.count_nonzero(cut) / max(1, len(ok))),
        _quantile(ok["ttft"], 0.95),
        _quantile(ok["ttft"], 0.99),
        _quantile(ok["tpot"], 0.95),
        frozenset(word for word in ("ttft", "tpot", "cost") if np.isnan(ok[word]).all()),
    )


def _quantile(values: Floats, q: float) -> float:
    known = values[~np.isnan(values)]
    return float(np.quantile(known, q)) if len(known) else math.nan


def read(lines: Iterable[str | bytes], model: str) -> Recording:
    """Read an access log's lines: of the model's requests those that the baseline had by chance, as evidence.

    Lines that are damaged are counted. Raises RecordingError below 100 requests.
    """
    left: Counter[str] = Counter()
    slices: dict[str, int] = {}
    reasons: dict[str, int] = {}
    found = np.fromiter(_rows(lines, model, left, slices, reasons), REQUEST)
    if len(found) < LEAST:
        told = ", ".join(f"{count} {why}" for why, count in left.items())
        counted = f"{len(found)} requests of {model} that count as evidence of a baseline{f' ({told})' if told else ''}"
        mend = "name one of them with --model" if left[OTHERS] >= LEAST else "log for longer, or say --rps"
        raise RecordingError(f"{counted}; {LEAST} are needed: {mend}")
    found.sort(order="at")
    found["at"] -= found["at"][0]
    span = float(found["at"][-1]) * len(found) / (len(found) - 1)
    usual = usual_of(found, tuple(reasons))
    return Recording(found, max(1.0, span), tuple(slices), tuple(reasons), usual, dict(left.most_common()))


def _rows(
    lines: Iterable[str | bytes], model: str, left: Counter[str], slices: dict[str, int], reasons: dict[str, int]
) -> Iterator[tuple[float, ...]]:
    """Yield the requests that count, their slices and finish reasons numbered; say of each other why it is left."""
    for line in lines:
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            why = _why_not(entry, model)
            if not why:
                yield _row(entry, slices, reasons)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            why = "damaged"
        if why:
            left[why] += 1


def _why_not(entry: Mapping[str, Any], model: str) -> str:
    """Say why a request does not count, "" if it does."""
    if entry["result"] not in _CODES and entry["result"] not in _OTHERS:
        raise ValueError(entry["result"])
    if not isinstance(entry["model"], str):
        raise TypeError(entry["model"])
    if entry["model"] != model:
        return OTHERS
    if entry["arm"] == Arm.CANDIDATE:
        return "of the candidate"
    if entry["result"] not in _CODES:
        return entry["result"].replace("_", " ")  # type: ignore[no-any-return]
    if entry.get("failed_over"):
        return "answered in the candidate's place"
    return "to the tokenizer" if entry.get("path") in TOKENIZER else ""


def _row(entry: Mapping[str, Any], slices: dict[str, int], reasons: dict[str, int]) -> tuple[float, ...]:
    """Return one request as REQUEST has it. Raises ValueError or TypeError on a figure that no request has."""
    unix, e2e = (_figure(entry[word], _MOST[word]) / 1000 for word in ("unix_ms", "e2e_ms"))
    prompt, completion = (int(_figure(entry[f"{word}_tokens"], 2**31 - 1)) for word in ("prompt", "completion"))
    ttft = math.nan if entry["ttft_ms"] is None else _figure(entry["ttft_ms"], 1000 * e2e) / 1000
    cost = math.nan if entry["cost_usd"] is None else _figure(entry["cost_usd"], _COST_MOST)
    tpot = (e2e - ttft) / (completion - 1) if completion > 1 else math.nan
    part, reason = (_numbered(entry[word], of) for word, of in (("slice", slices), ("finish_reason", reasons)))
    return unix - e2e, _CODES[entry["result"]], part, reason, prompt, completion, e2e, ttft, tpot, cost


def _figure(value: Any, most: float) -> float:
    if isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(value)
    return float(value)


def _numbered(word: Any, among: dict[str, int]) -> int:
    if not isinstance(word, str):
        raise TypeError(word)
    return among.setdefault(word, len(among))
