"""The offline evaluation: what the candidate gained in the domain, and what it lost in general.

Pure: passages and scores in, a report out. `canary.examine` asks the engines.

Each passage is teacher-forced through both engines, so the two scores of one passage are a pair, and the passages are
the sample. A slice's accuracy is the share of all its tokens that the engine ranked first; its perplexity is
exp(-mean log-probability). The interval of the difference is the percentile bootstrap over passages (Efron and
Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13), both arms resampled together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from canary.card.parts import METRIC, EvalGate
from canary.card.spec import Spec
from canary.core.arms import Endpoint
from canary.errors import Usage

RESAMPLES = 2_000
SEED = 20_261_122
MIN_PASSAGES = 10  # an interval from fewer is a guess


@dataclass(frozen=True, slots=True)
class PassageScore:
    """One passage through one engine: `tokens` scored, `right` of them ranked first, the sum of ln p."""

    tokens: int
    right: int
    logprob: float


@dataclass(frozen=True, slots=True)
class SliceScore:
    """One slice through one engine: the share of tokens ranked first, and exp(-mean ln p)."""

    accuracy: float
    perplexity: float


@dataclass(frozen=True, slots=True)
class SliceResult:
    """Both arms on one slice; `difference` is candidate minus baseline accuracy, with its 95 % interval."""

    baseline: SliceScore
    candidate: SliceScore
    difference: float
    low: float
    high: float
    passages: int


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the decision card demands, as differences of accuracy (0.03 = 3 points); None demands nothing."""

    min_gain: Mapping[str, float]  # by slice
    max_general_loss: float | None = None


@dataclass(frozen=True, slots=True)
class Demand:
    """What is to be evaluated: each slice's file, how many passages of it, and the thresholds."""

    files: Mapping[str, Path]
    passages: int
    thresholds: Thresholds


def demand(spec: Spec) -> Demand:
    """Read the demand off a spec. Raises Usage on a success metric that no evaluation file can answer."""
    files = {name: spec.resolve(file) for name, file in spec.decision.evaluation.items()}
    gains = {_slice_of(metric, files, spec.where): rule.min_gain for metric, rule in spec.decision.success.items()}
    gate = spec.gates.eval or EvalGate()
    return Demand(files, gate.passages, Thresholds(gains, gate.max_general_loss))


def _slice_of(metric: str, files: Mapping[str, Path], where: str) -> str:
    name = metric.removesuffix(METRIC)
    if name == metric or name not in files:
        known = ", ".join(f"{one}{METRIC}" for one in files)
        raise Usage(f"{where}: decision.success.{metric}: nothing here measures it; write one of {known}")
    return name


def read_passages(path: Path, count: int, seed: int = SEED) -> list[str]:
    """Draw `count` passages (all, if fewer) from a file of {"text": ...} lines: always the same ones for a seed."""
    texts = [_text(line, path, number) for number, line in enumerate(_lines(path), start=1) if line.strip()]
    if not texts:
        raise Usage(f"{path}: no passages in it; write one JSON object with a `text` per line")
    if len(texts) <= count:
        return texts
    chosen = np.random.default_rng(seed).choice(len(texts), size=count, replace=False)
    return [texts[index] for index in sorted(chosen)]


def _lines(path: Path) -> list[str]:
    try:
        return path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "not UTF-8 text"
        raise Usage(f"{path}: {what}; name a readable JSONL file in decision.evaluation") from error


def _text(line: str, path: Path, number: int) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str) or not text.strip():
        raise Usage(f'{path}:{number}: not a passage; each line is a JSON object such as {{"text": "..."}}')
    return text


def summarize(scores: Sequence[PassageScore]) -> SliceScore:
    """Pool the passages of one slice by token."""
    tokens = sum(score.tokens for score in scores)
    return SliceScore(
        accuracy=sum(score.right for score in scores) / tokens,
        perplexity=math.exp(min(700.0, -sum(score.logprob for score in scores) / tokens)),
    )


def interval(
    baseline: Sequence[PassageScore], candidate: Sequence[PassageScore], seed: int = SEED
) -> tuple[float, float]:
    """Return the paired 95 % percentile interval of the difference of accuracies, candidate minus baseline."""
    picks = np.random.default_rng(seed).integers(0, len(baseline), size=(RESAMPLES, len(baseline)))
    low, high = np.quantile(_accuracies(candidate, picks) - _accuracies(baseline, picks), (0.025, 0.975))
    return float(low), float(high)


