"""The face of a forecast: what `linnet plan` prints, as JSON and as a table. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from canary.card.spec import Spec
from canary.console import figures, words
from canary.core.timetable import MOST_REQUESTS, RELEASE, Intent, Saving, Stay, Wait, label, total

JSON = Mapping[str, Any]
COLUMNS = ("step", "guardrail", "margin", "PASS if equal", "requests", "worse by", "FAIL if so", "requests")


def to_json(
    spec: Spec, intent: Intent, stays: Sequence[Stay], savings: Sequence[Saving], reference: JSON
) -> dict[str, Any]:
    """Return the forecast as plain values: seconds, requests of the guardrail's own slice, null for never.

    `reference` is what the store knows of the machines, by latency as in the status.
    """
    traffic = intent.traffic
    return {
        "model": spec.model,
        "release": spec.release,
        "rps": traffic.rps,
        "slices": dict(traffic.slices),
        "replicas": traffic.replicas,
        "control": traffic.control,
        "reference_hours": traffic.reference / 3600,
        "reference": dict(reference),
        "own_noise": dict(intent.policy.noise),
        "pairs_per_second": traffic.pairs if math.isfinite(traffic.pairs) else None,
        "worse": intent.times,
        "assumed": asdict(intent.baseline),
        "limit_requests": MOST_REQUESTS,
        "seconds": total(stays),
        "steps": [_step(stay) for stay in stays],
        "faster": [asdict(saving) for saving in savings],
    }


def _step(stay: Stay) -> dict[str, Any]:
    slowest = stay.slowest
    return {
        "step": stay.place.name,
        "percent": 100 * stay.place.at.share,
        "proof_needed": stay.place.proved,
        "manual": stay.place.manual,
        "seconds": stay.seconds,
        "decides": stay.decides,
        "slowest": label(slowest.case) if slowest else None,
        "guardrails": [_guardrail(stay, wait) for wait in stay.waits],
    }


def _guardrail(stay: Stay, wait: Wait) -> dict[str, Any]:
    case = wait.case
    speed = case.rate * (stay.place.at.pairs if case.signal.unit == "difference" else 1.0)
    return {
        "name": case.guard.name,
        "slice": case.slice,
        "margin": case.guard.margin,
        "worse_by": case.effect,
        "pass": _moment(wait.passed, speed),
        "fail": _moment(wait.failed, speed),
        "fail_in_noise_s": wait.noisy,
        "located": case.located and case.most_noise > 0,
        "load_matched": case.matched(stay.place.at),
    }


def _moment(seconds: float | None, speed: float) -> dict[str, float] | None:
    if seconds is None:
        return None
    return {"seconds": round(seconds, 1), "requests": math.ceil(seconds * speed - 1e-6)}


def draw(found: JSON) -> RenderableType:
    """Draw what `to_json` returns: each step and guardrail, how long the steps take, and what would be faster."""
    parts: list[RenderableType] = [_headline(found), _assumptions(found), Text(""), _table(found), Text("")]
    parts += [Text(line) for line in _length(found)]
    parts += [Text(line, "dim") for line in _noise(found)]
    parts += [Text(line) for line in _faster(found)]
    return Group(*parts)


def _headline(found: JSON) -> Text:
    seconds = found["seconds"]
    takes = "never ends" if seconds is None else f"takes {figures.seconds(seconds)} at least"
    text = Text.assemble((str(found["model"]), "bold"), f"  {found['release']}  ")
    return text.append(f"{takes} at {found['rps']:g} requests/s", "bold red" if seconds is None else "bold cyan")


def _assumptions(found: JSON) -> Text:
    values, slices, noise = found["assumed"], found["slices"], found["own_noise"]
    said = [
        ", ".join(f"{name} {figures.share(values[name])}" for name in _held(found, _RATES)),
        f"log sd of TTFT {values['ttft_sd']:g}, of TPOT {values['tpot_sd']:g}",
        f"a replica's own noise {figures.share(noise['ttft'])} and {figures.share(noise['tpot'])} at most",
        f"relative sd of cost {values['cost_sd']:g}, of length {values['length_sd']:g}",
        f"sd of a pair {values['pair_sd']:g}",
        f"replicas an arm {found['replicas']}" + (f", of the control {found['control']}" if found["control"] else ""),
        _reference(found),
    ]
    if found["pairs_per_second"] is not None:
        said.append(f"at most {found['pairs_per_second']:.3g} shadow pairs/s")
    if slices:
        said.append(", ".join(f"{name} {figures.share(part)}" for name, part in slices.items()))
    counted = "requests of both arms in the guardrail's slice, for shadow_quality shadow pairs"
    return Text(f"assumed: {'; '.join(said)}\ncounted: {counted}", "dim")


_RATES = ("error_rate", "refusal", "empty", "truncated", "malformed", "repetition")


def _held(found: JSON, names: Sequence[str]) -> list[str]:
    """Return those that a guardrail holds, all of them if none does."""
    held = {row["name"].removesuffix("_limit") for step in found["steps"] for row in step["guardrails"]}
    return [name for name in names if name in held] or list(names[:1])


def _reference(found: JSON) -> str:
    if found["reference_hours"]:
        return f"a reference of {found['reference_hours']:g} h without noise"
    known = words.references(found["reference"])
    return f"reference: {known}" if known else "no reference"


def _table(found: JSON) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for number, name in enumerate(COLUMNS):
        table.add_column(name, no_wrap=True, justify="right" if number > 1 else "left")
    for step in found["steps"]:
        for number, row in enumerate(step["guardrails"]):
            name = figures.guard_name(row)
            slowest = name == step["slowest"]
            cells = [step["step"] if number == 0 else "", name + (" (slowest)" if slowest else ""), *_cells(row)]
            table.add_row(*map(escape, cells), style="yellow" if slowest else "")
    return table


def _cells(row: JSON) -> list[str]:
    """Write margin, PASS, worse by and FAIL of one guardrail."""
    passed, failed = row["pass"], row["fail"]
    worse = figures.guard_figure({**row, "worse": row["worse_by"]}, "worse")
    return [figures.guard_figure(row, "margin"), *_two(passed), worse, *_two(failed)]


def _two(moment: JSON | None) -> tuple[str, str]:
    if moment is None:
        return "never", figures.MISSING
    if moment["seconds"] == 0:
        return "before", figures.MISSING
    return figures.seconds(moment["seconds"]), figures.number(moment["requests"])


def _length(found: JSON) -> Iterator[str]:
    for step in found["steps"]:
        seconds = step["seconds"]
        takes = f"never within {MOST_REQUESTS:,} requests" if seconds is None else figures.seconds(seconds)
        person = ", then a person says `linnet promote`" if step["manual"] else ""
        yield f"{step['step']}: {takes}; {_why(step)}{person}"


def _why(step: JSON) -> str:
    known = {"time": "its duration decides", "samples": "its min_samples decide", "pairs": "its min_pairs decide"}
    why = known.get(str(step["decides"]), f"the proof of {step['decides']} decides")
    return why if step["proof_needed"] else f"{why}, no proof is asked for yet"


def _noise(found: JSON) -> Iterator[str]:
    """Say of each latency what noise of its machines' own would do to its location's FAIL."""
    rows = (row for step in found["steps"] for row in step["guardrails"])
    told = {figures.guard_name(row): row["fail_in_noise_s"] for row in rows if row["fail_in_noise_s"]}
    for name, seconds in told.items():
        yield (
            f"{name}: on replicas as noisy as assumed, 10 min at a time, its location needs "
            f"{figures.seconds(seconds)} to FAIL, whatever the traffic"
        )


def _faster(found: JSON) -> Iterator[str]:
    for saving in found["faster"]:
        before, after = saving["before"], figures.seconds(saving["after"])
        if before is None:
            yield f"faster: {saving['what']} would bring {saving['of']} from never to {after}"
        else:
            saved = figures.seconds(before - saving["after"])
            instead = f"{after} instead of {figures.seconds(before)}"
            yield f"faster: {saving['what']} would save {saved} of {saving['of']}: {instead}"
    if not any(saving["of"] == RELEASE for saving in found["faster"]):
        yield "faster: neither share nor shadow nor a wider margin would shorten the release"
    if any(not row["load_matched"] for step in found["steps"] for row in step["guardrails"]):
        mends = "a step at 50 %, or replicas by the share" if found["control"] else "arms.control, or a step at 50 %"
        yield f"no latency passes where an arm has many times the other's requests in flight a replica: try {mends}"
