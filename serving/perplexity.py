"""Held-out perplexity and next-token accuracy: what the adaptation gained, and what it forgot.

Every model scores the same passages, teacher-forced. An int8 checkpoint is scored as the engine computes it: weights
from their bytes and scales, activations rounded per token. Intervals are percentile bootstraps over documents, since
passages of one document are not independent; models are compared on the same resampled documents.
"""

from __future__ import annotations

import json
import math
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from serving.errors import ModelError
from serving.quantize import LARGEST, dequantize, read_config, read_tensors
from serving.recipe import DEMO
from serving.verdict import complaint, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from serving.recipe import Recipe

BATCH = 25
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a held-out document."""

    document: str
    text: str


@dataclass(frozen=True, slots=True)
class Sums:
    """Per document: summed negative log-likelihood in nats, right next tokens, tokens scored. Shape (documents,)."""

    loss: np.ndarray
    right: np.ndarray
    tokens: np.ndarray

    def perplexity(self, weights: np.ndarray) -> np.ndarray:
        """Return exp(mean loss per token) for each row of document weights, shape (resamples, documents)."""
        return np.asarray(np.exp(weights @ self.loss / (weights @ self.tokens)))

    def accuracy(self, weights: np.ndarray) -> np.ndarray:
        """Return the share of next tokens that were the model's first choice."""
        return np.asarray(weights @ self.right / (weights @ self.tokens))


def load_for_scoring(folder: Path) -> LlamaForCausalLM:
    """Load a checkpoint, bfloat16 or W8A8, in float32 arithmetic that imitates what the engine computes."""
    config = read_config(folder)
    quantized = config.pop("quantization_config", None) is not None
    model = LlamaForCausalLM(LlamaConfig(**config)).float()
    model.load_state_dict(dequantize(read_tensors(folder)), strict=False)
    model.tie_weights()
    if quantized:
        for name, layer in model.named_modules():
            if name.endswith("_proj"):
                layer.register_forward_pre_hook(lambda _, inputs: (round_per_token(inputs[0]),))
    return model.eval()


def round_per_token(activations: torch.Tensor) -> torch.Tensor:
    """Round the last axis to 255 symmetric steps of its own largest value, as int8 kernels do."""
    scales = activations.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / LARGEST
    return torch.round(activations / scales) * scales


def score(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, passages: Sequence[Passage]) -> Sums:
    """Score passages teacher-forced and add up by document, in the documents' sorted order."""
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3))
    for batch in _batches(passages):
        ids = tokenizer([p.text for p in batch], return_tensors="pt", padding=True, padding_side="right")
        target, mask = ids["input_ids"][:, 1:], ids["attention_mask"][:, 1:].bool()
        with torch.inference_mode():
            logits = model(ids["input_ids"], attention_mask=ids["attention_mask"]).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none") * mask
        right = (logits.argmax(-1) == target) & mask
        rows = torch.stack([losses.sum(1), right.sum(1), mask.sum(1)], dim=1).double().numpy()
        for passage, row in zip(batch, rows, strict=True):
            sums[passage.document] += row
    table = np.array([sums[document] for document in sorted(sums)])
    return Sums(*table.T)


def compare(scored: Mapping[str, Sums], against: str, seed: int) -> list[dict[str, Any]]:
    """Return a row per model: its figures, and what they are against the baseline's, with 95 % intervals."""
    base = scored[against]
    documents = len(base.loss)
    once = np.ones((1, documents))
    drawn = np.random.default_rng(seed).multinomial(documents, np.full(documents, 1 / documents), RESAMPLES)
    return [
        {
            "model": name,
            "documents": documents,
            "tokens": int(sums.tokens.sum()),
            "perplexity": _rounded(sums.perplexity(once)[0]),
            "ratio": _rounded(sums.perplexity(once)[0] / base.perplexity(once)[0]),
            "ratio_interval": _interval(sums.perplexity(drawn) / base.perplexity(drawn)),
            "accuracy": _rounded(sums.accuracy(once)[0]),
            "gain": _rounded(sums.accuracy(once)[0] - base.accuracy(once)[0]),
            "gain_interval": _interval(sums.accuracy(drawn) - base.accuracy(drawn)),
        }
        for name, sums in scored.items()
    ]


