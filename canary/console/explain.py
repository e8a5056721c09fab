"""Why each guardrail says what it says, what would change that, and what happens next: for three in the morning.

Pure: the status's JSON in, Rich renderables out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from canary.console import figures, render, words

JSON = Mapping[str, Any]
LATENCIES: Final = {"ttft": ("ttft_p95", "ttft_p99"), "tpot": ("tpot_p95", "stall_p99", "e2e_p95")}
LOCATED: Final = {"ttft_p95": "ttft", "tpot_p95": "tpot"}
_COST: Final = 2.0  # nats that a test pays before its evidence grows with the requests
_FAR: Final = 100  # times what was seen: beyond, nobody waits for it
_WORTH: Final = 1.3  # times as fast; less is no advice
_EVEN: Final = 0.5
_SAMPLE = re.compile(r"needs (\d+) [^,]*, has (\d+) and (\d+)")
_REFERENCE_S: Final = 6 * 3600.0


def draw(state: JSON) -> RenderableType:
    """Draw each guardrail with its evidence as bars, why, and what would change it; the reference; what comes next."""
    parts: list[RenderableType] = [render.headline(state)]
    parts += [_finding(finding, state) for finding in state.get("guardrails") or ()]
    if len(parts) == 1:
        parts.append(Text("No guardrail has looked at any traffic yet."))
    parts.append(Text(""))
    parts += [Text.assemble((f"{name}: ", "bold"), said) for name, said in _conditions(state)]
    if state.get("reason"):
        parts.append(Text.assemble((f"why {state.get('phase') or 'so'}: ", "bold"), str(state["reason"])))
    parts.append(Text.assemble(("next: ", "bold"), next_words(state)))
    return Group(*parts)


def to_json(state: JSON) -> dict[str, Any]:
    """Return the same as plain values."""
    fields = ("model", "release", "phase", "overlays", "reason", "reference", "load")
    guardrails = [{**one, "mends": list(mends(one, state))} for one in state.get("guardrails") or ()]
    return {**{key: state.get(key) for key in fields}, "guardrails": guardrails, "next": next_words(state)}


def _finding(finding: JSON, state: JSON) -> RenderableType:
    verdict, breach = str(finding.get("verdict") or "unknown"), str(finding.get("on_breach") or "rollback")
    style = render.VERDICT_STYLE.get(verdict, "magenta")
    head = Text.assemble((f"{figures.guard_name(finding)}: ", "bold"), (verdict, style))
    numbers = f"{figures.guard_figure(finding, 'estimate')} (95 % {figures.guard_interval(finding)}), margin "
    numbers += f"{figures.guard_figure(finding, 'margin')}, n {figures.number(finding.get('n'))}"
    lines = [Text(numbers, "dim")]
    lines.append(_bar(f"towards {breach}", figures.progress(finding), finding, ("evidence", "threshold", "within")))
    if finding.get("pass_threshold"):
        lines.append(_bar("towards pass", figures.passing(finding), finding, ("passing", "pass_threshold", "beyond")))
    lines.append(Text(f"why: {finding.get('reason') or 'no reason recorded'}"))
    lines += [Text(mend) for mend in mends(finding, state)]
    return Group(Text(""), head, Padding(Group(*lines), (0, 0, 0, 2), expand=False))


def _bar(name: str, part: float | None, finding: JSON, keys: tuple[str, str, str]) -> Text:
    """Draw evidence towards its threshold; what is proved on the wrong side of the margin counts for nothing."""
    has, needs = (figures.evidence(finding.get(key)) for key in keys[:2])
    counts_not = f", but it is {keys[2]} the margin" if part == 0 and (finding.get(keys[0]) or 0) > 0 else ""
    line = f"{name:<16} {render.bar(part, 10)} {figures.share(part):>6}  evidence {has} of {needs}{counts_not}"
    return Text(line, "dim")


# What would change a verdict.


def mends(finding: JSON, state: JSON) -> Iterator[str]:
    """Yield what would change a guardrail's verdict, one short line each; the likeliest first."""
    verdict = finding.get("verdict")
    if verdict == "inconclusive":
        apart = _apart(str(finding.get("reason") or ""))
        yield from apart or _evidence(finding, state)
        yield from _unknown_machines(finding, state)
    elif verdict == "unknown":
        yield "mend: what the reason names; it goes on by itself"
    elif verdict == "fail":
        yield _FAILED.get(str(finding.get("on_breach")), "final for this attempt: `linnet retry --reason TEXT`")


_FAILED: Final = {
    "pause": "look into it, then `linnet resume`; it does not pause for this again",
    "warn": "advice: nothing follows by itself",
}


