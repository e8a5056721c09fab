"""The memory plan follows from file headers and the model's shape."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import plan
from serving.errors import ModelError

TINY = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 256, "head_dim": 64}


def header(**sizes: int) -> bytes:
    """A safetensors header with tensors of these many bytes, one after another."""
    entries, start = {"__metadata__": {"format": "pt"}}, 0
    for name, size in sizes.items():
        entries[name] = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [start, start + size]}
        start += size
    return json.dumps(entries).encode()


def test_weights_are_what_the_headers_describe():
    """Every file counts, the metadata does not."""
    assert plan.weights_bytes([header(a=1024, b=512), header(c=64)]) == 1600


def test_the_header_length_is_read_from_the_first_eight_bytes():
    """Little-endian, as the format says."""
    assert plan.header_length((300).to_bytes(8, "little") + b"rest") == 300


def test_a_weights_file_cut_short_is_an_error_with_a_mend():
    """Fewer than eight bytes are no header."""
    with pytest.raises(ModelError, match="cut short; copy or make the model again"):
        plan.header_length(b"\x01\x02")


@pytest.mark.parametrize(
    ("config", "dtype", "ranks", "expected"),
    [
        (TINY, "bfloat16", 1, 2 * 2 * 2 * 64 * 2),
        (TINY, "fp8", 1, 2 * 2 * 2 * 64),
        (TINY, "bfloat16", 2, 2 * 1 * 2 * 64 * 2),
        (
            {"num_hidden_layers": 32, "num_attention_heads": 32, "hidden_size": 4096},
            "float16",
            1,
            32 * 32 * 2 * 128 * 2,
        ),
    ],
)
def test_a_token_takes_keys_and_values_of_every_layer(config, dtype, ranks, expected):
    """Grouped heads, ranks and dtypes count; without KV heads and head_dim the plain attention's are taken."""
    assert plan.kv_bytes_per_token(config, dtype, ranks) == expected


def test_the_cache_holds_whole_blocks_only():
    """Half a block is of no use."""
    a_block = 1024 * plan.BLOCK_TOKENS
    made = plan.memory_plan(TINY, weights=5_000, kv_cache_bytes=3 * a_block + a_block // 2)
    assert made.kv_tokens == 3 * plan.BLOCK_TOKENS
    assert made.total_bytes == 5_000 + 3 * a_block + a_block // 2


@given(length=st.integers(1, 5000), cache=st.integers(0, 1 << 30))
def test_planned_sequences_fit_and_one_more_would_not(length, cache):
    """The law of the plan: n sequences of this length fit in whole blocks, n + 1 do not."""
    made = plan.memory_plan(TINY, weights=0, kv_cache_bytes=cache)
    fits = made.sequences(length)
    needed = plan.blocks(length) * plan.BLOCK_TOKENS
    assert fits * needed <= made.kv_tokens < (fits + 1) * needed
    assert made.kv_tokens * made.kv_bytes_per_token <= cache
