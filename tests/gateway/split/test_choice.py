from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.arms import Arm, Endpoint
from canary.core.assignment import arm_of, controlled, number_of
from gateway.door.access import Caller, Scope, identify
from gateway.door.ask import Ask, read
from gateway.door.guest import Guest
from gateway.errors import ApiError
from gateway.pool.options import Balance, PoolOptions
from gateway.routes.table import PROXIED
from gateway.split.choice import choose, request_id_from, unit
from gateway.split.splits import Route
from tests.gateway.split.test_splits import LIVE

CHAT = PROXIED[b"/v1/chat/completions"]
KEY = identify(b"Bearer secret")
NOBODY = identify(None)


def asked(**more: object) -> Ask:
    """A request body."""
    return read(json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}], **more}).encode())


def guest(caller: Caller = KEY, **headers: bytes) -> Guest:
    """Who asks; `session` and `arm` are Linnet's headers."""
    named = {f"x-linnet-{name}".encode(): value for name, value in headers.items()}
    return Guest(CHAT, named, caller, 0)


def test_the_unit_is_the_first_that_is_known():
    """Session, then user, then the conversation under a key, then nobody."""
    assert unit(asked(user="u"), guest(session=b"s1")) == "session:s1"
    assert unit(asked(user="u", safety_identifier="i"), guest()) == "user:u"
    assert unit(asked(safety_identifier="i"), guest()) == "user:i"
    assert unit(asked(), guest()) == unit(asked(), guest()) != ""
    assert unit(asked(), guest(NOBODY)) == ""
    assert unit(asked(user=7), guest(NOBODY)) == ""


def test_who_is_nobody_is_drawn_anew_with_each_request():
    """Then chance is the request's."""
    arms = [choose(Route(LIVE), asked(), guest(NOBODY), f"r{n}").arm for n in range(99)]
    assert set(arms) == set(Arm)


def test_who_belongs_together_is_told_to_a_pool_that_asks():
    """Also where there is nothing to divide."""
    alone, sticky = replace(LIVE, candidate=None), PoolOptions(balance=Balance.AFFINITY)
    together = choose(Route(alone, pool=sticky), asked(user="u"), guest(NOBODY), "r").affinity
    assert together.startswith("conversation:")  # what a prompt begins with is what a replica has cached
    assert choose(Route(alone, pool=sticky), asked(user="u"), guest(session=b"s"), "r").affinity == "session:s"
    assert choose(Route(alone, pool=sticky), asked(user="u", messages=[]), guest(), "r").affinity == "user:u"
    assert choose(Route(alone), asked(user="u"), guest(), "r").affinity == ""


def test_a_key_is_known_by_its_hash_alone():
    """The key goes no further."""
    assert "secret" not in repr(KEY)
    assert identify(b"Bearer other").key_hash != KEY.key_hash


def test_forcing_an_arm_is_no_evidence_and_needs_the_scope():
    """A tester chooses; nobody else may."""
    choice = choose(Route(replace(LIVE, percent=0)), asked(), guest(arm=b"Candidate"), "r")
    assert (choice.arm, choice.forced, choice.evidence) == (Arm.CANDIDATE, True, False)
    with pytest.raises(ApiError) as refused:
        choose(Route(LIVE), asked(), guest(Caller("", frozenset({Scope.INFERENCE})), arm=b"candidate"), "r")
    assert refused.value.status == 403


def test_a_reduced_route_gives_no_evidence():
    """Chance did not decide there."""
    assert not choose(Route(LIVE, "stale"), asked(), guest(), "r").evidence
    assert choose(Route(LIVE), asked(), guest(), "r").evidence


@given(st.binary(max_size=300))
def test_a_request_id_is_always_safe_to_send_and_to_log(given_id: bytes):
    """No control characters, no end; a sane one stays."""
    kept = request_id_from(given_id, "fresh")
    assert 1 <= len(kept) <= 128
    assert kept.isascii()
    assert kept.isprintable()
    assert request_id_from(kept.encode(), "x") == kept


NOW = 1_800_000_000.0
CONTROL = Endpoint("control", "base", ("http://127.0.0.1:3",))


def test_who_sticks_to_an_arm_has_a_number():
    """The one that drew the arm; a request that stands for itself has none, nor has anybody where nothing is drawn."""
    choice = choose(Route(LIVE), asked(), guest(session=b"s"), "r", NOW)
    assert choice.unit == number_of(LIVE, "session:s") > 0
    assert choice.arm is arm_of(LIVE, choice.unit)
    assert choose(Route(LIVE), asked(), guest(NOBODY), "r", NOW).unit == 0
    for split in (replace(LIVE, percent=0), replace(LIVE, candidate=None)):
        assert choose(Route(split), asked(), guest(session=b"s"), "r", NOW).unit == 0
    assert choose(Route(LIVE), asked(), guest(session=b"s", arm=b"candidate"), "r", NOW).unit == 0


def test_until_the_arms_are_warm_what_is_divided_is_cold():
    """Nobody else's caches fill."""
    warming = replace(LIVE, warm_until=NOW)
    assert choose(Route(warming), asked(), guest(), "r", NOW - 0.1).cold
    assert not choose(Route(warming), asked(), guest(), "r", NOW).cold
    assert not choose(Route(replace(warming, percent=0)), asked(), guest(), "r", NOW - 0.1).cold
    assert not choose(Route(warming), asked(), guest(arm=b"candidate"), "r", NOW - 0.1).cold


def test_every_choice_has_its_time():
    """Also where nothing is divided: the baseline's replicas are compared all the time."""
    assert choose(Route(replace(LIVE, candidate=None)), asked(), guest(), "r", NOW).at == NOW


def test_the_control_answers_its_part_of_the_baseline():
    """It is the baseline to everybody; its failure may be answered by the baseline's own replicas."""
    split = replace(LIVE, percent=20, control=CONTROL, control_percent=20)
    choices = [choose(Route(split), asked(), guest(session=b"%d" % n), "r", NOW) for n in range(400)]
    chosen = [choice for choice in choices if choice.control]
    assert 40 < len(chosen) < 130
    for choice in choices:
        assert choice.control == controlled(split, choice.unit)
        assert choice.endpoint == (CONTROL if choice.control else split.endpoint(choice.arm))
        assert choice.may_fail_over == (choice.control or choice.arm is Arm.CANDIDATE)
    instead = chosen[0].at_baseline()
    assert (chosen[0].arm, chosen[0].evidence) == (Arm.BASELINE, True)
    assert (instead.endpoint, instead.control, instead.evidence, instead.may_fail_over) == (
        LIVE.baseline,
        False,
        False,
        False,
    )


def test_a_control_answers_before_the_first_share_and_spends_nobodys_chance():
    """In the shadow it is there to be compared with the rest; units count once they can meet the candidate."""
    split = replace(LIVE, percent=0, control=CONTROL, control_percent=20)
    choices = [choose(Route(split), asked(), guest(session=b"%d" % n), "r", NOW) for n in range(400)]
    assert 40 < sum(choice.control for choice in choices) < 130
    assert {(choice.arm, choice.unit, choice.cold) for choice in choices} == {(Arm.BASELINE, 0, False)}


def test_a_tester_meets_no_control():
    """Who asks for the baseline gets the baseline's own replicas."""
    split = replace(LIVE, control=CONTROL, control_percent=50)
    for number in range(50):
        choice = choose(Route(split), asked(), guest(session=b"%d" % number, arm=b"baseline"), "r", NOW)
        assert (choice.control, choice.endpoint) == (False, LIVE.baseline)
