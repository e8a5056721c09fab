from __future__ import annotations

import json
from typing import Any

import pytest

from canary.core.arms import Arm, Endpoint, Split
from canary.core.outcome import Outcome, Result
from gateway.door.ask import read
from gateway.door.multipart import Upload
from gateway.relay.account import Clock, asks_json, examined, found_in, outcome_of
from gateway.split.choice import Choice
from serving.cost import cost_of
from serving.kept import Kept
from serving.wire import Usage, WholeAnswer

SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
ALL = ("refusal", "malformed", "repetition")


def choice(*, evidence: bool = True, **more: Any) -> Choice:
    """The candidate's, in a user's second hour."""
    endpoint = Endpoint("e", "s", ("http://127.0.0.1:1",), price=(1.0, 0.1, 0.01))
    split = Split("m", 1, endpoint, endpoint, stage=3, examined=ALL)
    return Choice(split, Arm.CANDIDATE, endpoint, "domain", "id", forced=False, evidence=evidence, at=12.5, **more)


def ask(**more: Any) -> Any:
    """A request with these members."""
    return read(json.dumps({"model": "m", **more}).encode())


def said(text: str = "", *arguments: str, reason: str = "stop") -> WholeAnswer:
    """A good answer, kept."""
    kept = Kept(1000)
    kept.say(text)
    for number, one in enumerate(arguments):
        kept.call(number, one)
    return WholeAnswer(reason, Usage(100, 11, 64), kept=kept)


def test_an_outcome_says_who_was_asked_and_how_it_went():
    """Every field, once."""
    clock = Clock(10.0, 15.0, 11.0, 0.75)
    sticky = choice(unit=77, cold=True, control=True)
    outcome = outcome_of(sticky, Result.OK, said("Hi"), clock, status=200, replica=2, found=("refusal",))
    assert outcome == Outcome(
        arm=Arm.CANDIDATE,
        result=Result.OK,
        slice="domain",
        stage=3,
        status=200,
        e2e=5.0,
        ttft=1.0,
        tpot=0.4,
        prompt_tokens=100,
        completion_tokens=11,
        finish_reason="stop",
        cost_usd=cost_of((1.0, 0.1, 0.01), Usage(100, 11)),
        evidence=True,
        at=12.5,
        unit=77,
        cold=True,
        control=True,
        replica=2,
        stall=0.75,
        flaws=("refusal",),
        cached_tokens=64,
    )


def test_without_usage_little_is_known():
    """No price, and no tokens but the chunks that came."""
    outcome = outcome_of(choice(), Result.ERROR, WholeAnswer(error="oh"), Clock(1.0, 2.0))
    assert (outcome.prompt_tokens, outcome.completion_tokens, outcome.cached_tokens) == (0, 0, 0)
    assert (outcome.cost_usd, outcome.ttft, outcome.tpot, outcome.stall, outcome.replica) == (
        None,
        None,
        None,
        None,
        -1,
    )


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, False),
        ({"response_format": {"type": "text"}}, False),
        ({"response_format": None}, False),
        ({"response_format": "json_object"}, False),
        ({"response_format": {"type": ["json_object"]}}, False),
        ({"response_format": {"type": "json_object"}}, True),
        ({"response_format": SCHEMA}, True),
        ({"response_format": SCHEMA, "messages": [{"role": "user", "content": "x" * 20_000}]}, True),
        ({"text": {"format": {"type": "text"}}}, False),
        ({"text": "plain"}, False),
        ({"text": {"format": SCHEMA}}, True),
        ({"structured_outputs": {"json": {"type": "object"}}}, True),
        ({"structured_outputs": {"json_object": True}}, True),
        ({"structured_outputs": {"json": None, "regex": "a+"}}, False),
        ({"structured_outputs": {"choice": ["a"]}}, False),
        ({"guided_json": {"type": "object"}}, True),
        ({"guided_json": None, "guided_regex": "a+"}, False),
        ({"tools": [{"type": "function"}]}, False),
    ],
)
def test_json_is_asked_for_in_several_ways(members: dict[str, Any], expected: bool):
    """OpenAI's two, and vLLM's own; a choice or a pattern is no JSON, and tools are their own matter."""
    assert asks_json(ask(**members)) is expected


def test_what_cannot_be_read_asks_for_nothing():
    """A long body is walked over, not parsed; an upload asks for transcripts."""
    body = json.dumps({"model": "m", "prompt": "x" * 20_000, "response_format": 1}).encode()
    assert not asks_json(read(body.replace(b'"response_format": 1', b'"response_format": {"type": 01}')))
    assert not asks_json(Upload(b"", b"", {}, "m", stream=False))


def test_flaws_are_found_by_what_was_asked():
    """The same words are a flaw where JSON was due, and only what the split names is looked for."""
    assert found_in(said("words"), choice(), ask(response_format=SCHEMA)) == ("malformed",)
    assert found_in(said("words"), choice(), ask()) == ()
    assert found_in(said("", "{"), choice(), ask()) == ("malformed",)
    assert found_in(said("la", reason="repetition"), choice(), ask()) == ("repetition",)
    unexamined = choice()
    unexamined.split = Split("m", 1, unexamined.endpoint)
    assert found_in(said("", "{"), unexamined, ask()) == ()


def test_what_is_no_evidence_is_not_examined():
    """A tester's answer, and the baseline's in place of a candidate that failed."""
    assert examined(choice()) == ALL
    assert examined(choice(evidence=False)) == ()
    assert found_in(said("", "{"), choice(evidence=False), ask()) == ()
