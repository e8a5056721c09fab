from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.door.ask import read
from gateway.errors import ApiError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.text(max_size=6).filter(lambda name: name.casefold() not in {"model", "stream", "stream_options"})
bodies = st.dictionaries(names, values, max_size=5)


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(bodies, st.booleans(), st.sampled_from([None, {}, {"include_usage": False, "x": 1}, {"include_usage": True}]))
def test_forwarding_changes_model_and_usage_alone(body: dict, stream: bool, options: dict | None):
    """Parsed again, the forwarded body is the client's with another model, and usage asked for on streams."""
    sent = {**body, "model": "pub", "stream": stream, "stream_options": options}
    got = json.loads(read(json.dumps(sent).encode()).forward("eng"))
    assert {**got, "stream_options": None} == {**sent, "model": "eng", "stream_options": None}
    assert got["stream_options"] == ({**(options or {}), "include_usage": True} if stream else options)


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(st.text(), st.sampled_from(["", " ", "\n\t "]))
def test_the_other_bytes_stay_as_they_were(text: str, space: str):
    """Numbers, escapes and spaces are the client's own."""
    rest = f'{space}"n":1.50e+1,{space}"t":{json.dumps(text)}{space}'
    body = f'{{"model":{space}"a",{rest}}}{space}'.encode()
    assert read(body).forward("b") == body.replace(b'"a"', b'"b"', 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"model":"a"',
        b'{"model":"a"}x',
        b'{"model":"a",}',
        b'{"model":"a","model":"b"}',
        b'{"model":"a","Model":"b"}',
        b'{"model":"a","STREAM":true}',
        b'{"model":7}',
        b'{"model":""}',
        b'{"messages":[]}',
        b'{"model":"a","stream":"yes"}',
        b'{"model":"a","stream":true,"stream_options":7}',
        b'{"model":"\xff"}',
        b'{"model":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_what_two_parsers_could_read_in_two_ways_is_refused(body: bytes):
    """400, never a guess."""
    with pytest.raises(ApiError) as refused:
        read(body)
    assert refused.value.status == 400


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(st.binary(max_size=40))
def test_no_body_breaks_the_reader(body: bytes):
    """Any bytes are an ApiError or a request."""
    with suppress(ApiError):
        assert read(b'{"model":"a",' + body).model == "a"


def test_a_conversation_is_known_by_its_opening():
    """Later turns share it; another first question does not, even under the same system prompt."""
    system = {"role": "system", "content": "be kind"}

    def opening(*messages: dict) -> str:
        return read(json.dumps({"model": "a", "messages": [system, *messages]}).encode()).opening()

    hello, answer, more = (
        {"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))
    )
    assert opening(hello) == opening(hello, answer, more)
    assert opening(hello) != opening(more)
    assert opening() == ""
