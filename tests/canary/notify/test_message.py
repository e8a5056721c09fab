"""What an entry of the audit says to others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.notify.message import kinds, message, signature

ENTRY = {
    "id": "1800000000000-0",
    "seq": "7",
    "chain": "ab" * 32,
    "model": "m",
    "release": "r1",
    "attempt": "1",
    "generation": "5",
    "before": "canary 5 %",
    "after": "rolled_back 0 %",
    "who": "controller",
    "what": "rolled_back",
    "why": "error_rate 200/300",
    "unix_ms": "1800000000000",
    "evidence": "{}",
}


@pytest.mark.parametrize(
    ("what", "before", "after", "wanted"),
    [
        ("start", "", "draft 0 %", "phase"),
        ("canary", "shadow 0 %", "canary 5 %", "phase"),
        ("step", "canary 5 %", "canary 50 %", ""),
        ("promoted", "bake 95 %", "promoted 100 %", "phase"),
        ("held", "canary 5 %", "canary 5 %", "hold"),
        ("released", "canary 5 %", "canary 5 %", "hold"),
        ("pause", "canary 5 %", "canary 5 %", ""),
        ("paused", "canary 5 %", "canary 5 %", "breach"),
        ("rolled_back", "canary 5 %", "rolled_back 0 %", "phase breach rollback"),
        ("rollback", "canary 5 %", "rolled_back 0 %", "phase rollback"),
        ("aborted", "canary 5 %", "aborted 0 %", "phase breach"),
        ("abort", "canary 5 %", "aborted 0 %", "phase"),
        ("acknowledged", "rolled_back 0 %", "rolled_back 0 %", "rollback"),
        ("acknowledged", "aborted 0 %", "aborted 0 %", ""),
        ("freeze", "rolled_back 0 %", "rolled_back 0 %", ""),
        ("retry", "rolled_back 0 %", "draft 0 %", "phase"),
    ],
)
def test_what_an_entry_is_news_of(what, before, after, wanted) -> None:
    """A breach is what stopped by itself; a person's own stop is none."""
    assert " ".join(kinds({**ENTRY, "what": what, "before": before, "after": after})) == wanted


def test_what_is_no_releases_is_nobodys_news() -> None:
    """API keys, and entries that cannot be read."""
    assert kinds({"what": "keys create app", "before": "", "after": "active", "model": ""}) == ()
    assert kinds({}) == ()


def test_the_body_says_what_happened_and_where_it_stands_in_the_audit() -> None:
    """The same entry is the same bytes under the same id."""
    told = message(ENTRY, "json")
    value = json.loads(told.body)
    assert (told.id, told.entry, told.events) == ("ab" * 16, "1800000000000-0", "phase,breach,rollback")
    assert value["id"] == told.id
    assert value["audit"] == {"seq": 7, "chain": "ab" * 32}
    assert (value["model"], value["before"], value["after"]) == ("m", "canary 5 %", "rolled_back 0 %")
    assert (value["reason"], value["actor"], value["unix_ms"]) == (
        "error_rate 200/300",
        "controller",
        1_800_000_000_000,
    )
    assert message(dict(reversed(ENTRY.items())), "json") == told


def test_slack_gets_one_text_without_marks_of_others() -> None:
    """Nobody is called by a reason, and no link is made of one."""
    told = json.loads(message({**ENTRY, "why": "<!channel> & <http://evil|here>"}, "slack").body)
    assert told == {
        "text": "*m* r1: rolled_back, canary 5 % → rolled_back 0 %\n"
        "&lt;!channel&gt; &amp; &lt;http://evil|here&gt; (controller)"
    }


def test_an_entry_without_a_chain_has_an_id_too() -> None:
    """Its place in the stream."""
    assert message({**ENTRY, "chain": "", "unix_ms": "?"}, "json").id == ENTRY["id"]


@given(st.binary(), st.integers(0, 2**33), st.binary(min_size=1))
def test_receivers_verify_as_the_reference_shows(body: bytes, now: int, secret: bytes) -> None:
    """The documented lines accept what was signed, in time, and nothing else."""
    text = Path("docs/reference.md").read_text(encoding="utf-8")
    space: dict[str, object] = {}
    exec(text.split("```python\n# verify a notification\n")[1].split("```")[0], space)  # noqa: S102 - our own reference
    genuine = space["genuine"]
    assert callable(genuine)
    told = signature(secret, body, now)
    assert genuine(secret, told, body, now + 60)
    assert not genuine(secret, told, body + b"!", now + 60)
    assert not genuine(secret + b"!", told, body, now + 60)
    assert not genuine(secret, told, body, now + 301)
