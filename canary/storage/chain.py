"""The audit's chain: each entry is bound to the one before, so that a change of what was written shows. Pure.

An entry's fields are text. `seq` counts from 1. `chain` is the SHA-256 of "CHAIN SEQ DIGEST": the chain of the entry
before (64 zeros for the first), the entry's own number, and the SHA-256 of its other fields as JSON with sorted keys
and no spaces. So an entry that was altered, taken out, put in or moved shows. Who can write to the store could forge
the whole chain anew, but not one that ends like an earlier export, or like a notification that was sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

_OUTSIDE = ("id", "seq", "chain")  # what the store gives an entry, beside the fields that its digest is of
Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Link:
    """The end of a chain: an entry's number and its chain."""

    seq: int
    chain: str


ROOT = Link(0, "0" * 64)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a chain is worth: entries `first` to `last` are whole, or `fault` says what is wrong and where.

    `unchained` entries are older than the chain. A chain that begins after 1 was trimmed before it was read.
    """

    first: int = 0
    last: Link | None = None
    unchained: int = 0
    fault: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        link = self.last or Link(0, "")
        told = {"first": self.first, "last": link.seq, "chain": link.chain, "unchained": self.unchained}
        return {"whole": not self.fault, **told, "fault": self.fault}


def digest(fields: Mapping[str, str]) -> str:
    """Return the SHA-256 of an entry's fields, in hexadecimal."""
    own = {name: text for name, text in fields.items() if name not in _OUTSIDE}
    return sha256(json.dumps(own, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def sealed(fields: Mapping[str, str]) -> list[str]:
    """Return what a script appends: the digest, then fields and values in turn. What no text can hold becomes "?"."""
    clean = {name: text.encode("utf-8", "replace").decode() for name, text in fields.items()}
    return [digest(clean), *(part for pair in clean.items() for part in pair)]


def chained(before: Link, fields: Mapping[str, str]) -> Link:
    """Return the link of the entry that follows `before`; the store's script does the same."""
    seq = before.seq + 1
    return Link(seq, sha256(f"{before.chain} {seq} {digest(fields)}".encode()).hexdigest())


def check(entries: Sequence[Entry], before: Link | None = ROOT) -> Checked:
    """Follow the chain through `entries` (in the order they were kept) from the link `before` them to the first fault.

    None takes the first entry's link as given: what came before it is known to nobody here.
    """
    start = next((at for at, entry in enumerate(entries) if "chain" in entry), len(entries))
    if before not in (ROOT, None) and start:
        return Checked(fault=_strange(entries[0], before))
    found, kept = Checked(unchained=start), entries[start:]
    numbers = [_seq(entry) for entry in kept]
    for at, entry in enumerate(kept):
        link = _linked(entry)
        if before is not None and link != chained(before, entry):
            return replace(found, fault=_fault(entry, before, numbers, at))
        found, before = replace(found, first=found.first or link.seq, last=link), link
    return found


def verify(entries: Sequence[Entry], head: Link | None, kept: Sequence[Entry] = ()) -> Checked:
    """Check the store's `entries` up to its `head`; hold them against an export that was `kept`, if there is one.

    The export also tells what came before entries that were trimmed since.
    """
    own = check_export(kept)
    if own.fault:
        return replace(own, fault=f"the export: {own.fault}")
    exported = {_seq(entry): _linked(entry) for entry in kept if "chain" in entry}
    first = next((_seq(entry) for entry in entries if "chain" in entry), 1)
    before = max((seq for seq in exported if seq < first), default=0)
    checked = _ended(check(entries, exported.get(before, ROOT)), head)
    if checked.fault:
        return checked
    other = next((entry for entry in entries if exported.get(_seq(entry), _linked(entry)) != _linked(entry)), None)
    if other is not None:
        return replace(checked, fault=f"the store differs from the export at seq {_seq(other)}{_told(other)}")
    if own.last and own.last.seq > (head or ROOT).seq:
        fault = f"the store ends at seq {(head or ROOT).seq}, the export at seq {own.last.seq}"
        return replace(checked, fault=fault)
    return replace(checked, first=min(own.first or checked.first, checked.first), last=checked.last or own.last)


def check_export(kept: Sequence[Entry]) -> Checked:
    """Check an export by itself; of one that begins after seq 1, the first entry is taken as given."""
    first = next((_seq(entry) for entry in kept if "chain" in entry), 1)
    return check(kept, ROOT if first == 1 else None)


def _ended(checked: Checked, head: Link | None) -> Checked:
    """Hold a whole chain against what the store says is its last link."""
    last, head = checked.last or ROOT, head or ROOT
    if checked.fault or last == head:
        return checked
    if last.seq < head.seq:
        return replace(checked, fault=f"the last entries are missing: seq {last.seq + 1} to {head.seq}")
    return replace(checked, fault=f"the head (seq {head.seq}) is not that of the last entry (seq {last.seq})")


def _fault(entry: Entry, before: Link, numbers: Sequence[int], at: int) -> str:
    """Say what is wrong with the first entry that does not follow the one before it."""
    seq, wanted = numbers[at], before.seq + 1
    if "chain" not in entry or not seq:
        return _strange(entry, before)
    if seq == wanted:
        return f"altered at seq {seq}{_told(entry)}"
    if seq < wanted:
        word = "inserted" if seq in numbers[:at] else "out of order"
        return f"{word} at seq {seq}, after seq {before.seq}{_told(entry)}"
    if wanted in numbers[at:]:
        return f"out of order at seq {seq}, after seq {before.seq}{_told(entry)}"
    gap = f"seq {wanted} is" if seq == wanted + 1 else f"seq {wanted} to {seq - 1} are"
    return f"{gap} missing, before {entry.get('id', 'seq ' + str(seq))}{_told(entry)}"


def _strange(entry: Entry, before: Link) -> str:
    return f"inserted after seq {before.seq}: an entry without a place in the chain{_told(entry)}"


def _told(entry: Entry) -> str:
    said = " ".join(str(entry.get(name, "")) for name in ("who", "what")).strip()
    return f" ({' '.join(said.split())})" if said else ""


def _seq(entry: Entry) -> int:
    text = str(entry.get("seq", ""))
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0  # noqa: PLR2004 - 64 bits


def _linked(entry: Entry) -> Link:
    return Link(_seq(entry), str(entry.get("chain", "")))


def parse(lines: Iterable[str]) -> list[dict[str, str]]:
    """Read exported JSON lines. Raises ValueError with the line's number."""
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError:
            raise ValueError(f"line {number} is not JSON") from None
        if not isinstance(entry, dict) or not all(isinstance(text, str) for text in entry.values()):
            raise ValueError(f"line {number} is no entry of an audit")
        entries.append(entry)
    return entries
