"""What the demo's models are made of: every number of the recipe in one frozen value (pure)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field

END_OF_TEXT = "<|endoftext|>"
"""The one special token: it starts every document and every prompt, and ends every answer."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
    "{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""A chat is a text to be continued: the contents of its messages, a blank line between."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A small Llama. Sizes in multiples of 128 suit the int8 kernels; the input embedding is the output layer too."""

    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    feed_forward: int = 768
    positions: int = 1024


@dataclass(frozen=True, slots=True)
class Training:
    """One run: `steps` batches of `rows` sequences of `length` tokens.

    Both rates are warmed up, stay, and fall linearly to a twentieth over the last 70 %. Small batches and Muon on the
    matrices more than halve the steps that a loss takes: measured at 0.4 M tokens, 4.69 against 6.02 for plain AdamW.
    """

    steps: int
    matrix_rate: float
    """Muon's rate, for the layers' matrices."""
    other_rate: float
    """AdamW's rate, for the embedding and the norms."""
    rows: int = 8
    length: int = 256
    warmup: int = 40
    seed: int = 7

    @property
    def tokens(self) -> int:
        """Tokens read in all."""
        return self.steps * self.rows * self.length


@dataclass(frozen=True, slots=True)
class Recipe:
    """The whole of it. `general_share` of the candidate's rows are general text, against forgetting."""

    version: int = 1
    shape: Shape = field(default_factory=Shape)
    baseline: Training = field(default_factory=lambda: Training(steps=1000, matrix_rate=0.02, other_rate=1e-2))
    candidate: Training = field(
        default_factory=lambda: Training(steps=220, matrix_rate=0.004, other_rate=1.5e-3, warmup=10, seed=8)
    )
    general_share: float = 0.7
    passages: int = 300
    passage_tokens: int = 192
    prompts: int = 400
    prompt_tokens: tuple[int, int] = (40, 160)
    general_margin: float = 1.02
    """The candidate's held-out general perplexity may be at most this many times the baseline's."""
    domain_gain: float = 0.9
    """The candidate's held-out domain perplexity must be at most this many times the baseline's."""

    def digest(self) -> str:
        """Return a hex digest that changes with any number above."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


DEMO = Recipe()
