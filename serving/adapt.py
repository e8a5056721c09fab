"""Make a small model, and adapt one to a domain by continued pre-training.

Two runs, each a command of this module under the engines' python: `baseline` trains a tokenizer and a small Llama on
general text; `candidate` goes on from a checkpoint with domain text, some general text mixed in against forgetting.
Both are seeded and read every text in a seeded order.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from serving.errors import ModelError
from serving.recipe import CHAT_TEMPLATE, DEMO, END_OF_TEXT, Training

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serving.recipe import Recipe, Shape

TOKENIZER_CHARACTERS = 6_000_000
"""Enough text to learn 4,096 byte pairs from."""

REPORT_EVERY = 50


@dataclass(frozen=True, slots=True)
class Trained:
    """What one run reports of itself: losses are natural-log cross-entropies per token."""

    training: dict[str, Any]
    precision: str
    tokens: int
    first_loss: float
    last_loss: float
    seconds: float
    cpu_seconds: float
    parameters: int


def read_texts(path: Path) -> list[str]:
    """Read the `text` of every line of a JSONL file."""
    try:
        return [json.loads(line)["text"] for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ModelError(f'{path} is not JSON lines with a "text" each, such as {{"text": "..."}}') from None


def train_tokenizer(texts: Sequence[str], shape: Shape) -> PreTrainedTokenizerFast:
    """Learn a byte-level BPE; every text it encodes starts with the end-of-text token, as a document does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=shape.vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_up_to(texts, TOKENIZER_CHARACTERS), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A", special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
    )
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=shape.positions, **special)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_model(shape: Shape, seed: int) -> LlamaForCausalLM:
    """Return an untrained Llama; token 0 is end-of-text."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def tokens_of(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], seed: int) -> torch.Tensor:
    """Encode documents in a seeded order into one long row of token ids."""
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(seed)).tolist()
    encoded = tokenizer.backend_tokenizer.encode_batch([texts[i] for i in order])
    return torch.tensor([token for one in encoded for token in one.ids], dtype=torch.long)


def windows(tokens: torch.Tensor, length: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield windows of `length + 1` tokens for ever: each pass has its own order and its own offset."""
    if len(tokens) < 2 * length:
        raise ModelError(f"too little text: {len(tokens)} tokens, at least {2 * length} needed; add some")
    chance = torch.Generator().manual_seed(seed)
    while True:
        offset = int(torch.randint(length, (1,), generator=chance))
        count = (len(tokens) - 1 - offset) // length
        for index in torch.randperm(count, generator=chance).tolist():
            start = offset + index * length
            yield tokens[start : start + length + 1]


def mixed(general: Iterator[torch.Tensor], domain: Iterator[torch.Tensor], share: float) -> Iterator[torch.Tensor]:
    """Interleave two streams so that after n rows, n x share of them, rounded down, are general."""
    row = 0
    while True:
        yield next(general if math.floor((row + 1) * share) > math.floor(row * share) else domain)
        row += 1


def rate_share(step: int, training: Training) -> float:
    """Return the share of the full rate a step takes: warm-up, plateau, then a straight fall to a twentieth."""
    warm = min(1.0, (step + 1) / max(1, training.warmup))
    fallen = max(0.0, step / training.steps - 0.3) / 0.7
    return warm * (1 - 0.95 * fallen)