def _evidence(finding: JSON, state: JSON) -> Iterator[str]:
    """Say how many requests it still takes, and how to have them sooner."""
    short = _SAMPLE.search(str(finding.get("reason") or ""))
    if short is not None:
        needed, candidate, baseline = map(int, short.groups())
        yield from _samples(needed, candidate, baseline, state)
        return
    allowed = figures.allowed(finding)
    keys = ("passing", "pass_threshold") if allowed else ("evidence", "threshold")
    more = _more(finding, *keys)
    if more is not None:
        ends = "it passes" if allowed else f"it fails, which means {finding.get('on_breach') or 'rollback'}"
        yield f"more requests: as it looks now {ends} after some {_requests(more, state)}"
    faster = _faster(state)
    if faster > _WORTH:
        yield f"a larger share: at 50 % evidence grows {faster:.2g} times as fast"
    high = finding.get("high")
    if allowed and high is not None and not figures.allowed({**finding, "estimate": high}):
        yield f"a wider margin: one beyond {figures.guard_figure(finding, 'high')} would pass about now"


def _samples(needed: int, candidate: int, baseline: int, state: JSON) -> Iterator[str]:
    arm, missing = ("candidate", needed - candidate) if candidate <= baseline else ("baseline", needed - baseline)
    yield f"more requests: {figures.number(missing)} more of the {arm}'s{_time(missing, state, arm)}"


def _more(finding: JSON, has: str, needs: str) -> int | None:
    """Return how many more requests it takes, as far as evidence has grown so far; None if nobody can tell."""
    evidence, threshold, n = finding.get(has), finding.get(needs), finding.get("n") or 0
    if evidence is None or not threshold or not n or not 0 < evidence < threshold:
        return None
    more = n * (threshold - evidence) / (evidence + _COST)
    return round(more) if 1 <= more <= _FAR * n else None


def _requests(more: int, state: JSON) -> str:
    rounded = figures.number(float(f"{more:.2g}"))
    return f"{rounded} more of the candidate's{_time(more, state, 'candidate')}"


def _time(more: int, state: JSON, arm: str) -> str:
    load = state.get("load") or {}
    rate = (load.get(arm) or load.get("control") or {}).get("per_second") if arm in load or arm == "baseline" else None
    return f", {figures.seconds(more / rate)} at this rate" if rate else ""


def _faster(state: JSON) -> float:
    """Return how many times as fast evidence would grow at an even share: it grows with p (1 - p)."""
    part = (state.get("desired") or {}).get("candidate")
    return _EVEN**2 / (part * (1 - part)) if isinstance(part, float) and 0 < part < _EVEN else 1.0


def _apart(reason: str) -> list[str]:
    """Say what stands in the way whatever the number of requests."""
    return [mend for sign, mend in _APART.items() if sign in reason]


_APART: Final = {
    "not load-matched": "load-match: arms.control, or replicas by the share; at 50 % as many replicas are loaded alike",
    "the environment": "the baseline first: while it is over the limit too, nothing fails and nothing passes",
}


def _unknown_machines(finding: JSON, state: JSON) -> Iterator[str]:
    """Say of a latency what knowing its machines would bring."""
    latency = LOCATED.get(str(finding.get("guardrail")))
    if latency is None:
        return
    known = (state.get("reference") or {}).get(latency)
    if known is None:
        yield "a reference: a second replica of the baseline, or a control; after 6 h a latency is judged far sooner"
    elif known["seconds"] < _REFERENCE_S:
        so_far = figures.seconds(known["seconds"])
        yield f"a longer reference: {so_far} so far; 10 min tell something, 6 h all (for the next attempt)"


# Conditions, and what comes next.


def _conditions(state: JSON) -> Iterator[tuple[str, str]]:
    for latency, known in (state.get("reference") or {}).items():
        if known is not None or _judged(state, latency):
            yield f"reference of {latency.upper()}", words.reference(known, latency)
    if loaded := words.load(state.get("load")):
        yield "load", loaded


def _judged(state: JSON, latency: str) -> bool:
    return any(one.get("guardrail") in LATENCIES.get(latency, ()) for one in state.get("guardrails") or ())


NEXT = {
    "draft": "preflight begins",
    "preflight": "shadow begins once the gates have passing reports for this candidate",
    "shadow": "the canary's first step begins once enough shadow pairs are compared and no guardrail fails",
    "canary": "the next step begins once its time and its evidence are there and no guardrail fails",
    "bake": "promotion is final once the bake ends without a failing guardrail; the old baseline stays warm until then",
    "promoted": "nothing: the candidate is the baseline now; `linnet rollback` gives the old one its place back",
    "rolled_back": "nothing: the digest is quarantined; `linnet retry --reason TEXT` tries it again",
    "aborted": "nothing: no judgement was made; `linnet start SPEC` or `linnet retry` begins again",
    "superseded": "nothing: another release took its place",
}


def next_words(state: JSON) -> str:
    """Say what happens next, and what holds it back."""
    after = NEXT.get(str(state.get("phase")), "nothing: no release is under way; `linnet start SPEC` begins one")
    waiting = render.waiting(state) or render.to_go(state)
    held = "; ".join(f"{name}{f' ({why})' if why else ''}" for name, why in render.overlays(state.get("overlays")))
    mend = "; `linnet resume` hands it back to automation" if (state.get("overlays") or {}).get("paused") else ""
    return f"{after}{f'; waiting for: {waiting}' if waiting else ''}{f'; now {held}' if held else ''}{mend}"
