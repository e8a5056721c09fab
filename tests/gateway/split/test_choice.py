from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.arms import Arm
from gateway.door.access import Caller, Scope, identify
from gateway.door.ask import Ask, read
from gateway.errors import ApiError
from gateway.split.choice import choose, request_id_from, unit
from gateway.split.splits import Route
from tests.gateway.split.test_splits import LIVE

KEY = identify(b"Bearer secret")
NOBODY = identify(None)


def asked(**more: object) -> Ask:
    """A request body."""
    return read(json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], **more}).encode())


def test_the_unit_is_the_first_that_is_known():
    """Session, then user, then the conversation under a key, then the request."""
    session = {b"x-linnet-session": b"s1"}
    assert unit(asked(user="u"), session, KEY, "r") == "session:s1"
    assert unit(asked(user="u", safety_identifier="i"), {}, KEY, "r") == "user:u"
    assert unit(asked(safety_identifier="i"), {}, KEY, "r") == "user:i"
    assert unit(asked(), {}, KEY, "r") == unit(asked(), {}, KEY, "other")
    assert unit(asked(), {}, NOBODY, "r") == "request:r"
    assert unit(asked(user=7), {}, NOBODY, "r") == "request:r"


def test_a_key_is_known_by_its_hash_alone():
    """The key goes no further."""
    assert "secret" not in repr(KEY)
    assert identify(b"Bearer other").key_hash != KEY.key_hash


def test_forcing_an_arm_is_no_evidence_and_needs_the_scope():
    """A tester chooses; nobody else may."""
    wish = {b"x-linnet-arm": b"Candidate"}
    choice = choose(Route(replace(LIVE, percent=0)), asked(), wish, KEY, "r")
    assert (choice.arm, choice.forced, choice.evidence) == (Arm.CANDIDATE, True, False)
    with pytest.raises(ApiError) as refused:
        choose(Route(LIVE), asked(), wish, Caller("", frozenset({Scope.INFERENCE})), "r")
    assert refused.value.status == 403


def test_a_reduced_route_gives_no_evidence():
    """Chance did not decide there."""
    assert not choose(Route(LIVE, "stale"), asked(), {}, KEY, "r").evidence
    assert choose(Route(LIVE), asked(), {}, KEY, "r").evidence


@given(st.binary(max_size=300))
def test_a_request_id_is_always_safe_to_send_and_to_log(given_id: bytes):
    """No control characters, no end; a sane one stays."""
    kept = request_id_from(given_id, "fresh")
    assert 1 <= len(kept) <= 128
    assert kept.isascii()
    assert kept.isprintable()
    assert request_id_from(kept.encode(), "x") == kept
