"""The laws of a release, read off what it leaves in the store: its audit, its state, its split, its counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

from canary.core.release import Release
from canary.core.state import ENDED
from canary.storage.chain import check
from canary.storage.store import Store

Entry = Mapping[str, str]
ENDS = frozenset(phase.value for phase in ENDED)
CONCLUSIONS = ENDS | {"promoted"}
BY_HAND = frozenset({"set-weight", "promote", "start", "retry"})
ALIKE = ("who", "what", "before", "after", "generation", "attempt")


async def hold(store: Store, model: str = "m") -> list[dict[str, str]]:
    """Assert every law of a model that may be asked of the store alone; return its audit but for gates' reports."""
    told = [entry for entry in await store.audit(model, 5_000) if entry["release"]]
    text = await store.release_text(model)
    if not text:
        assert not told, "an audit without a release"
        return told
    release = Release.from_json(text)
    chained = check(await store.audit(None, 5_000))
    assert not chained.fault, chained.fault
    nothing_missing(told, release)
    nothing_rises_after_an_end(told)
    nothing_is_early(told, release)
    assert await store.read_split(model) == release.split(), "workers are told something else than the state"
    counted = {(name, result): count for (name, result), count in (await store.results()).items() if name == model}
    assert counted == conclusions(told, model), "attempts that ended are not counted once each"
    if release.phase == "rolled_back":
        assert release.candidate.digest in await store.quarantined(model)
    return told


def place(text: str) -> tuple[str, float]:
    """Read a place as the audit has it: phase and percent."""
    phase, percent, _ = text.split()
    return phase, float(percent)


def attempt(entry: Entry) -> tuple[str, str]:
    """Name the attempt that an entry is about."""
    return entry["release"], entry["attempt"]


def changes(told: Iterable[Entry]) -> list[Entry]:
    """Return the entries of changes; `acknowledged` tells of one that is long done."""
    return [entry for entry in told if entry["what"] != "acknowledged"]


def nothing_missing(told: Iterable[Entry], release: Release) -> None:
    """Each entry begins where the one before it ended, and the last one ends where the state is."""
    line = changes(told)
    assert line[0]["before"] == "", line[0]
    for one, other in pairwise(line):
        assert one["after"] == other["before"], (one, other)
        assert int(other["generation"]) - int(one["generation"]) in (0, 1), (one, other)
    last = line[-1]
    assert (last["after"], last["generation"]) == (release.place, str(release.generation)), (last, release.place)
    assert attempt(last) == (release.release, str(release.attempt)), last
    for entry in line:
        assert entry["who"], entry
        assert entry["what"], entry
        assert entry["why"], entry


def nothing_rises_after_an_end(told: Iterable[Entry]) -> None:
    """An attempt that was rolled back, aborted or superseded never gets a share again, nor another phase."""
    ended: dict[tuple[str, str], str] = {}
    for entry in told:
        phase, percent = place(entry["after"])
        if attempt(entry) in ended:
            assert (phase, percent) == (ended[attempt(entry)], 0), entry
        elif phase in ENDS:
            assert percent == 0, entry
            ended[attempt(entry)] = phase


def conclusions(told: Iterable[Entry], model: str) -> dict[tuple[str, str], int]:
    """Count how often attempts came to each conclusion; none comes to one twice."""
    came = [(attempt(entry), place(entry["after"])[0]) for entry in changes(told) if _came(entry) in CONCLUSIONS]
    assert len(came) == len(set(came)), came
    return dict(Counter((model, result) for _, result in came))


def _came(entry: Entry) -> str:
    """Return the phase that an entry entered, "" if it stayed in one."""
    phase = place(entry["after"])[0]
    return phase if not entry["before"] or place(entry["before"])[0] != phase else ""


def nothing_is_early(told: Iterable[Entry], release: Release) -> None:
    """Automation leaves a step only after its time and with its samples, both counted since the step began.

    Only the last attempt is asked: its plan is in the state.
    """
    since = 0
    for entry in changes(told):
        if attempt(entry) != (release.release, str(release.attempt)):
            continue
        after = place(entry["after"])
        phase, percent = place(entry["before"]) if entry["before"] else ("", 0.0)
        moved = after != (phase, percent) and after[0] not in ENDS and entry["what"] != "ramp"
        if moved and entry["who"] == "controller" and phase in ("canary", "bake"):
            _was_due(entry, release, phase, percent, since)
        if entry["what"] == "clock-jumped":
            since += round(1000 * json.loads(entry["evidence"])["jumped_s"])
        if entry["before"] != entry["after"] or entry["what"] in BY_HAND:
            since = int(entry["unix_ms"])


def _was_due(entry: Entry, release: Release, phase: str, percent: float, since_ms: int) -> None:
    plan = release.plan
    step = plan.steps[plan.step_at(percent)]
    least_s, samples = (
        (plan.bake.duration, plan.bake.min_samples) if phase == "bake" else (step.min_duration, step.min_samples)
    )
    stayed_s = (int(entry["unix_ms"]) - since_ms) / 1000
    assert stayed_s >= least_s, f"{entry['before']} -> {entry['after']} after {stayed_s} of {least_s} s"
    assert json.loads(entry["evidence"])["samples"] >= samples, entry


def story(told: Iterable[Entry]) -> list[tuple[str, ...]]:
    """Return an audit without its times and numbers: what two runs of one story have in common."""
    return [tuple(entry[name] for name in ALIKE) for entry in told]
