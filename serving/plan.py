"""How much memory an engine needs: weights from their file headers, KV cache from the model's shape (pure)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from serving.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BLOCK_TOKENS = 128
"""Tokens in one block of vLLM's KV cache on CPU."""

HEADER_LENGTH_BYTES = 8
BYTES_OF = {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes an engine holds for good, and the tokens its KV cache has room for."""

    weights_bytes: int
    kv_cache_bytes: int
    kv_bytes_per_token: int
    kv_tokens: int

    @property
    def total_bytes(self) -> int:
        """Weights and KV cache; activations and the runtime itself come on top."""
        return self.weights_bytes + self.kv_cache_bytes

    def sequences(self, length: int) -> int:
        """Return how many sequences of `length` tokens fit at once, each rounded up to whole blocks."""
        return self.kv_tokens // (blocks(length) * BLOCK_TOKENS)


def blocks(tokens: int) -> int:
    """Return the KV blocks that a sequence of `tokens` occupies."""
    return -(-tokens // BLOCK_TOKENS)


def header_length(first_bytes: bytes) -> int:
    """Return how many bytes of JSON follow the first eight of a safetensors file (little-endian)."""
    if len(first_bytes) < HEADER_LENGTH_BYTES:
        raise ModelError("a weights file is cut short; copy or make the model again")
    return int.from_bytes(first_bytes[:HEADER_LENGTH_BYTES], "little")


def weights_bytes(headers: Iterable[bytes]) -> int:
    """Add up the tensors that safetensors headers (their JSON) describe; exact."""
    tensors = chain.from_iterable(_tensors(json.loads(header)) for header in headers)
    return sum(end - start for start, end in tensors)


def kv_bytes_per_token(config: Mapping[str, Any], dtype: str = "bfloat16", ranks: int = 1) -> int:
    """Return layers x KV heads of a rank x (key + value) x bytes, from a config.json."""
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return int(config["num_hidden_layers"] * max(1, heads // ranks) * 2 * head_dim * BYTES_OF[dtype])


def memory_plan(config: Mapping[str, Any], weights: int, kv_cache_bytes: int, dtype: str = "bfloat16") -> MemoryPlan:
    """Plan one engine; the KV cache holds whole blocks only."""
    per_token = kv_bytes_per_token(config, dtype)
    whole_blocks = kv_cache_bytes // (per_token * BLOCK_TOKENS)
    return MemoryPlan(weights, kv_cache_bytes, per_token, whole_blocks * BLOCK_TOKENS)


def _tensors(header: Mapping[str, Any]) -> Iterable[tuple[int, int]]:
    return (tuple(entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__")
