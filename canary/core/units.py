"""Units of which each may be one event an attempt, however often it asks and whichever workers it meets.

A user who retries what failed makes five failures of one fault, and a test that takes them for five is certain too
soon. So every request is counted, and a unit's later events are counted once more as `_again`: the difference is
evidence. Whether an event is a unit's first is for the store to say, which has a bit for each unit and kind; a worker
claims the bit and says what is to be added in either case. Two units share a bit as often as they must among 2**26:
of a million, some per cent; their events are then counted `_again`, in both arms alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from canary.core.outcome import Outcome, Result

AGAIN: Final = "_again"
OFFSET_BITS: Final = 26
KNOWN_MOST: Final = 100_000  # bits that a worker remembers for an attempt
WAITING_MOST: Final = 4_096  # claims of an attempt between two flushes; a store that is away must not fill the memory
ASSIGNED: Final = "assigned"
DONE: Final = "done"
FAILED: Final = "failed"
TIMED: Final = "timed"  # the one request whose latency counts: the first that has one and is warm

_OFFSETS: Final = 1 << OFFSET_BITS
_SPREAD: Final = 0x9E3779B9  # 2**32 over the golden ratio: multiples of it lie far apart
_KINDS: Final = (ASSIGNED, DONE, FAILED, "empty", "truncated", "refusal", "malformed", "repetition", TIMED)
_SALTS: Final = {kind: (number * _SPREAD >> 6) % _OFFSETS for number, kind in enumerate(_KINDS, start=1)}
_OK: Final = Result.OK  # an Enum looks its members up in Python
_ERROR: Final = Result.ERROR
_TIMEOUT: Final = Result.TIMEOUT


@dataclass(frozen=True, slots=True)
class Claim:
    """A bit of the attempt's bitmap, and the fields to be raised: `fresh` if it was not set before, else `again`."""

    offset: int
    fresh: Mapping[str, int]
    again: Mapping[str, int]


class Units:
    """What one worker remembers of an attempt's units: the bits it claimed last. It lives as long as the attempt."""

    __slots__ = ("_older", "_young")

    def __init__(self) -> None:
        self._young: set[int] = set()
        self._older: set[int] = set()

    def known(self, offset: int) -> bool:
        """Tell whether a bit was claimed, as far as is remembered; the store knows the rest."""
        return offset in self._young or offset in self._older

    def remember(self, offset: int) -> None:
        """Remember a bit; the oldest half goes when there are too many."""
        if len(self._young) >= KNOWN_MOST // 2:
            self._older, self._young = self._young, set()
        self._young.add(offset)


def offset_of(unit: int, kind: str) -> int:
    """Return the bit of a unit and a kind: units are uniform as they come, so their low bits are a hash."""
    return (unit ^ _SALTS[kind]) % _OFFSETS


def kinds_of(outcome: Outcome) -> tuple[str, ...]:
    """Return the kinds of events that a request is; none if it says nothing about its arm."""
    result = outcome.result
    if result is _OK:
        empty = ("empty",) if outcome.completion_tokens == 0 else ()
        truncated = ("truncated",) if outcome.finish_reason == "length" else ()
        timed = (TIMED,) if outcome.ttft is not None and not outcome.cold else ()
        return (DONE, *timed, *empty, *truncated, *outcome.flaws)
    if result is _TIMEOUT:
        return (DONE, FAILED) if outcome.cold else (DONE, FAILED, TIMED)
    return (DONE, FAILED) if result is _ERROR else ()
