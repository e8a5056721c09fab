"""What `linnet simulate` says: its outcome as plain values, and those as a table and sentences. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from canary.console import figures
from canary.trials import stories

if TYPE_CHECKING:
    from rich.console import RenderableType

    from canary.card.spec import Spec
    from canary.core.policy import Policy
    from canary.trials.recording import Recording
    from canary.trials.stories import Setting, Summary

COLUMNS = ("scenario", "rolled back", "95 % interval", "requests", "after", "90 % after", "by")
NOT_IN_A_LOG = {  # what a guardrail reads that no log tells
    "shadow_quality": "shadow scores",
    "refusal": "refusals",
    "malformed": "malformed answers",
    "repetition": "repetition",
    "stall_p99": "stalls",
}

_LONGEST = (("longest_requests", figures.number), ("longest_seconds", figures.seconds))


def to_json(spec: Spec, setting: Setting, summed: Sequence[Summary]) -> dict[str, Any]:
    """Return the outcome as plain values: shares in 0..1, seconds, null for a median or p90 that was not reached."""
    world, policy = setting.world, spec.policy()
    names = [guard.name for guard in policy.guards]
    return {
        "model": spec.model,
        "release": spec.release,
        "seed": setting.seed,
        "every_seconds": setting.every,
        "runs": setting.runs,
        "traffic": asdict(world.traffic),
        "log": None if world.recording is None else _log(world.recording, policy),
        "made_up": [word for name, word in NOT_IN_A_LOG.items() if name in names],
        "steps": [{"percent": 100 * step.share, "seconds": step.seconds} for step in world.steps],
        "alpha": spec.analysis.alpha,
        "false_rollback": _false_rollback(summed, spec.analysis.alpha),
        "detection": {one.scenario.name: _detection(one) for one in summed if not one.scenario.equal},
        "untold": list(stories.untold(policy, world.usual())),
        "sliced": any(guard.slices != ("",) for guard in policy.guards),
        "scenarios": [_row(one) for one in summed],
    }


def _log(recording: Recording, policy: Policy) -> dict[str, Any]:
    slices = {slice_ for guard in policy.guards for slice_ in guard.slices if slice_}
    return {
        "requests": len(recording.requests),
        "seconds": recording.seconds,
        "rate": recording.rate,
        "error": recording.usual.error,
        "with": {word: recording.count(word) for word in ("ttft", "tpot", "cost")},
        "slices": recording.parts(),
        "slices_missing": sorted(slices - set(recording.slices)),
        "left_out": dict(recording.left),
    }


def _false_rollback(summed: Sequence[Summary], alpha: float) -> dict[str, Any]:
    """Tell how often an equal candidate was rolled back, in the scenario of equal ones where that was most often."""
    holds, worst = stories.bound(summed, alpha)
    return {
        "scenario": worst.scenario.name,
        "count": worst.rolled_back,
        "rate": worst.rolled_back / worst.runs,
        "low95": worst.low,
        "high95": worst.high,
        "holds": holds,
        "runs_needed": stories.runs_needed(alpha),
    }


def _detection(one: Summary) -> dict[str, Any]:
    """Tell how often a worse candidate was rolled back, and after how many seconds."""
    missed = one.runs - one.rolled_back
    return {"share": one.rolled_back / one.runs, "median": one.seconds, "p90": one.late, "missed": missed}


def _row(one: Summary) -> dict[str, Any]:
    ended = one.longest or (None, None)
    return {
        "name": one.scenario.name,
        "equal": one.scenario.equal,
        "runs": one.runs,
        "rolled_back": one.rolled_back,
        "low95": one.low,
        "high95": one.high,
        "median_requests": one.requests,
        "median_seconds": one.seconds,
        "p90_seconds": one.late,
        "longest_requests": ended[0],
        "longest_seconds": ended[1],
        "by": one.failed,
    }


def draw(found: dict[str, Any]) -> RenderableType:
    """Draw what `to_json` returns: what was assumed, a row a scenario, and whether the bound holds."""
    from rich.console import Group  # noqa: PLC0415 - only where it is used
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    kind = "made-up traffic" if found["log"] is None else "recorded traffic"
    head = Text.assemble((str(found["model"]), "bold"), f"  {found['release']}  {kind}")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for number, name in enumerate(COLUMNS):
        inner = 0 < number < len(COLUMNS) - 1
        table.add_column(name, no_wrap=inner, justify="right" if inner else "left")
    for row in found["scenarios"]:
        table.add_row(*map(escape, _cells(row)))
    style = {True: "green", False: "bold red", None: "yellow"}[found["false_rollback"]["holds"]]
    assumed = Text("\n".join(_assumed(found)), "dim")
    return Group(head, assumed, Text(""), table, Text(""), Text(sentence(found), style))


def _assumed(found: dict[str, Any]) -> list[str]:
    stay = ", ".join(f"{step['percent']:g} % for {figures.seconds(step['seconds'])}" for step in found["steps"])
    return [
        *(_made_up(found) if found["log"] is None else _recorded(found)),
        f"steps: {stay}; a look every {found['every_seconds']} s (the controller's: 1 s); seed {found['seed']}",
        f"counted: of {found['runs']} runs each, the candidate's requests and the time until rollback; medians",
        *([f"no story: such traffic cannot show harm to {', '.join(found['untold'])}"] if found["untold"] else []),
    ]


def _made_up(found: dict[str, Any]) -> list[str]:
    traffic = found["traffic"]
    sliced = ["slices: made-up traffic has none; each guardrail is held to all of it"] if found["sliced"] else []
    return [f"assumed: {traffic['rate']:g} requests/s, {traffic['pairs_per_s']:.3g} shadow pairs/s", *sliced]


def _recorded(found: dict[str, Any]) -> list[str]:
    log = found["log"]
    had = ", ".join(f"{count:,} with a {word}" for word, count in _named(log["with"]))
    left = ", ".join(f"{count:,} {why}" for why, count in log["left_out"].items())
    slices = ", ".join(f"{name or 'no slice'} {figures.share(part)}" for name, part in log["slices"].items())
    short = log["seconds"] < sum(step["seconds"] for step in found["steps"])
    made_up = f"; made up all the same: {', '.join(found['made_up'])}" if found["made_up"] else ""
    whole = f"{log['requests']:,} requests of the baseline in {figures.seconds(log['seconds'])}"
    return [
        f"recorded: {whole}, {log['rate']:.3g} requests/s, {figures.share(log['error'])} failed; {had}",
        *([f"left out, in lines: {left}"] if left else []),
        f"slices: {slices}",
        *([f"slices that the log lacks: {', '.join(log['slices_missing'])}"] if log["slices_missing"] else []),
        *(["the log is shorter than a story, which goes through it again and again"] if short else []),
        f"not in a log: sessions, so each request stands for itself{made_up}",
    ]


def _named(counts: dict[str, int]) -> list[tuple[str, int]]:
    return [({"ttft": "TTFT", "tpot": "TPOT"}.get(word, word), count) for word, count in counts.items()]


def _cells(row: dict[str, Any]) -> list[str]:
    no_requests, never = (f"> {write(row[name])}" for name, write in _LONGEST)
    requests, after, late = (row[name] for name in ("median_requests", "median_seconds", "p90_seconds"))
    by = row["by"]
    return [
        row["name"],
        str(row["rolled_back"]),
        f"{100 * row['low95']:.3g} to {figures.share(row['high95'])}",
        no_requests if requests is None else figures.number(requests),
        never if after is None else figures.seconds(after),
        never if late is None else figures.seconds(late),
        ", ".join(by if len(by) == 1 else [f"{name} {count}" for name, count in by.items()]) or figures.MISSING,
    ]


def sentence(found: dict[str, Any]) -> str:
    """Say whether the bound on false rollbacks holds."""
    seen, alpha, runs = found["false_rollback"], figures.share(found["alpha"]), found["runs"]
    saw = f"{seen['count']} of {runs} runs of `{seen['scenario']}` were rolled back"
    low, high = (figures.share(seen[limit]) for limit in ("low95", "high95"))
    if seen["holds"]:
        return f"The bound on false rollbacks holds: {saw}, {high} at most, alpha is {alpha}."
    if seen["holds"] is False:
        return f"The bound on false rollbacks is broken: {saw}, {low} at least, alpha is {alpha}."
    return (
        f"Too few runs to tell whether the bound on false rollbacks holds: {saw}, {high} at most, alpha is {alpha}; "
        f"--runs {max(seen['runs_needed'], 2 * runs)} would tell more."
    )
