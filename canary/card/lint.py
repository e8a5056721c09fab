"""What a valid spec may still get wrong: what it promises that cannot come, and what does not answer.

`advice` reads the spec alone. `engines` and `answers` ask: the control plane what runs, and replicas what they serve.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from canary.card.parts import ArmSpec
from canary.card.source import Path, read
from canary.card.spec import Spec
from canary.console.client import Client
from canary.core.plan import PROVED_FROM
from canary.core.signals import SIGNALS
from canary.errors import LinnetError

_PATIENCE_S: Final = 2.0
_COSTS: Final = ("cost_per_token", "cost_per_request")
_UP: Final = "start it (linnet up)"


class Note(NamedTuple):
    """Something about one line of a spec; a fault makes it invalid, anything else is a warning."""

    place: Path
    what: str
    fault: bool = False


def written(spec: Spec, notes: Iterable[Note]) -> list[str]:
    """Return one "FILE:LINE: what; mend" a note, in the order of the file."""
    source = read(spec.text)
    return [f"{spec.where}:{line}: {what}" for line, what in sorted({(source.line(n.place), n.what) for n in notes})]


def advice(spec: Spec) -> Iterator[Note]:
    """Yield what a spec promises and cannot keep."""
    yield from _never_matched(spec)
    yield from _only_better(spec)
    yield from _unpaid(spec)
    yield from _absent(spec)


def _never_matched(spec: Spec) -> Iterator[Note]:
    """A latency passes only where the arms are loaded alike, and the first place that asks for a proof waits for it."""
    named = spec.guardrails.named()
    held = [name for name in named if SIGNALS[name].tail is not None and SIGNALS[name].unit == "ratio"]
    held = [name for name in held if named[name].on_breach == "rollback"]
    places: list[tuple[Path, float]] = [(("steps", index), one.percent) for index, one in enumerate(spec.steps)]
    for place, percent in (*places, (("bake",), spec.bake.percent)) if held else ():
        ratio = _load_ratio(spec, percent)
        most = spec.analysis.max_load_ratio
        if 1 / most <= ratio <= most:
            return
        if percent >= PROVED_FROM or place == ("bake",):
            yield Note(
                place,
                f"at {percent:g} % the candidate has x{ratio:.2g} the baseline's requests in flight a replica, so "
                f"{held[0]} cannot pass here nor before, and the release waits for ever; add a step at 50 %, "
                "replicas by the share, or arms.control with a step of at most 50 %",
            )
            return


def _only_better(spec: Spec) -> Iterator[Note]:
    """A margin of nothing is passed by nobody who is equal."""
    for name, guard in spec.guardrails.named().items():
        if SIGNALS[name].unit == "ratio" and guard.margin <= 1 and guard.on_breach == "rollback":
            what = f"max_ratio {guard.margin:g} is passed only by a candidate that is proved to be better"
            yield Note(("guardrails", name), f"{name}: {what}; allow a little, such as 1.05, if equal is good enough")


def _load_ratio(spec: Spec, percent: float) -> float:
    """Return the candidate's requests in flight a replica over those of what it is compared with."""
    arms, rest = spec.arms, 100.0 - percent
    paced = min(percent, rest) if arms.control else rest
    beside = (arms.control.replicas if arms.control else arms.baseline.replicas) or ("",)
    return percent / len(arms.candidate.replicas or ("",)) / max(paced / len(beside), 1e-9)


def _unpaid(spec: Spec) -> Iterator[Note]:
    for name in ("baseline", "candidate"):
        arm: ArmSpec = getattr(spec.arms, name)
        if not arm.usd_per_hour and arm.rates is None:
            seen = "costs are compared as equal" if any(one in spec.guardrails.named() for one in _COSTS) else ""
            spent = "the spend and the stop loss do not see it" if name == "candidate" else ""
            if what := " and ".join(part for part in (spent, seen) if part):
                yield Note(("arms", name), f"the {name} costs nothing, so {what}; add usd_per_hour")


def _absent(spec: Spec) -> Iterator[Note]:
    card, gates = spec.decision, spec.gates
    files: list[tuple[Path, str, str]] = [(("gates", "load", "workload"), gates.load.workload, "linnet loadtest")]
    if gates.eval is not None:
        files += [(("decision", "evaluation", part), file, "linnet eval") for part, file in card.evaluation.items()]
    for place, file, verb in files:
        if not spec.resolve(file).exists():
            yield Note(place, f"{file} is not there, and `{verb}` will need it; mend the path or make the file")


def engines(spec: Spec, client: Client) -> Iterator[Note]:
    """Yield what keeps the arms from being served, as far as the other side knows.

    An engine that nobody has started and that the spec does not place is a fault. A side that does not answer is a
    warning: the spec was checked without it.
    """
    try:
        running = client.engines()
    except LinnetError as error:
        yield Note((), f"not checked whether the engines run: {error}")
        return
    for name, arm in _arms(spec).items():
        known = running.get(arm.engine) or {}
        lacking = [key for key, has in (("replicas", known.get("url")), ("digest", known.get("digest"))) if not has]
        lacking = [key for key in lacking if not getattr(arm, key)]
        if name != "control" and lacking:
            what = f"engine {arm.engine} is not running and the spec gives no {' and no '.join(lacking)}"
            yield Note(("arms", name, "engine"), f"{what}; {_UP} or add it under arms.{name}", fault=True)
        yield from answers(name, arm, arm.replicas or tuple(filter(None, (known.get("url"),))))


def _arms(spec: Spec) -> Mapping[str, ArmSpec]:
    arms, control = spec.arms, spec.arms.control_arm
    found = {"baseline": arms.baseline, "candidate": arms.candidate}
    return found if control is None else {**found, "control": control}


def answers(name: str, arm: ArmSpec, replicas: Iterable[str]) -> Iterator[Note]:
    """Ask each replica what it serves: another model is a fault, silence a warning, for gateways stand elsewhere."""
    for replica in replicas:
        try:
            served = _served(replica)
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = getattr(error, "reason", None) or error
            yield Note(
                ("arms", name), f"{replica} does not say from here what it serves ({why}); {_UP} or mend replicas"
            )
            continue
        if arm.served_model not in served:
            what = f"{replica} does not serve {arm.served_model}, but {', '.join(served) or 'nothing'}"
            yield Note(("arms", name, "served_model"), f"{what}; write the name that the engine knows", fault=True)


def _served(replica: str) -> list[str]:
    request = urllib.request.Request(f"{replica}/v1/models")  # noqa: S310 - the spec checks the scheme
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=_PATIENCE_S) as answer:
        said: dict[str, Any] = json.loads(answer.read(1 << 20))
    return [str(one["id"]) for one in said["data"]]
