"""References that collect themselves: two sets of replicas of the baseline's model, compared for as long as they serve.

Two sources: the halves of a baseline with several replicas, at all times, and a release's control against the rest of
the baseline. Every ten seconds the leader takes in the blocks that have closed; what it has learned is one JSON in the
store, written under its lease. With other machines, or another number of them, a reference begins anew.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final, TypeAlias

from canary.core.arms import Arm
from canary.core.location import Arm as BlockArm
from canary.core.location import Block
from canary.core.policy import Policy
from canary.core.reference import Reference, better
from canary.core.signals import NOISE
from canary.core.stages import Machines
from canary.core.state import EXPOSED, Release
from canary.core.tally import BLOCK_S, CONTROL, HALVES, Key, Tally, blocks_before, merged, parse
from canary.storage import keys
from canary.storage.store import Lease, Store

log = logging.getLogger("linnet.references")

COLLECT_S: Final = 10.0
GRACE_S: Final = 30.0  # how long a closed block's reports may still come
REPLICAS: Final = "replicas"  # the source that is there without a release; the other is CONTROL
Blocks: TypeAlias = Mapping[float, Block]
Tallies: TypeAlias = Mapping[Key, Tally]


@dataclass(frozen=True, slots=True)
class Sides:
    """Which machines are compared: a name that changes with them, and the replicas on either side."""

    who: str
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Known:
    """What one source has learned so far, by latency."""

    sides: Sides
    references: Mapping[str, Reference]

    @classmethod
    def nothing(cls, sides: Sides) -> Known:
        """Return what is known of machines before any block."""
        found = {name: Reference.of_replicas(noise, sides.first, sides.second) for name, noise in NOISE.items()}
        return cls(sides, found)

    def since(self, now: float) -> Known:
        """Return it deaf to blocks that began before `now`: they are of other machines."""
        return replace(self, references={name: replace(one, taken=now) for name, one in self.references.items()})

    def take(self, blocks: Mapping[str, Blocks]) -> Known:
        """Return it with the closed blocks of each latency that are new."""
        return replace(self, references={name: one.take(blocks.get(name, {})) for name, one in self.references.items()})


@dataclass(frozen=True, slots=True)
class Collected:
    """Everything known of a model's machines, by source."""

    sources: Mapping[str, Known] = field(default_factory=dict)

    def take(self, source: str, sides: Sides, blocks: Mapping[str, Blocks], now: float) -> Collected:
        """Return it with the closed blocks of a source; other machines than before begin anew."""
        known = self.sources.get(source)
        if known is None:
            known = Known.nothing(sides)
        elif known.sides != sides:
            known = Known.nothing(sides).since(now)
        return Collected({**self.sources, source: known.take(blocks)})

    def best(self, latency: str, now: float) -> tuple[str, Known, Reference] | None:
        """Return the source that has compared a latency for longest, and what still counts of it; None for none."""
        found = [(name, one, one.references[latency].at(now)) for name, one in self.sources.items()]
        told = [one for one in found if one[2].segments]
        return max(told, key=lambda one: one[2].seconds, default=None)

    def to_json(self) -> str:
        """One line of JSON; `from_json` reads it back to an equal value."""
        plain = {
            source: {
                "sides": [one.sides.who, one.sides.first, one.sides.second],
                **{name: reference.to_plain() for name, reference in one.references.items()},
            }
            for source, one in self.sources.items()
        }
        return json.dumps(plain, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Collected:
        """Read what `to_json` wrote. Raises ValueError, KeyError, TypeError or AttributeError on anything else."""
        return cls(
            {
                source: Known(Sides(*one["sides"]), {name: Reference.from_plain(one[name]) for name in NOISE})
                for source, one in json.loads(text).items()
            }
        )


@lru_cache(maxsize=64)
def read(text: str) -> Collected:
    """Read what the store keeps, "" for nothing yet; what is damaged is told once and begins afresh."""
    try:
        return Collected.from_json(text) if text else Collected()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        log.warning("a reference cannot be read (%s: %s); it is collected afresh", type(error).__name__, error)
        return Collected()


def machines(release: Release, policy: Policy, collected: Collected, now: float) -> Machines:
    """Return the replicas of what is compared, and the references that tell of them."""
    baseline = release.control or release.baseline
    found = telling(collected, policy.noise, now)
    return Machines(len(release.candidate.replicas), len(baseline.replicas), found)


def telling(collected: Collected, noise: Mapping[str, float], now: float) -> dict[str, Reference]:
    """Return the reference of each latency that says something `now`.

    They are collected at the noise that is assumed by default, and say nothing where a spec assumes another.
    """
    known = [one.references for one in collected.sources.values()]
    found = {name: better([one[name].at(now) for one in known]) for name in NOISE if noise[name] == NOISE[name]}
    return {name: one for name, one in found.items() if one is not None}


async def collect(store: Store, lease: Lease, model: str, compared: frozenset[str], now: float) -> bool:
    """Take in what a model's machines have shown of themselves; False once another leads.

    Raises StoreError, and TallyError for sums that cannot be read. `compared` are the models whose workers compare
    replicas. What was taken in is dropped from the store.
    """
    text = await store.release_text(model)
    sides = sides_of(Release.from_json(text)) if text else {}
    if model not in compared and CONTROL not in sides:
        return True
    before, fields = await store.reference(model), await store.tallies(model, "", 0)
    found = read(before)
    if REPLICAS in sides:
        found = found.take(REPLICAS, sides[REPLICAS], halves(parse(fields), now), now)
    if CONTROL in sides:
        release = Release.from_json(text)
        sums = await store.tallies(model, release.release, release.attempt)
        found = found.take(CONTROL, sides[CONTROL], control_and_rest(parse(sums), now), now)
    after = found.to_json() if found.sources else ""
    if after != before and not await store.write(lease, {keys.reference(model): after}):
        return False
    await store.forget(model, "", 0, blocks_before(fields, now - BLOCK_S - GRACE_S))
    return True


def sides_of(release: Release) -> dict[str, Sides]:
    """Return which machines of a model can be compared now, by source."""
    base, control = release.baseline, release.control
    found, replicas = {}, len(base.replicas)
    if replicas > 1:
        found[REPLICAS] = Sides(f"{base.engine} {base.digest}", (replicas + 1) // 2, replicas // 2)
    if control is not None and release.phase in EXPOSED:
        who = f"{control.engine} {base.engine} {base.digest}"
        found[CONTROL] = Sides(who, len(control.replicas), replicas)
    return found


def halves(tallies: Tallies, now: float) -> dict[str, Blocks]:
    """Return the closed blocks of both halves of the baseline's replicas, by latency."""
    even, odd = (tallies.get((0, half, ""), Tally()) for half in HALVES)
    return {name: _closed(dict(_arms(even, odd, name)), now) for name in NOISE}


def control_and_rest(tallies: Tallies, now: float) -> dict[str, Blocks]:
    """Return the closed blocks of the control and of what else the baseline answered, by latency.

    A block in which the share changed belongs to two stages and is left out: its halves were not drawn alike.
    """
    stages: dict[int, dict[str, list[Tally]]] = defaultdict(lambda: {CONTROL: [], Arm.BASELINE.value: []})
    for (stage, arm, _), tally in tallies.items():
        if arm in (CONTROL, Arm.BASELINE.value):
            stages[stage][arm].append(tally)
    found: dict[str, Blocks] = {}
    for name in NOISE:
        seen: dict[int, list[tuple[BlockArm, BlockArm]]] = defaultdict(list)
        for sums in stages.values():
            for number, (control, whole) in _arms(merged(sums[CONTROL]), merged(sums[Arm.BASELINE.value]), name):
                rest = BlockArm(whole.n - control.n, whole.k - control.k, whole.kk - control.kk)
                seen[number].append((control, rest))
        found[name] = _closed({number: arms[0] for number, arms in seen.items() if len(arms) == 1}, now)
    return found


def _arms(first: Tally, second: Tally, latency: str) -> Iterator[tuple[int, tuple[BlockArm, BlockArm]]]:
    one, other = first.blocks(latency), second.blocks(latency)
    for number in one.keys() | other.keys():
        yield number, (BlockArm(*one.get(number, (0, 0, 0))), BlockArm(*other.get(number, (0, 0, 0))))


def _closed(found: Mapping[int, tuple[BlockArm, BlockArm]], now: float) -> Blocks:
    """Return the blocks whose reports have had their time, by start; sums that contradict themselves are none."""
    return {
        BLOCK_S * number: Block(BLOCK_S * number, *arms)
        for number, arms in found.items()
        if BLOCK_S * number + BLOCK_S + GRACE_S <= now and min(arm.n for arm in arms) >= 0
    }
