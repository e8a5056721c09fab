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


@settings(deadline=None)
@given(bodies, st.integers(0, 5), st.sampled_from(["", '\\" [{' * 30, "\\\\" * 9, "é\\ud800\\n" * 9]))
def test_a_long_body_is_walked_to_the_same_places_as_a_short_one(body: dict, at: int, text: str):
    """Following quotes and brackets alone finds each value where the parser finds it."""
    long = json.dumps("x" * 20_000)[:-1] + text + '"'
    names = list(body)
    parts = [f"{json.dumps(name)}: {json.dumps(body[name])}" for name in names]
    parts.insert(min(at, len(parts)), f'"long":[[{long}],{{"a":{long}}}]')
    raw = ('{"model":"a",' + ",".join(parts) + "}").encode()
    asked = read(raw)
    assert {name: asked.get(name) for name in names} == body
    assert asked.get("long") == json.loads(f'[[{long}],{{"a":{long}}}]')
    assert json.loads(asked.forward("b")) == {**json.loads(raw), "model": "b"}


@pytest.mark.parametrize("padding", [0, 20_000])
def test_nesting_has_its_limit_in_short_bodies_and_in_long_ones(padding: int):
    """Brackets inside strings are not nesting."""

    def nested(depth: int) -> bytes:
        deep = "[" * depth + "]" * depth
        return json.dumps({"model": "a", "p": "[{" * 99 + "x" * padding, "x": json.loads(deep)}).encode()

    assert read(nested(50)).model == "a"
    with pytest.raises(ApiError, match="nested"):
        read(nested(70))


@pytest.mark.parametrize(
    ("body", "param"),
    [({"n": 129}, "n"), ({"best_of": 1e9}, "best_of"), ({"input": ["a"] * 3000}, "input"), ({"n": 128}, None)],
)
def test_one_request_cannot_ask_for_hundreds(body: dict, param: str | None):
    """A token list is one prompt, however long."""
    raw = json.dumps({"model": "a", "prompt": [1] * 5000, **body}).encode()
    if param is None:
        assert read(raw).model == "a"
        return
    with pytest.raises(ApiError) as refused:
        read(raw)
    assert (refused.value.status, refused.value.param) == (400, param)


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(st.binary(max_size=40))
def test_no_body_breaks_the_reader(body: bytes):
    """Any bytes are an ApiError or a request."""
    with suppress(ApiError):
        assert read(b'{"model":"a",' + body).model == "a"


@pytest.mark.parametrize(
    "messages", ['[[{"role":"user"}]]', '[{"role":"user","content":bad}]', "[bad]", '[{"role":"user","content":"\\q"}]']
)
def test_what_opens_no_conversation_is_no_failure(messages: str):
    """A long body is not parsed whole, so it may hold anything: the engine judges it."""
    body = f'{{"model":"a","messages":{messages},"more":"{"x" * 17_000}"}}'.encode()
    assert isinstance(read(body).opening(), str)


def test_no_number_is_too_large_to_be_counted():
    """A client may write any; what is reserved for it is a number that counters hold."""
    assert float(read(b'{"model":"a","max_tokens":1' + b"0" * 400 + b"}").tokens) < 1e10


@pytest.mark.parametrize("more", [{"n": 5}, {"best_of": 5, "n": 2}])
def test_each_answer_is_reckoned_with(more: dict):
    """Five answers may cost five times as much."""
    assert 5 * 100 <= read(json.dumps({"model": "a", "max_tokens": 100, **more}).encode()).tokens < 5 * 100 + 50


@pytest.mark.parametrize("more", ["", "x" * 17_000])
@pytest.mark.parametrize("name", ["messages", "input"])
def test_a_conversation_is_known_by_its_opening(name: str, more: str):
    """Later turns share it; another first question does not, even under the same system prompt."""
    system = {"role": "system", "content": "be kind"}

    def opening(*messages: dict) -> str:
        return read(json.dumps({"model": "a", name: [system, *messages], "more": more}).encode()).opening()

    hello, answer, more = (
        {"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))
    )
    assert opening(hello) == opening(hello, answer, more)
    assert opening(hello) != opening(more)
    assert opening() == ""


@pytest.mark.parametrize("size", [5, 2048, 2049, 9000, 14_000, 50_000])
@pytest.mark.parametrize("letter", ["a", "\n", "\u20ac"])
def test_a_conversation_is_known_however_long_it_becomes(size: int, letter: str):
    """The way a body is read changes with its length; who it belongs to does not."""
    first = {"role": "user", "content": letter * size, "name": "n"}
    answers = [{"role": "assistant", "content": "b" * 7000}] * 3

    def opening(*messages: dict) -> str:
        return read(json.dumps({"messages": messages, "model": "a"}).encode()).opening()

    assert opening(first) == opening(first, *answers) != ""
    assert opening(first) != opening({**first, "content": letter * size + "!"}, *answers)
    parts = {"role": "user", "content": [{"type": "text", "text": letter * size}]}
    assert opening(parts) == opening(parts, *answers) != ""
