"""Which arm answers a unit: deterministic, sticky, and monotone in the share.

A unit (a session, a user, a conversation) has one fixed point in [0, 1) per release attempt. It belongs to the
candidate while that point lies below the candidate's share, so a growing share only moves units from the baseline to
the candidate, a shrinking one only back, and any number of workers agree without speaking to each other. The baseline's
control, if it has one, has as large a share at the other end.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from typing import Final

from canary.core.arms import Arm, Split

_BITS: Final = 53  # what a double holds exactly
_SCALE: Final = float(1 << _BITS)
# Enum members are looked up in Python (0.14 us each in 3.11); these are used for every request.
_BASELINE: Final = Arm.BASELINE
_CANDIDATE: Final = Arm.CANDIDATE


def draw(salt: str, unit: str) -> int:
    """Return the unit's number, 0 <= number < 2**53: uniform over units, independent between salts."""
    drawn = _seeded(salt).copy()
    drawn.update(unit.encode("utf-8", "surrogatepass"))
    return int.from_bytes(drawn.digest(), "big") >> (64 - _BITS)


def point(salt: str, unit: str) -> float:
    """Return the unit's point in [0, 1): its number, scaled."""
    return draw(salt, unit) / _SCALE


def number_of(split: Split, unit: str) -> int:
    """Return the number by which the attempt of `split` knows `unit`; its arm follows from it."""
    return draw(salt_of(split), unit)


def arm_of(split: Split, number: int) -> Arm:
    """Return the arm that answers the unit of a number; the baseline wherever there is no candidate."""
    if split.candidate is None or split.percent <= 0:
        return _BASELINE
    return _CANDIDATE if number / _SCALE * 100 < split.percent else _BASELINE


def controlled(split: Split, number: int) -> bool:
    """Tell whether the baseline's control answers the unit of a number.

    Its points are the uppermost, and none of the candidate's.
    """
    if split.control is None or split.candidate is None or split.control_percent <= 0:
        return False
    return number / _SCALE * 100 >= max(split.percent, 100 - split.control_percent)


def assign(split: Split, unit: str) -> Arm:
    """Return the arm that answers `unit` under `split`; the baseline wherever there is no candidate."""
    return arm_of(split, number_of(split, unit))


def mirrored(split: Split, request_id: str) -> bool:
    """Tell whether a request answered by the baseline is also sent to the candidate's shadow."""
    if split.candidate is None or split.shadow_percent <= 0:
        return False
    return point("shadow:" + salt_of(split), request_id) * 100 < split.shadow_percent


def salt_of(split: Split) -> str:
    """Return the salt of an attempt: another attempt draws other users."""
    return f"{split.model}/{split.release}/{split.attempt}"


@lru_cache(maxsize=4096)
def _seeded(salt: str) -> blake2b:
    """Return the hash that has taken its key, to be copied; any salt is fitted into a key of at most 64 bytes."""
    raw = salt.encode("utf-8", "surrogatepass")
    key = raw if len(raw) <= blake2b.MAX_KEY_SIZE else blake2b(raw, digest_size=32).digest()
    return blake2b(digest_size=8, key=key)