def optimizers(model: LlamaForCausalLM, training: Training) -> list[torch.optim.Optimizer]:
    """Return Muon for the layers' matrices and AdamW for the rest (https://kellerjordan.github.io/posts/muon/)."""
    matrices = [p for name, p in model.named_parameters() if p.dim() > 1 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.dim() <= 1 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=training.matrix_rate, weight_decay=0.1),
        torch.optim.AdamW(rest, lr=training.other_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def train(model: LlamaForCausalLM, rows: Iterator[torch.Tensor], training: Training, name: str) -> Trained:
    """Train in place, saying every few steps how it goes."""
    torch.manual_seed(training.seed)
    tools = optimizers(model, training)
    full = [tool.param_groups[0]["lr"] for tool in tools]
    started, cpu, losses = time.monotonic(), time.process_time(), []
    model.train()
    for step in range(training.steps):
        for tool, rate in zip(tools, full, strict=True):
            tool.param_groups[0]["lr"] = rate * rate_share(step, training)
        losses.append(_step(model, tools, [next(rows) for _ in range(training.rows)]))
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == training.steps:
            _report(name, step + 1, training, losses, time.monotonic() - started)
    return Trained(
        training=asdict(training),
        precision="bfloat16" if fast_bfloat16() else "float32",
        tokens=training.tokens,
        first_loss=round(losses[0], 4),
        last_loss=round(_mean(losses[-REPORT_EVERY:]), 4),
        seconds=round(time.monotonic() - started, 1),
        cpu_seconds=round(time.process_time() - cpu, 1),
        parameters=sum(p.numel() for p in model.parameters()),
    )


def fast_bfloat16() -> bool:
    """Say whether this processor multiplies bfloat16 matrices itself: about twice as fast then, and as good."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a bfloat16 checkpoint that vLLM serves as it is."""
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Read a checkpoint for training, in float32."""
    if not (folder / "config.json").exists():
        raise ModelError(f"no model in {folder}: config.json is missing; give the folder of a checkpoint")
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, PreTrainedTokenizerFast.from_pretrained(folder)


def make_baseline(recipe: Recipe, general: Path, out: Path) -> Trained:
    """Train the tokenizer and the baseline on general text."""
    training, texts = recipe.baseline, read_texts(general)
    tokenizer = train_tokenizer(texts, recipe.shape)
    model = new_model(recipe.shape, training.seed)
    rows = windows(tokens_of(tokenizer, texts, training.seed), training.length, training.seed)
    trained = train(model, rows, training, "baseline")
    save(model, tokenizer, out)
    return trained


def make_candidate(base: Path, domain: Path, general: Path, out: Path, *, training: Training, share: float) -> Trained:
    """Go on from a checkpoint with domain text, `share` of the rows being general."""
    model, tokenizer = load(base)
    seed, length = training.seed, training.length
    streams = [windows(tokens_of(tokenizer, read_texts(path), seed), length, seed) for path in (general, domain)]
    rows = mixed(general=streams[0], domain=streams[1], share=share)
    trained = train(model, rows, training, "candidate")
    save(model, tokenizer, out)
    return trained


def _step(model: LlamaForCausalLM, tools: list[torch.optim.Optimizer], rows: list[torch.Tensor]) -> float:
    batch = torch.stack(rows)
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16()):
        logits = model(batch[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
    for tool in tools:
        tool.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for tool in tools:
        tool.step()
    return float(loss.detach())


def _report(name: str, step: int, training: Training, losses: list[float], seconds: float) -> None:
    speed = step * training.rows * training.length / seconds
    loss = _mean(losses[-REPORT_EVERY:])
    sys.stdout.write(f"{name}: step {step}/{training.steps}, loss {loss:.3f}, {speed:,.0f} token/s\n")
    sys.stdout.flush()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _up_to(texts: Sequence[str], characters: int) -> Iterator[str]:
    for text in texts:
        if characters <= 0:
            return
        characters -= len(text)
        yield text


def main(job: dict[str, Any]) -> None:
    """Run one job, given as JSON: a baseline if it names no base, else a candidate."""
    logging.disable_progress_bar()
    out = Path(job["out"])
    if "base" in job:
        base, domain, general = (Path(job[name]) for name in ("base", "domain", "general"))
        training = Training(**job["training"])
        trained = make_candidate(base, domain, general, out, training=training, share=job["general_share"])
    else:
        trained = make_baseline(DEMO, Path(job["general"]), out)
    (out / "training.json").write_text(json.dumps(asdict(trained), indent=1))


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except ModelError as error:
        sys.exit(f"error: {error}")