def passages_of(
    documents: Sequence[Mapping[str, str]], tokenizer: PreTrainedTokenizerFast, lengths: Sequence[int], seed: int
) -> list[Passage]:
    """Cut one passage per wished length (in tokens), each from the start of a paragraph, spread over the documents."""
    chance = np.random.default_rng(seed)
    starts = [(d, start) for d in documents for start in _paragraphs(d["text"])]
    passages: list[Passage] = []
    for index in chance.permutation(len(starts)):
        if len(passages) == len(lengths):
            break
        document, start = starts[index]
        wished = lengths[len(passages)]
        ids = tokenizer(document["text"][start : start + 12 * wished], add_special_tokens=False)["input_ids"]
        if len(ids) >= wished:
            passages.append(Passage(document["path"], tokenizer.decode(ids[:wished])))
    return passages


def write_held_out(text: Path, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, out: Path) -> None:
    """Write `evals/{slice}.jsonl` and `prompts.jsonl` from the held-out documents."""
    (out / "evals").mkdir(exist_ok=True)
    chance = np.random.default_rng(recipe.baseline.seed)
    prompts: list[dict[str, str]] = []
    for slice_ in ("domain", "general"):
        documents = [json.loads(line) for line in (text / f"{slice_}-test.jsonl").read_text().splitlines()]
        fixed = [recipe.passage_tokens] * recipe.passages
        passages = passages_of(documents, tokenizer, fixed, recipe.baseline.seed)
        _write_lines(out / "evals" / f"{slice_}.jsonl", [{"document": p.document, "text": p.text} for p in passages])
        low, high = recipe.prompt_tokens
        varied = chance.integers(low, high, recipe.prompts, endpoint=True).tolist()
        cut = passages_of(documents, tokenizer, varied, recipe.baseline.seed + 1)
        prompts += [{"slice": slice_, "prompt": p.text} for p in cut]
    _write_lines(out / "prompts.jsonl", [prompts[i] for i in chance.permutation(len(prompts))])


def evaluate(out: Path, recipe: Recipe) -> list[dict[str, Any]]:
    """Score the three models on both slices."""
    folders = {"baseline": "base", "candidate": "candidate", "candidate-w8a8": "candidate-w8a8"}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out / "base")
    loaded = {name: load_for_scoring(out / folder) for name, folder in folders.items()}
    rows: list[dict[str, Any]] = []
    for slice_ in ("domain", "general"):
        lines = (out / "evals" / f"{slice_}.jsonl").read_text().splitlines()
        passages = [Passage(**json.loads(line)) for line in lines]
        scored = {name: score(model, tokenizer, passages) for name, model in loaded.items()}
        rows += [{"slice": slice_, **row} for row in compare(scored, "baseline", recipe.baseline.seed)]
    return rows


def main(out: Path, text: Path) -> None:
    """Write the held-out sets and the table; complain in one line if the candidates are not what they should be."""
    write_held_out(text, PreTrainedTokenizerFast.from_pretrained(out / "base"), DEMO, out)
    rows = evaluate(out, DEMO)
    (out / "table.json").write_text(json.dumps(rows, indent=1))
    sys.stdout.write(table_of(rows) + "\n")
    if (wrong := complaint(rows, DEMO)) is not None:
        raise ModelError(wrong)


def _paragraphs(text: str) -> Iterator[int]:
    yield 0
    start = text.find("\n\n")
    while start >= 0:
        yield start + 2
        start = text.find("\n\n", start + 2)


def _batches(passages: Sequence[Passage]) -> Iterator[Sequence[Passage]]:
    return (passages[i : i + BATCH] for i in range(0, len(passages), BATCH))


def _interval(values: np.ndarray) -> list[float]:
    return [_rounded(edge) for edge in np.quantile(values, (0.025, 0.975))]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}") if math.isfinite(value) else value


def _write_lines(path: Path, values: Sequence[Mapping[str, str]]) -> None:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except ModelError as error:
        sys.exit(f"error: {error}")
