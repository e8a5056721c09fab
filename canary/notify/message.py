"""What an entry of the audit says to others: for whom it is, its body, and the signature. Pure."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from canary.console.place import place
from canary.notify.target import Kind

Entry = Mapping[str, str]
_HOLDS = frozenset({"held", "released"})
_BREACHES = frozenset({"rolled_back", "paused", "aborted"})  # a person's own are called rollback, pause and abort
_ROLLED_BACK = "rolled_back"
_SLACK = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


@dataclass(frozen=True, slots=True)
class Message:
    """What is sent, the same bytes at each try. `entry` is the stream id of what it tells of, `id` the receiver's."""

    entry: str
    id: str
    events: str
    body: bytes


def kinds(entry: Entry) -> tuple[Kind, ...]:
    """Return what an entry is news of, worst last; () for nobody's business."""
    if not entry.get("release"):
        return ()
    what, before, after = entry.get("what", ""), place(entry.get("before")).phase, place(entry.get("after")).phase
    confirmed = what == "acknowledged" and after == _ROLLED_BACK
    told = {
        Kind.PHASE: bool(after) and after != before,
        Kind.HOLD: what in _HOLDS,
        Kind.BREACH: what in _BREACHES,
        Kind.ROLLBACK: confirmed or (after == _ROLLED_BACK and before != _ROLLED_BACK),
    }
    return tuple(kind for kind, is_so in told.items() if is_so)


def message(entry: Entry, form: str) -> Message:
    """Return what is sent of an entry. The same entry is the same message, whoever sends it and how often."""
    events = [str(kind) for kind in kinds(entry)]
    delivery = entry.get("chain", "")[:32] or entry["id"]
    value = FORMS[form](entry, events, delivery)
    return Message(entry["id"], delivery, ",".join(events), json.dumps(value, separators=(",", ":")).encode())


def signature(secret: bytes, body: bytes, now: int) -> str:
    """Return the header's value: `now` in Unix seconds, and HMAC-SHA256 of "now.body" in hexadecimal."""
    told = hmac.new(secret, f"{now}.".encode() + body, "sha256").hexdigest()
    return f"t={now},v1={told}"


def _json(entry: Entry, events: list[str], delivery: str) -> dict[str, Any]:
    return {
        "id": delivery,
        "events": events,
        "model": entry.get("model", ""),
        "release": entry.get("release", ""),
        "attempt": _whole(entry.get("attempt")),
        "generation": _whole(entry.get("generation")),
        "what": entry.get("what", ""),
        "before": entry.get("before", ""),
        "after": entry.get("after", ""),
        "actor": entry.get("who", ""),
        "reason": entry.get("why", ""),
        "unix_ms": _whole(entry.get("unix_ms")),
        "audit": {"seq": _whole(entry.get("seq")), "chain": entry.get("chain", "")},
    }


def _slack(entry: Entry, _events: list[str], _delivery: str) -> dict[str, Any]:
    """Slack's own marks (links, mentions) come through as the text they were."""
    model, release, what, before, after, who, why = (
        " ".join(entry.get(name, "").split()).translate(_SLACK)
        for name in ("model", "release", "what", "before", "after", "who", "why")
    )
    way = after if before in {"", after} else f"{before} → {after}"
    return {"text": f"*{model}* {release}: {what}, {way}\n{why} ({who})"}


def _whole(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


FORMS = {"json": _json, "slack": _slack}
