"""The simulated engine's tokens and words: the same in every process, so that two engines can be compared (pure).

A token is four bytes of UTF-8 (fewer at the end), and its id spells them, so any text can be taken apart and put
together again without a vocabulary. Words have three letters and a space: one token each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

_BYTES_A_TOKEN = 4
_SHORTEST, _LONGEST = 16, 64  # words of an answer that nobody cut off
_WORDS = tuple(a + b + c for a in "bdfgklmn" for b in "aeio" for c in "lnrst")


def encode(text: str) -> list[int]:
    """Return the text's token ids."""
    raw = text.encode("utf-8", "replace")
    pieces = (raw[i : i + _BYTES_A_TOKEN] for i in range(0, len(raw), _BYTES_A_TOKEN))
    # The leading 1 keeps the length: b"\0" and b"\0\0" are different tokens.
    return [int.from_bytes(b"\1" + piece) for piece in pieces]


def decode(ids: Sequence[int]) -> str:
    """Return the text of token ids. Raises ValueError on an id that `encode` never gives."""
    return b"".join(_spelled(token) for token in ids).decode("utf-8", "replace")


def _spelled(token: int) -> bytes:
    raw = token.to_bytes(_BYTES_A_TOKEN + 1).lstrip(b"\0") if 1 < token < 1 << 8 * _BYTES_A_TOKEN + 1 else b""
    if raw[:1] != b"\1":
        raise ValueError(f"{token} is not a token id of the simulated engine")
    return raw[1:]


def chance(*parts: object) -> float:
    """Return a number in [0, 1) that only depends on `parts`."""
    digest = blake2b("\x1f".join(map(str, parts)).encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


@dataclass(frozen=True, slots=True)
class Speaker:
    """Answers prompts: the right word with the probability `accuracy`, else one of its own (by `seed`)."""

    accuracy: float
    seed: int

    def length(self, prompt: str) -> int:
        """How many words the prompt's answer has when nothing cuts it off."""
        return _SHORTEST + int(chance("length", prompt) * (_LONGEST - _SHORTEST))

    def words(self, prompt: str, choice: int = 0) -> Iterator[str]:
        """Say the answer to `prompt` word by word, without end."""
        key = blake2b(prompt.encode("utf-8", "replace"), digest_size=8).hexdigest()
        position = 0
        while True:
            right = chance(self.seed, key, choice, position) < self.accuracy
            yield _word(chance("right", key, position) if right else chance("own", self.seed, key, choice, position))
            position += 1

    def scores(self, ids: Sequence[int]) -> list[tuple[float, int]]:
        """Return (log probability, rank) of each token that was given: rank 1 with the probability `accuracy`."""
        return [self._score(position, token) for position, token in enumerate(ids)]

    def _score(self, position: int, token: int) -> tuple[float, int]:
        draw = chance(self.seed, "score", position, token)
        return (-0.1 - draw, 1) if draw < self.accuracy else (-2.0 - 4 * draw, 2 + int(30 * draw))


def _word(draw: float) -> str:
    return _WORDS[int(draw * len(_WORDS))] + " "
