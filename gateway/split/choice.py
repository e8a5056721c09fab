"""Which arm answers a request, and whether chance decided it (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from canary.core.arms import Arm, Endpoint, Split
from canary.core.assignment import arm_of, controlled, number_of
from gateway.door.access import Caller, Scope
from gateway.door.guest import Asked, Guest
from gateway.errors import ApiError
from gateway.pool.options import Balance, PoolOptions
from gateway.split.splits import Route

ARM: Final = b"x-linnet-arm"
SESSION: Final = b"x-linnet-session"
SLICE: Final = b"x-linnet-slice"
REQUEST_ID: Final = b"x-request-id"

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._:\-]")
_ID_MOST: Final = 128
_USUAL: Final = PoolOptions()
# Enum members are looked up in Python (0.14 us each in 3.11); these are used for every request.
_BASELINE: Final = Arm.BASELINE
_CANDIDATE: Final = Arm.CANDIDATE
_AFFINITY: Final = Balance.AFFINITY


@dataclass(slots=True)
class Choice:
    """One request's arm under one split. `evidence` is True only where chance assigned it.

    `pool` says how the arm's replicas are used; requests with the same `affinity` ("" for none) belong together. `at`
    is when it was chosen, in Unix seconds (0: not known). `unit` numbers who sticks to the arm, 0 for a request that
    stands for itself; `cold` says that the arms still warm up, `control` that the baseline's control answers.
    """

    split: Split
    arm: Arm
    endpoint: Endpoint
    slice: str
    request_id: str
    forced: bool
    evidence: bool
    pool: PoolOptions = _USUAL
    affinity: str = ""
    at: float = 0.0
    unit: int = 0
    cold: bool = False
    control: bool = False

    @property
    def may_fail_over(self) -> bool:
        """Whether the baseline's own replicas may answer instead; a tester wants to see the arm as it is."""
        return (self.control or self.arm is _CANDIDATE) and not self.forced

    def at_baseline(self) -> Choice:
        """Return the same request for the baseline's own replicas, where chance did not send it."""
        return replace(self, arm=_BASELINE, endpoint=self.split.baseline, evidence=False, control=False)


def choose(route: Route, ask: Asked, guest: Guest, request_id: str, now: float = 0.0) -> Choice:
    """Choose the arm, `now` in Unix seconds. Raises ApiError for an arm that may not or cannot be forced."""
    split, headers = route.split, guest.headers
    forced = _forced(split, headers[ARM], guest.caller) if ARM in headers else None
    divided = split.candidate is not None and split.percent > 0 and forced is None
    drawing = divided or (split.control is not None and split.control_percent > 0 and forced is None)
    sticks = route.pool.balance is _AFFINITY
    asking = unit(ask, guest) if drawing or sticks else ""
    number = number_of(split, asking or f"request:{request_id}") if drawing else 0
    drawn = arm_of(split, number) if divided else _BASELINE
    arm = drawn if forced is None else forced
    control = drawing and split.control is not None and controlled(split, number)
    named = headers[SLICE].decode("latin-1") if SLICE in headers else ""
    return Choice(
        split=split,
        arm=arm,
        endpoint=(split.control if control else split.endpoint(arm)) or split.baseline,
        slice=named if named in split.slices else "",
        request_id=request_id,
        forced=forced is not None,
        evidence=forced is None and not route.reduced,
        pool=route.pool,
        affinity=_together(ask, guest, asking) if sticks else "",
        at=now,
        unit=(number or 1) if divided and asking else 0,  # before the first share nobody's chance is spent
        cold=divided and now < split.warm_until,
        control=control,
    )


def unit(ask: Asked, guest: Guest) -> str:
    """Return who sticks to an arm: a session, else a user, else a conversation under a key; "" for nobody."""
    session = guest.headers.get(SESSION)
    if session and (named := session.decode("latin-1").strip()):
        return f"session:{named}"
    user = ask.unit()
    if user:
        return f"user:{user}"
    key = guest.caller.key_hash
    opening = ask.opening() if key else ""
    return f"conversation:{key}:{opening}" if opening else ""


def _together(ask: Asked, guest: Guest, asking: str) -> str:
    """Return whose prompts begin alike: a session's, a conversation's also without a key, else a user's."""
    if guest.headers.get(SESSION):
        return asking
    opening = ask.opening()
    return f"conversation:{guest.caller.key_hash}:{opening}" if opening else asking


def request_id_from(given: bytes | None, fresh: str) -> str:
    """Return the client's request id without anything that could break a line or a log, else `fresh`."""
    return (_UNSAFE.sub("", given.decode("latin-1"))[:_ID_MOST] if given else "") or fresh


def _forced(split: Split, wish: bytes, caller: Caller) -> Arm:
    if Scope.TESTER not in caller.scopes:
        raise ApiError(403, "X-Linnet-Arm needs the tester scope", "arm_forbidden")
    try:
        arm = Arm(wish.decode("latin-1").strip().lower())
    except ValueError:
        raise ApiError(400, "X-Linnet-Arm must be baseline or candidate", "unknown_arm") from None
    if split.endpoint(arm) is None:
        raise ApiError(400, f"the model `{split.model}` has no {arm} now", "no_such_arm")
    return arm
