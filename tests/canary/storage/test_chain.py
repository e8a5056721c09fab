"""The chain: whole as it was written, and whatever was done to it shows at its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.storage.chain import ROOT, Link, chained, check, check_export, digest, parse, sealed, verify

FIELDS = st.dictionaries(st.sampled_from(("who", "what", "why", "evidence")), st.text(max_size=8))


def written(said: list[dict[str, str]], before: Link = ROOT) -> list[dict[str, Any]]:
    """Return entries as the store keeps them."""
    entries = []
    for number, fields in enumerate(said, before.seq + 1):
        before = chained(before, fields)
        entries.append({"id": f"{number}-0", "seq": str(before.seq), "chain": before.chain, **fields})
    return entries


def head(entries: list[dict[str, Any]]) -> Link:
    """Return the last link."""
    return Link(int(entries[-1]["seq"]), entries[-1]["chain"])


TEN = written([{"who": "ann", "what": f"act {number}"} for number in range(1, 11)])


@given(st.lists(FIELDS, max_size=6))
def test_what_was_written_is_whole(said) -> None:
    """Whatever the fields say, in the store and in an export."""
    entries = written(said)
    last = head(entries) if entries else None
    found = verify(entries, last, entries)
    assert (found.fault, found.last) == ("", last)
    assert check_export(parse(json.dumps(entry) for entry in entries)).last == last


@given(st.lists(FIELDS, min_size=2, max_size=6), st.data())
def test_any_change_shows(said, data) -> None:
    """One entry altered, taken out, doubled, or put elsewhere."""
    entries = written(said)
    last, at = head(entries), data.draw(st.integers(0, len(entries) - 1))
    to = data.draw(st.integers(0, len(entries) - 1).filter(lambda to: to != at))
    altered = {**entries[at], "why": entries[at].get("why", "") + "!"}
    without = entries[:at] + entries[at + 1 :]
    for forged in (
        [*entries[:at], altered, *entries[at + 1 :]],
        without,
        [*entries[: at + 1], entries[at], *entries[at + 1 :]],
        [*without[:to], entries[at], *without[to:]],
    ):
        assert verify(forged, last).fault


@pytest.mark.parametrize(
    ("entries", "last", "words"),
    [
        ([*TEN[:3], {**TEN[3], "who": "eve"}, *TEN[4:]], head(TEN), "altered at seq 4 (eve act 4)"),
        ([*TEN[:3], *TEN[4:]], head(TEN), "seq 4 is missing, before 5-0 (ann act 5)"),
        ([*TEN[:3], *TEN[6:]], head(TEN), "seq 4 to 6 are missing, before 7-0"),
        ([*TEN[:3], TEN[4], TEN[3], *TEN[5:]], head(TEN), "out of order at seq 5, after seq 3"),
        ([*TEN[:5], TEN[2], *TEN[5:]], head(TEN), "inserted at seq 3, after seq 5"),
        (
            [*TEN[:5], {"id": "5-1", "who": "eve"}, *TEN[5:]],
            head(TEN),
            "inserted after seq 5: an entry without a place",
        ),
        (TEN[:8], head(TEN), "the last entries are missing: seq 9 to 10"),
        (TEN, Link(10, "0" * 64), "the head (seq 10) is not that of the last entry (seq 10)"),
        (TEN, head(TEN[:4]), "the head (seq 4) is not that of the last entry (seq 10)"),
        (TEN[2:], head(TEN), "seq 1 to 2 are missing, before 3-0"),
        ([], head(TEN), "the last entries are missing: seq 1 to 10"),
        ([{**TEN[0], "seq": "-1"}, *TEN[1:]], head(TEN), "inserted after seq 0"),
    ],
)
def test_each_fault_is_named_with_its_place(entries, last, words) -> None:
    """What, and after or before which entry, in one line."""
    fault = verify(entries, last).fault
    assert words in fault
    assert "\n" not in fault


def test_older_entries_have_no_chain_and_say_so() -> None:
    """Those of an earlier version come before the chain; none may come later."""
    old = [{"id": "0-1", "who": "ann"}, {"id": "0-2", "who": "ann"}]
    found = verify([*old, *TEN], head(TEN))
    assert (found.fault, found.unchained, found.first) == ("", 2, 1)
    assert verify(old, None).to_dict() == {
        "whole": True,
        "first": 0,
        "last": 0,
        "chain": "",
        "unchained": 2,
        "fault": "",
    }


def test_an_export_tells_what_came_before_trimmed_entries() -> None:
    """Its last line is enough."""
    assert verify(TEN[6:], head(TEN)).fault
    for kept in (TEN[:6], TEN[5:6], TEN[3:8]):
        found = verify(TEN[6:], head(TEN), kept)
        assert (found.fault, found.first, found.last) == ("", int(kept[0]["seq"]), head(TEN))
    assert "seq 6 is missing" in verify(TEN[6:], head(TEN), TEN[:5]).fault


def test_a_chain_forged_anew_is_not_the_exports() -> None:
    """Whole by itself, and yet another one from the forged entry on."""
    forged = written([{"who": "ann", "what": f"act {number}" if number != 3 else "nothing"} for number in range(1, 11)])
    assert not verify(forged, head(forged)).fault
    assert "differs from the export at seq 3" in verify(forged, head(forged), TEN[:5]).fault
    assert "ends at seq 4, the export at seq 10" in verify(TEN[:4], head(TEN[:4]), TEN).fault
    assert "ends at seq 0, the export at seq 10" in verify([], None, TEN).fault
    assert "the export: altered at seq 2" in verify(TEN, head(TEN), [TEN[0], {**TEN[1], "why": "?"}]).fault


def test_a_part_is_checked_from_its_first_entry_on() -> None:
    """What came before is known to nobody there."""
    assert check(TEN[4:], None).first == 5
    assert check_export(TEN[4:]).fault == ""
    assert "altered at seq 7" in check_export([*TEN[4:6], {**TEN[6], "why": "?"}]).fault


def test_the_digest_is_of_the_fields_alone() -> None:
    """What the store adds is bound by the chain; the order of fields says nothing."""
    assert digest(TEN[0]) == digest({"what": "act 1", "who": "ann"})
    assert sealed({"b": "2", "a": "é"}) == [digest({"a": "é", "b": "2"}), "b", "2", "a", "é"]


def test_what_no_text_can_hold_is_replaced() -> None:
    """A reason typed in another encoding must not keep a rollback from being written."""
    assert sealed({"why": "caf\udce9"})[2] == "caf?"


@pytest.mark.parametrize("line", ["", "{", "[]", "1", '{"seq": 1}'])
def test_a_line_that_is_no_entry_is_named(line) -> None:
    """By its number."""
    with pytest.raises(ValueError, match="line 2"):
        parse([json.dumps(TEN[0]), line])
