"""What `--json` prints, verb by verb: the types that docs/schemas/output.json is made from.

Fields may be added; none that is named here goes away or changes its meaning.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal, TypeAlias

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from canary.shapes.before import Forecast, Trials
from canary.shapes.gates import Comparison, Evaluation, LoadTest
from canary.shapes.release import Explanation, Number, Shape, Status

JSON = dict[str, Any]
Mode: TypeAlias = Literal["validation", "serialization"]


class Attempt(Shape):
    """One attempt; `result` is empty while it is under way."""

    release: str
    attempt: int
    started_ms: float
    ended_ms: Number
    result: str
    reason: str


class Entry(Shape):
    """An entry of the audit; all values are text, as the stream keeps them. Empty or absent is what it has none of."""

    id: str
    model: str
    who: str
    what: str
    why: str
    unix_ms: str
    seq: str = ""
    chain: str = ""
    release: str = ""
    attempt: str = ""
    before: str = ""
    after: str = ""
    changed: str = ""
    generation: str = ""
    evidence: str = ""


class Lint(Shape):
    """Each fault and warning is one "FILE:LINE: what; mend"; faults make it invalid, warnings do not."""

    valid: bool
    faults: list[str]
    warnings: list[str]
    model: str = ""
    release: str = ""


class Key(Shape):
    """An API key; null is no limit, `revoked_ms` 0 while it holds."""

    id: str
    name: str
    scopes: list[str]
    rpm: int | None
    tpm: int | None
    usd_per_day: Number
    created_ms: int
    revoked_ms: int


class NewKey(Key):
    """With its secret, this once."""

    secret: str


class Checked(Shape):
    """What `audit --verify` found: entries `first` to `last` are whole and end in `chain`, else there is a `fault`."""

    whole: bool
    first: int
    last: int
    chain: str
    unchained: int
    fault: str


class Environment(Shape):
    """The engines' own environment for today's lock."""

    installed: bool
    path: str


class Cached(Shape):
    """A folder of the cache; `current` is what today's lock and recipe use."""

    path: str
    current: bool


CHANGES: Final = (
    "pause",
    "resume",
    "set-weight",
    "promote",
    "abort",
    "rollback",
    "retry",
    "freeze",
    "unfreeze",
    "start",
)
SHAPES: Final[dict[str, Any]] = {
    "status": Status,
    "watch": Status,
    **dict.fromkeys(CHANGES, Status),
    "explain": Explanation,
    "history": list[Attempt],
    "audit": list[Entry],
    "audit --export -": Entry,
    "audit --verify": Checked,
    "lint": Lint,
    "plan": Forecast,
    "simulate": Trials,
    "loadtest": LoadTest,
    "eval": Evaluation,
    "report": Comparison,
    "keys create": NewKey,
    "keys list": list[Key],
    "keys revoke": Key,
    "engines status": Environment,
    "engines list": list[Cached],
}


class _Printed(GenerateJsonSchema):
    """What a dataclass of ours prints is all there: a default does not make a field optional."""

    def field_is_required(self, field: Any, total: bool) -> bool:
        return field["type"] == "dataclass-field" or super().field_is_required(field, total)


def output_schema() -> JSON:
    """Return the JSON schema of what each verb prints: one entry of `properties` a verb."""
    asked: list[tuple[str, Mode, Any]] = [
        (verb, "validation", TypeAdapter(shape).core_schema) for verb, shape in SHAPES.items()
    ]
    by_verb, parts = _Printed(ref_template="#/$defs/{model}").generate_definitions(asked)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What `linnet VERB --json` prints, by verb",
        "description": (
            "Fields may be added; none that is named here goes away. Shares are 0..1, `percent` 0..100, `_ms` Unix "
            "milliseconds or lengths of time, else seconds and US dollars. null is what is not known."
        ),
        "type": "object",
        "properties": {verb: _untitled(by_verb[verb, "validation"]) for verb in SHAPES},
        "$defs": {name: _untitled(part) for name, part in sorted(parts.items())},
    }


def _untitled(part: JSON) -> JSON:
    """Leave out titles, and say that further fields may come."""
    fields = {name: {k: v for k, v in one.items() if k != "title"} for name, one in part.get("properties", {}).items()}
    kept = {key: value for key, value in part.items() if key not in {"title", "additionalProperties"}}
    return {**kept, **({"properties": fields} if fields else {})}


def document() -> str:
    """Return docs/schemas/output.json: `python -c "from canary.shapes.outputs import document; print(document())"`."""
    return json.dumps(output_schema(), indent=2)
