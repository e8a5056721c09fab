"""serving/flaws.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.flaws import flaws, malformed, refusal, repetition
from serving.kept import Kept

ROOT = Path(__file__).parents[2]
ALL = ("refusal", "malformed", "repetition")

DECLINED = [
    "I'm sorry, but I can't assist with that.",
    "I\u2019m sorry, but I can\u2019t help with that request.",
    "I cannot provide instructions for this.",
    "I can't help you with that.",
    "I am unable to provide medical advice.",
    "I'm not able to browse the internet.",
    "I won't be able to help with this one.",
    "Sorry, but I can't do that.",
    "I apologize, but I cannot fulfill this request as it goes against my guidelines.",
    "As an AI language model, I don't have personal opinions.",
    "I must respectfully decline.",
    "I must decline to answer that.",
    "**I can't** *assist* with creating malware.",
    "\n\n  I'm really sorry to hear that, and I cannot\nin good conscience write this.",
    "We are sorry. We will not share this information.",
    "Thank you for asking! Unfortunately, I'm not comfortable discussing this topic.",
]
ANSWERED = [
    "",
    "Sorry for the confusion! The function returns a list, so the fix is to index it.",
    "I'm sorry to hear that you are ill. Drink enough water and rest.",
    "I can't help but admire the elegance of this proof.",
    "You cannot help a process that does not read its signals; the kernel can't assist either.",
    "The API cannot provide totals. To get them, sum over all pages.",
    "Yes. The error `I can't open the file` comes from the loader.",
    "A canary release sends a small share of the traffic to the new version.",
    "Wi-Fi cannot share a channel with Bluetooth.",
    "Here is the letter: it begins with a greeting. " + "It goes on. " * 20 + "I cannot provide more.",
]


@pytest.mark.parametrize("text", DECLINED)
def test_an_answer_that_declines_is_a_refusal(text: str):
    """The usual ways, with either apostrophe, marks around words and line breaks between them."""
    assert refusal(text)


@pytest.mark.parametrize("text", ANSWERED)
def test_an_answer_with_words_of_a_refusal_is_none(text: str):
    """Being sorry is not declining, and neither is anybody else's inability, or what comes late in a long answer."""
    assert not refusal(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", False),
        (' {"a": [1, 2.5e300, "\\ud800", null]}\n', False),
        ("[1]", False),
        ("3", False),
        ('{"a": 1e999}', False),
        ("9" * 6000, False),
        ('{"a": 1', True),
        ("", True),
        ("{'a': 1}", True),
        ('```json\n{"a": 1}\n```', True),
        ('Here you are: {"a": 1}', True),
        ('{"a": NaN}', True),
        ('{"a": 1}{"a": 2}', True),
        ("\ud800", True),
        ("[" * 32_000, True),
    ],
)
def test_content_that_should_be_json_is_malformed_if_it_is_none(text: str, expected: bool):
    """As RFC 8259 says, and nothing around it; if nobody asked for JSON, everything is well."""
    assert malformed(text, (), json_asked=True) is expected
    assert not malformed(text, (), json_asked=False)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("{}",), False),
        (('{"a": 1}', '{"b": {"c": []}}'), False),
        (('{"a": 1}', '{"b": '), True),
        (("",), True),
        (("[1]",), True),
        (('"a"',), True),
        (("null",), True),
    ],
)
@pytest.mark.parametrize("asked", [False, True])
def test_arguments_of_a_tool_call_have_to_be_a_json_object(arguments: tuple[str, ...], expected: bool, asked: bool):
    """Asked for or not, each of them; beside a call an empty text is no answer that lacks its JSON."""
    assert malformed("", arguments, json_asked=asked) is expected


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), values, max_size=4), st.booleans(), st.integers(0, 4))
def test_whatever_is_written_as_json_is_json_and_no_beginning_of_it_is(value: dict, ascii_: bool, indent: int):
    """An object that was cut anywhere is broken."""
    text = json.dumps(value, ensure_ascii=ascii_, indent=indent or None)
    assert not malformed(text, (text,), json_asked=True)
    for end in {1, len(text) // 2, len(text) - 1}:
        assert malformed(text[:end], (), json_asked=True)
        assert malformed("", (text[:end],), json_asked=False)


@given(st.text(max_size=400))
def test_nothing_is_malformed_where_python_and_json_agree(text: str):
    """Any text: what the standard parser reads strictly is JSON, everything else is not."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
        good = True
    except ValueError:
        good = False
    assert malformed(text, (), json_asked=True) is not good


words = st.text("abcdefghijklmnopqrstuvwxyz\u00e9\u4e2d,.-", min_size=1, max_size=20)


@given(st.lists(words, max_size=400, unique=True))
def test_words_that_all_differ_are_no_loop(said: list[str]):
    """A loop says some word twice."""
    assert not repetition(" ".join(said))


@given(
    before=st.text(max_size=300),
    period=st.text(min_size=1, max_size=800),
    more=st.integers(0, 30),
    cut=st.integers(0, 10_000),
)
def test_a_tail_that_says_the_same_again_and_again_is_a_loop(before: str, period: str, more: int, cut: int):
    """Whatever came before, whatever it says, and wherever the limit cut it."""
    covers = 200 if any(letter.isalpha() for letter in period) else 1000
    times = max(6, -(-covers // len(period)) + 1) + more
    text = period * times
    assert repetition(before + text[: len(text) - cut % len(period)])


@given(st.text("ab ", max_size=600), st.text("ab", max_size=4), st.integers(0, 120))
def test_the_rule_is_what_it_says(before: str, period: str, times: int):
    """The same as trying every period, on texts of few letters, where loops and half of one are common."""
    text = before + period * times
    by_trial = any(
        text[-covers:][distance:] == text[-covers:][:-distance]
        for distance in range(1, len(text) // 5 + 1)
        for covers in [max(5 * distance, 200 if any(map(str.isalpha, text[-distance:])) else 1000)]
        if covers <= len(text)
    )
    assert repetition(text) is by_trial


@pytest.mark.parametrize(
    ("period", "least"), [("a", 200), ("abcdefghi ", 20), ("x" * 59 + "y", 5), ("x" * 799 + "y", 5), ("-", 1000)]
)
def test_a_loop_has_five_rounds_and_some_length(period: str, least: int):
    """Two hundred characters, a thousand without a letter; one round less is none."""
    assert repetition(f"1: {period * least}")
    assert not repetition(f"1: {period * (least - 1)}")


@pytest.mark.parametrize(
    "path",
    sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("serving/*.py"), *ROOT.glob("bench/results/*")]),
    ids=lambda path: path.name,
)
def test_prose_code_and_tables_are_no_loop_wherever_they_are_cut(path: Path):
    """This project's own pages, tables and sources."""
    text = path.read_text()[:40_000]
    assert not [end for end in range(0, len(text) + 97, 97) if repetition(text[:end])]


@pytest.mark.parametrize(
    "text",
    [
        "Title\n" + "=" * 120,
        "| a | b |\n|---|---|\n" + "|   |   |\n" * 40,
        json.dumps({"zeros": [0] * 500}),
        json.dumps({"rows": [[0, 0, 0, 0]] * 80, "n": 3}),
        "10^500 is 1" + "0" * 500,
        "Binary: " + "01100001 " * 40,
        "```\n" + "    }\n" * 20 + "```",
        "for i in range(3):\n" + "    print(i)\n" * 12,
        "ha" * 60,
        "na na na na, hey Jude. " * 4,
        "\n".join(f"{n}. The canary sings, and the miners listen to it." for n in range(60)),
    ],
)
def test_rules_blank_rows_zeros_and_finished_lists_are_no_loop(text: str):
    """What is usual says the same for a while, and ends; a list that counts never says the same."""
    assert not repetition(text)


@pytest.mark.parametrize(
    "text",
    [
        "The answer is " + "the the " * 60,
        "Sure! " + "I hope this helps. Let me know if you have any questions. " * 8,
        "def f():\n" + "    x = x + 1\n" * 30,
        "{" + '"key": "value", ' * 20,
        "\n" * 1500,
        "0" * 2000,
        "x\n" + "-" * 1000,
        "\u6211\u4e0d\u77e5\u9053\u3002" * 50,
        "a b " + ("-" * 300 + "\nnext\n") * 6,
        ("a" * 280 + "bb") * 7 + "a" * 140,  # its end stands at many wrong distances too
    ],
)
def test_what_a_looping_model_writes_is_a_loop(text: str):
    """Words, sentences, lines, blanks without end, other scripts, rules among words; until the limit cuts it."""
    assert repetition(text)
    assert repetition("Well. " * 7 + text)


def kept(text: str = "", *arguments: str, room: int = 32_000, refused: bool = False) -> Kept:
    """What was kept of an answer."""
    words = Kept(room)
    words.say(text)
    for number, one in enumerate(arguments):
        words.call(number, one)
    words.refused = refused
    return words


def test_only_what_is_examined_is_found():
    """In the order of the table; a name that a newer control plane might know is no flaw."""
    broken = kept("I'm sorry, but I can't help. " * 30)
    assert flaws(broken, ALL, json_asked=True) == ALL
    assert flaws(broken, ("repetition", "refusal"), json_asked=True) == ("refusal", "repetition")
    assert flaws(broken, ("malformed", "sarcasm"), json_asked=True) == ("malformed",)
    assert flaws(broken, (), json_asked=True) == ()
    assert flaws(kept("All is well."), ALL) == ()


def test_the_engines_own_word_counts():
    """A refusal in its own field, which stands for the JSON that was asked for, and a loop that vLLM ended."""
    assert flaws(kept(refused=True), ALL, json_asked=True) == ("refusal",)
    assert flaws(kept("la la"), ALL, finish_reason="repetition") == ("repetition",)


def test_json_that_was_cut_by_us_is_not_held_against_the_answer():
    """Only as much is kept as there is room for; a loop is one nevertheless."""
    whole = json.dumps({"a": "b" * 300})
    assert flaws(kept(whole, room=100), ALL, json_asked=True) == ()
    assert flaws(kept("", whole, room=100), ALL) == ()
    assert flaws(kept("so it goes, " * 900, room=9000), ALL, json_asked=True) == ("repetition",)


@given(st.text(), st.lists(st.text(), max_size=3), st.booleans(), st.text(max_size=9))
def test_any_words_can_be_examined(text: str, arguments: list[str], asked: bool, reason: str):
    """Nothing raises."""
    assert set(flaws(kept(text, *arguments), ALL, json_asked=asked, finish_reason=reason)) <= set(ALL)
