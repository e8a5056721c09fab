"""Inputs nobody would send, made from ones that somebody would.

A mutation changes a seed or two by cutting, repeating, exchanging and inserting; words of the grammar are inserted as
they are, because no chance would ever spell `transfer-encoding`. An input that makes a parser say something new becomes
a seed itself, so that mutations go on from where they got furthest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

_JOINT = re.compile(rb"[{}\[\],:;\n]")
_LONGEST = 2048  # bytes
_SHREDDED = 256  # bytes: longer inputs are not cut at every byte
_MOST_SEEDS = 2000
_FEW = 0.6  # one change or two, seldom many: most of what is changed much is refused at its first byte
_BYTES = b'\x00\x01\t\n\r\x1b !"#,-/0:;=AZ[\\]az{}\x7f\x80\xc0\xed\xff'


class Mutator:
    """Makes inputs of seeds; `words` are inserted whole."""

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes], chance: Random) -> None:
        self._seeds = list(seeds)
        self._chance = chance
        self._hand = Hand(chance, words, self.seed)
        self._said: set[str] = set()

    def make(self) -> bytes:
        """Return the next input."""
        raw = bytearray(self.seed())
        for _ in range(int(self._chance.expovariate(_FEW))):
            self._chance.choice(_CHANGES)(self._hand, raw)
        return bytes(raw[:_LONGEST])

    def learn(self, raw: bytes, said: str) -> None:
        """Keep an input that made a parser say what none had made it say before."""
        if said not in self._said and len(self._seeds) < _MOST_SEEDS:
            self._said.add(said)
            self._seeds.append(raw)

    def seed(self) -> bytes:
        """Return any seed."""
        return self._chance.choice(self._seeds)


@dataclass(frozen=True, slots=True)
class Hand:
    """What a change may use: chance, the grammar's words, and the seeds."""

    chance: Random
    words: Sequence[bytes]
    seed: Callable[[], bytes]

    def place(self, raw: bytearray) -> int:
        """Anywhere in an input, its end included; or, as often, behind one of the bytes that part things."""
        at = self.chance.randrange(len(raw) + 1)
        joint = _JOINT.search(raw, at) if self.chance.random() < 0.5 else None
        return at if joint is None else joint.end()

    def span(self, raw: bytearray) -> slice:
        """A piece of an input, short more often than long."""
        start = self.place(raw)
        return slice(start, min(len(raw), start + int(self.chance.expovariate(0.1))))


def _flip(hand: Hand, raw: bytearray) -> None:
    if raw:
        raw[hand.chance.randrange(len(raw))] ^= 1 << hand.chance.randrange(8)


def _set(hand: Hand, raw: bytearray) -> None:
    if raw:
        raw[hand.chance.randrange(len(raw))] = hand.chance.choice(_BYTES)


def _insert(hand: Hand, raw: bytearray) -> None:
    at = hand.place(raw)
    raw[at:at] = bytes([hand.chance.choice(_BYTES)])


def _word(hand: Hand, raw: bytearray) -> None:
    at = hand.place(raw)
    raw[at:at] = hand.chance.choice(hand.words)


def _overwrite(hand: Hand, raw: bytearray) -> None:
    raw[hand.span(raw)] = hand.chance.choice(hand.words)


def _cut(hand: Hand, raw: bytearray) -> None:
    del raw[hand.span(raw)]


def _end(hand: Hand, raw: bytearray) -> None:
    del raw[hand.place(raw) :]


def _repeat(hand: Hand, raw: bytearray) -> None:
    span = hand.span(raw)
    raw[span.stop : span.stop] = raw[span] * hand.chance.choice((1, 1, 2, 8, 64))


def _exchange(hand: Hand, raw: bytearray) -> None:
    """Put a piece of another seed in."""
    other = bytearray(hand.seed())
    raw[hand.span(raw)] = other[hand.span(other)]


_CHANGES = (_flip, _set, _insert, _word, _word, _overwrite, _cut, _end, _repeat, _exchange)


def cut(raw: bytes, chance: Random) -> list[bytes]:
    """Cut bytes as a network might: at some places, at all of them, or nowhere."""
    some = chance.choice((0, 1, 2, 5, _SHREDDED))
    shred = some == _SHREDDED and len(raw) <= _SHREDDED
    places = range(len(raw)) if shred else sorted(chance.randrange(len(raw) + 1) for _ in range(min(some, 9)))
    ends = [*places, len(raw)]
    return [raw[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]
