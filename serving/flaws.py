"""What is wrong with the words of a good answer: it declines, it is no JSON where JSON is due, it loops (pure).

Each is a rule, not a truth. A rule that is wrong now and then is wrong about both arms alike, because chance divided
the requests between them; so a *difference* means something where a rate does not. What a rule cannot see is said with
it. Every function takes linear time, and looks at bounded text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from serving.kept import Kept

_OPENING: Final = 200  # characters in which an answer that declines says so
_UNABLE: Final = (
    " can't", " cannot", " can not", " could not", " couldn't", " won't", " will not", " won't be able to",
    " am unable to", "'m unable to", " am not able to", "'m not able to", " am not allowed to", "'m not allowed to",
    " am not permitted to", "'m not permitted to", " am not going to", "'m not going to", " am not comfortable",
    "'m not comfortable", " don't feel comfortable", " do not feel comfortable", " don't have the ability to",
    " do not have the ability to", " must decline", " have to decline", " must refuse", " have to refuse",
    " respectfully decline", "'d rather not", " would rather not", "'d prefer not", " would prefer not",
)  # fmt: skip
_TASKS: Final = (
    "access", "advise", "aid", "answer", "assist", "assisting", "browse", "complete", "comply", "continue", "create",
    "creating", "discuss", "discussing", "do so", "do that", "do this", "engage", "engaging", "facilitate", "fulfil",
    "fulfill", "generate", "generating", "give", "help", "helping", "in good conscience", "offer", "participate",
    "perform", "produce", "promote", "provide", "providing", "recommend", "respond", "share", "sharing", "speculate",
    "support", "supply", "write", "writing",
)  # fmt: skip
_SENTENCES: Final = (
    "as an ai language model, i", "as a language model, i", "i'm just an ai", "i am just an ai", "i'm sorry, but i",
    "i am sorry, but i", "sorry, but i", "i apologize, but i", "i'm afraid i can't", "i am afraid i can't",
    "i'm afraid i cannot", "i am afraid i cannot", "i must decline", "i have to decline", "respectfully decline",
    "against my guidelines", "against my programming",
)  # fmt: skip
_DECLINES: Final = re.compile(
    rf"\b(?:i|we)(?:{'|'.join(_UNABLE)})(?: to)?(?: \w+ly)? (?:{'|'.join(_TASKS)})\b(?! but\b)"
    rf"|\b(?:{'|'.join(_SENTENCES)})\b"
)
_APOSTROPHES: Final = str.maketrans("\u2019\u02bc`", "'''", '*_#>"\u201c\u201d')  # and marks that stand around words

_TAIL: Final = 4_000  # characters
_TIMES: Final = 5
_COVERS: Final = 200  # characters
_QUIET_COVERS: Final = 1_000  # where the period has no letter
_PROBE: Final = 128  # characters; at most _COVERS * (1 - 1 / _TIMES), or short loops were missed

_NO_JSON: Final = object()


def flaws(
    kept: Kept, examined: tuple[str, ...], *, finish_reason: str = "", json_asked: bool = False
) -> tuple[str, ...]:
    """Return which of the examined flaws an answer has; a name that is not known here is no flaw.

    `json_asked` tells whether its request demanded JSON. A `refusal` in the engine's own field stands for the content.
    vLLM ends what its own detection finds to loop with the `finish_reason` "repetition".
    """
    text = kept.text
    found: Mapping[str, Callable[[], bool]] = {
        "refusal": lambda: kept.refused or refusal(text),
        # What was cut by us says nothing.
        "malformed": lambda: kept.room > 0 and malformed(text, kept.arguments, json_asked and not kept.refused),
        "repetition": lambda: finish_reason == "repetition" or repetition(text),
    }
    return tuple(name for name in found if name in examined and found[name]())


def refusal(text: str) -> bool:
    """Tell whether an answer declines: one of the usual English phrases stands in its first 200 characters.

    The phrases are those by which refusals are counted since Zou et al. (arXiv 2307.15043, appendix) and in XSTest
    (Röttger et al., arXiv 2308.01263), narrowed to "I", an inability and a task, because ordinary answers have "sorry"
    too. Not seen: other languages, a refusal after a long opening (thoughts inside of the text), one in other words.
    Seen wrongly: "I can't provide a full list, but here is ...".
    """
    opening = " ".join(text.lstrip()[:_OPENING].lower().translate(_APOSTROPHES).split())
    return _DECLINES.search(opening) is not None


def malformed(text: str, arguments: tuple[str, ...], json_asked: bool) -> bool:
    """Tell whether a tool call's arguments are no JSON object, or the text is no JSON although JSON was asked for.

    JSON is RFC 8259's: no NaN, nothing before or after but white space, so no Markdown fence either. What nests deeper
    than parsers go counts as broken. Beside tool calls an empty text is none that was asked for; else it is no JSON.
    Whether JSON follows its schema is not looked at.
    """
    if any(not isinstance(_value(one), dict) for one in arguments):
        return True
    return json_asked and (bool(text) or not arguments) and _value(text) is _NO_JSON


def repetition(text: str) -> bool:
    """Tell whether a text ends in a loop: one period, five times or more in a row, over 200 characters or more.

    A loop that a token limit cut is the text's tail, and so is what distinguishes it from a finished list, table or
    array, which ends in something else. A period without a letter (rules, zeros, blanks) must cover 1,000 characters.
    Periods go up to 800 characters. Degeneration of this kind: Holtzman et al., arXiv 1904.09751. Not seen: loops that
    count or vary, and those that ended before the answer did.

    A tail has the period p exactly if it equals itself moved by p; then its last characters stand p earlier, too, which
    leaves few periods to look at.
    """
    tail = text[-_TAIL:]
    size = len(tail)
    if size < _COVERS:
        return False
    probe = tail[-_PROBE:]
    quiet = next((at for at, letter in enumerate(reversed(tail)) if letter.isalpha()), size)
    at = tail.rfind(probe, 0, size - 1)
    while at >= 0:
        period = size - len(probe) - at
        if _TIMES * period > size:
            return False
        covers = max(_TIMES * period, _COVERS if period > quiet else _QUIET_COVERS)
        if covers <= size and tail[-covers:-period] == tail[period - covers :]:
            return True
        at = tail.rfind(probe, 0, at + len(probe) - 1)
    return False


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")


def _value(text: str) -> Any:
    """Return the value of a JSON text; `_NO_JSON` if it is none."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        pass  # it is stricter than JSON: no lone surrogates, no number beyond a double
    except RecursionError:
        return _NO_JSON
    try:
        return json.loads(text, parse_constant=_refuse, parse_int=float)  # int would be the square of its digits
    except (ValueError, RecursionError):
        return _NO_JSON
