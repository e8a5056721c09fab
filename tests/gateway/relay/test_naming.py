from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.relay.naming import PublicName

NAME = PublicName("m", "p")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just("model"), inner),
)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"id":"x","model":"m","choices":[]}', b'{"id":"x","model":"p","choices":[]}'),
        (
            b'{"choices":[{"model":"m"}], "model" : "other", "n":1.0e5}',
            b'{"choices":[{"model":"m"}], "model" : "p", "n":1.0e5}',
        ),
        (b'{"metadata":{"model":"m"},"model":"m"}', b'{"metadata":{"model":"m"},"model":"p"}'),
        (b'{"model":"m","model":"m"}', b'{"model":"p","model":"p"}'),
        (b' { "model":"\\u006d" } ', b' { "model":"p" } '),
        (b'{"response":{"tools":[{"model":"m"}],"model":"m"}}', b'{"response":{"tools":[{"model":"m"}],"model":"p"}}'),
        (b'{"response":{"response":{"model":"m"}}}', b'{"response":{"response":{"model":"m"}}}'),
        (b'{"response":{"id":"r","model":"m"},"n":1}', b'{"response":{"id":"r","model":"p"},"n":1}'),
        (b'{"response":{},"model":"m"}', b'{"response":{},"model":"p"}'),
        (b'{"other":{"id":"r","model":"m"}}', b'{"other":{"id":"r","model":"m"}}'),
        (b'{"a":"response","b":{"model":"m"}}', b'{"a":"response","b":{"model":"m"}}'),
        (b'{"mod\\u0065l":1,"model":"m"}', b'{"mod\\u0065l":1,"model":"p"}'),
        (b'{"model":null}', b'{"model":null}'),
        (b'{"text":"\\"model\\":\\"m\\""}', b'{"text":"\\"model\\":\\"m\\""}'),
        (b'no json with "model"', b'no json with "model"'),
        (b'[{"model":"m"}]', b'[{"model":"m"}]'),
        (b'{"model":"m"', b'{"model":"p"'),
        (b"{}", b"{}"),
    ],
)
def test_only_the_names_own_bytes_change(body: bytes, named: bytes):
    """Order, spaces, numbers and nested names stay the engine's, whichever way the place was found."""
    assert NAME.body(body) == named


@pytest.mark.parametrize(
    "frame",
    [
        b'data: {"model":"m"}\n\n',
        b'data: {"choices": [], "model": "m"}\r\n\r\n',
        b'event: x\ndata:{"choices":[],"model":"m"}\nid: 7\n\n',
        b'data: {"choices":[],\ndata: "model":"m"}\n\n',
        b'\xef\xbb\xbfdata: {"a":{},"model":"m"}\r\r',
        b': "model"\n\n',
        b'event: "model"\ndata: x\n\n',
    ],
)
def test_a_frame_keeps_its_lines(frame: bytes):
    """The name is replaced where it stands, in any framing; a comment is not JSON."""
    assert NAME.frame(frame) == frame.replace(b'"m"', b'"p"')


@settings(deadline=None)  # the machine is shared; a slow example is no failure
@given(
    st.dictionaries(st.text(max_size=6) | st.sampled_from(["model", "response"]), values, max_size=5),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
    st.text(max_size=8),
    st.text(max_size=8),
)
def test_naming_is_what_a_parser_would_do(
    value: dict, separators: tuple[str, str], ascii_: bool, served: str, public: str
):
    """Both ways of finding the place, against the standard parser: the same value with another name."""
    body = json.dumps(value, separators=separators, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    for place in (value, value.get("response")):
        if isinstance(place, dict) and isinstance(place.get("model"), str):
            place["model"] = public
    assert json.loads(PublicName(served, public).body(body)) == value
    framed = PublicName(served, public).frame(b"data: " + body + b"\n\n")
    assert json.loads(framed.removeprefix(b"data: ")) == value


@given(st.binary(max_size=40).map(lambda raw: b'{"model":"m",' + raw))
def test_no_bytes_make_it_raise(raw: bytes):
    """An engine's nonsense passes."""
    assert NAME.body(raw)
    assert NAME.frame(b"data: [" + raw)
