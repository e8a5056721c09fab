"""serving/quick.py, beside Python's json: whatever is read quickly is read as the standard parser reads it."""

import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from serving.quick import loads

HANDLERS = ["strict", "surrogatepass", "replace"]


def slow(data, errors="strict"):
    """The standard parser's word."""
    return json.JSONDecoder().decode(data.decode("utf-8", errors))


def told(read, data, errors):
    """What a parser says: a value, each part with its type and a zero with its sign; or that it raises."""
    try:
        return repr(read(data, errors))
    except (ValueError, RecursionError):
        return ValueError


pieces = st.one_of(
    st.sampled_from(
        [
            b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b'\\"', b"\\u", b"\\ud83d", b"\\ude00", b"\\u0000",
            b"null", b"true", b"false", b"NaN", b"Infinity", b"-Infinity", b"-", b"+", b"0", b"1", b"9", b".", b"e",
            b"E", b"e5", b"1e400", b"-0", b"-0.0", b"1.0", b"1.", b".5", b"01", b"1" * 30, b"18446744073709551616",
            b"4.9e-324", b"9007199254740993.0", b"1e23", b" ", b"\t", b"\n", b"\r", b"\x0b", b"\x0c", b"\x00", b"\x1f",
            b"\x7f", b"\xef\xbb\xbf", b"\xff", b"\xc3\xa9", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80",
            b'"a":', b'"a":1,', b'{"a":1}', b"[1,2]", b"/*", b"//", b"'", b"tru", b"True", b"\xe2\x80\xa8", b"\xc2\xa0",
        ]
    ),
    st.binary(max_size=3),
)  # fmt: skip
numbers = st.one_of(
    st.integers().map(repr),
    st.floats().map(json.dumps),
    st.from_regex(r"\A-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,40})?([eE][-+]?[0-9]{1,4})?\Z"),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
).map(str.encode)
texts = st.text(st.characters(exclude_categories=[]), max_size=8).map(json.dumps).map(str.encode)
leaves = st.one_of(
    st.sampled_from([b"null", b"true", b"false", b"NaN", b'"\\ud800"', b'"\xed\xa0\x80"']), numbers, texts
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: b"[" + b", ".join(items) + b"]"),
        st.lists(st.tuples(st.one_of(texts, st.just(b'"a"')), inner), max_size=4).map(
            lambda items: b"{" + b" ,".join(name + b":" + value for name, value in items) + b"}"
        ),
    ),
    max_leaves=8,
)
documents = st.one_of(
    st.lists(pieces, max_size=12).map(b"".join),
    st.tuples(values, st.integers(0, 200), pieces).map(lambda d: d[0][: d[1]] + d[2] + d[0][d[1] :]),
    values,
)


@given(documents, st.sampled_from(HANDLERS))
@example(b'{"a":1,"a":2}', "strict")
@example(b"[1, 1.0, true, -0, -0.0, 1E2]", "strict")
@example(b"[1e400, -1e400, 1e-400]", "strict")
@example(b'"\\ud800"', "strict")
@example(b'"\\ud83d\\ude00\\ude00"', "strict")
@example(b'"\xed\xa0\x80"', "strict")
@example(b'"\xed\xa0\x80"', "surrogatepass")
@example(b'{"a\xff":1,"\xff":1}', "replace")
@example(b"\xef\xbb\xbf{}", "strict")
@example(b"{}\x00", "strict")
@example(b"1" * 5000, "strict")
@settings(max_examples=2000, deadline=None)
def test_both_parsers_say_the_same(data, errors):
    """The same value of the same types, or both raise what a caller may expect."""
    assert told(loads, data, errors) == told(slow, data, errors)


@given(values)
@settings(max_examples=500, deadline=None)
def test_white_space_is_no_difference(value):
    """Around a value, and of the four kinds alone."""
    assert told(loads, b" \t\r\n" + value + b"\r\n", "strict") == told(slow, value, "strict")
    assert told(loads, b"\x0c" + value, "strict") is ValueError


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"-0", 0),
        (b"1.0", 1.0),
        (b"9007199254740993", 9007199254740993),
        (b"-170141183460469231731687303715884105728", -(2**127)),
        (b"1e400", math.inf),
        (b"-Infinity", -math.inf),
        (b'{"a":1,"b":2,"a":3}', {"a": 3, "b": 2}),
        (b'"\\ud800"', "\ud800"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'["\\u0000"]', ["\0"]),
        (b" null ", None),
    ],
)
def test_what_only_the_standard_parser_takes_is_read_too(data, value):
    """Numbers beyond a double or 64 bits, lone surrogates, a name given twice: by value and by type."""
    assert repr(loads(data)) == repr(value)


def test_nan_is_a_number_as_ever():
    """Python writes it, so Python reads it."""
    assert math.isnan(loads(b"NaN"))


@pytest.mark.parametrize(
    "data", [b"", b" ", b"{", b"{} {}", b"\xef\xbb\xbf{}", b'"\xff"', b'"\xed\xa0\x80"', "{}".encode("utf-16"), b"'a'"]
)
def test_no_json_in_utf_8_is_a_value_error(data):
    """A mark of the byte order, another encoding and a byte that is none are refused as before."""
    with pytest.raises(ValueError, match=r"."):
        loads(data)


def test_bytes_that_are_none_are_read_as_the_caller_says():
    """Only text that msgspec refuses asks what to do."""
    assert loads(b'"\xed\xa0\x80"', "surrogatepass") == "\ud800"
    assert loads(b'{"\xff":"\xff"}', "replace") == {"\ufffd": "\ufffd"}


@pytest.mark.parametrize("open_", [b"[", b'{"a":'])
def test_what_is_too_deep_is_a_recursion_error(open_):
    """Never a crash; a caller that refuses depth has looked before."""
    close = b"]" if open_ == b"[" else b"}"
    with pytest.raises(RecursionError):
        loads(open_ * 100_000 + b"1" + close * 100_000)
    assert told(loads, open_ * 300 + b"1" + close * 300, "strict") == told(
        slow, open_ * 300 + b"1" + close * 300, "strict"
    )