def _accuracies(scores: Sequence[PassageScore], picks: NDArray[np.int64]) -> NDArray[np.float64]:
    right = np.array([score.right for score in scores], dtype=np.float64)
    tokens = np.array([score.tokens for score in scores], dtype=np.float64)
    ratios: NDArray[np.float64] = right[picks].sum(axis=1) / tokens[picks].sum(axis=1)
    return ratios


def compare(baseline: Sequence[PassageScore], candidate: Sequence[PassageScore]) -> SliceResult:
    """Compare both arms on one slice; the sequences are parallel: element i of each is the same passage."""
    first, second = summarize(baseline), summarize(candidate)
    low, high = interval(baseline, candidate)
    return SliceResult(first, second, second.accuracy - first.accuracy, low, high, len(baseline))


def same_tokens(baseline: Sequence[PassageScore], candidate: Sequence[PassageScore]) -> bool:
    """Tell whether both engines cut every passage into as many tokens: else their accuracies do not compare."""
    return [score.tokens for score in baseline] == [score.tokens for score in candidate]


def judge(slices: Mapping[str, SliceResult], thresholds: Thresholds, *, comparable: bool) -> tuple[str, list[str]]:
    """Return pass, fail or invalid, with a sentence for each threshold.

    A gain passes when its estimate reaches min_gain and its interval lies above 0: reached, and proved to be a gain
    at all; a min_gain of 0 or less when the interval's lower end reaches it. A loss passes when the interval's lower
    end is no worse than -max_general_loss: the burden of proof is on the candidate.
    """
    if not comparable:
        return "invalid", ["the engines tokenize differently, so next-token accuracies do not compare"]
    if few := [name for name, result in slices.items() if result.passages < MIN_PASSAGES]:
        return "invalid", [f"{', '.join(few)}: fewer than {MIN_PASSAGES} passages; give more evidence"]
    checks = [gained(name, slices.get(name), gain) for name, gain in thresholds.min_gain.items()]
    if thresholds.max_general_loss is not None:
        checks.append(_loss(slices.get("general"), thresholds.max_general_loss))
    return ("pass" if all(met for met, _ in checks) else "fail"), [sentence for _, sentence in checks]


def gained(name: str, result: SliceResult | None, min_gain: float) -> tuple[bool, str]:
    """Tell whether a slice gained what is asked for, and say so with its numbers.

    A gain is proved above 0; where none is asked for (0 or less), that it is no worse than that is.
    """
    if result is None:
        return _absent(name)
    reached = result.difference >= min_gain
    met = reached and (result.low > 0 if min_gain > 0 else result.low >= min_gain)
    word = "reaches" if met else (f"is not proved {'above 0 for' if min_gain > 0 else 'for'}" if reached else "misses")
    return met, f"{name}: {_numbers(result)} {word} the gain of {min_gain:+.4f}"


def _loss(result: SliceResult | None, max_loss: float) -> tuple[bool, str]:
    if result is None:
        return _absent("general")
    met = result.low >= -max_loss
    word = "is proved within" if met else "may exceed"
    return met, f"general: {_numbers(result)} {word} the loss of {max_loss:.4f} allowed"


def _absent(name: str) -> tuple[bool, str]:
    return False, f"{name}: not evaluated; add decision.evaluation.{name}"


def _numbers(result: SliceResult) -> str:
    return (
        f"accuracy {result.difference:+.4f} (95 % {result.low:+.4f} to {result.high:+.4f}, {result.passages} passages)"
    )


def report(
    model: str,
    arms: tuple[Endpoint, Endpoint],
    created_ms: int,
    scores: Mapping[str, tuple[Sequence[PassageScore], Sequence[PassageScore]]],
    thresholds: Thresholds,
) -> dict[str, Any]:
    """Write the evaluation report (JSON) from the arms, and each slice's scores: (baseline, candidate) both."""
    baseline, candidate = arms
    slices = {name: compare(*pair) for name, pair in scores.items()}
    comparable = all(same_tokens(*pair) for pair in scores.values())
    verdict, reasons = judge(slices, thresholds, comparable=comparable)
    return {
        "kind": "eval",
        "model": model,
        "digest": candidate.digest,
        "baseline_digest": baseline.digest,
        "created_ms": created_ms,
        "passages": sum(result.passages for result in slices.values()),
        "slices": {name: asdict(result) for name, result in slices.items()},
        "thresholds": {"min_gain": dict(thresholds.min_gain), "max_general_loss": thresholds.max_general_loss},
        "method": {"metric": "next-token accuracy, teacher-forced", "resamples": RESAMPLES, "seed": SEED},
        "verdict": verdict,
        "reasons": reasons,
    }
