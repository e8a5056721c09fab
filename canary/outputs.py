"""What `--json` prints, verb by verb: the types that docs/schemas/output.json is made from.

Fields may be added; none that is named here goes away or changes its meaning.
"""

from __future__ import annotations

import json
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from canary.shapes import Explanation, Number, Shape, Status

JSON = dict[str, Any]
Mode: TypeAlias = Literal["validation", "serialization"]


class Open(BaseModel):
    """An object that has more fields than scripts should rely on."""

    model_config = ConfigDict(extra="allow", strict=True)


class Attempt(Shape):
    """One attempt; `result` is empty while it is under way."""

    release: str
    attempt: int
    started_ms: float
    ended_ms: Number
    result: str
    reason: str


class Entry(Open):
    """An entry of the audit; all values are text, as the stream keeps them."""

    model: str
    who: str
    what: str
    why: str
    unix_ms: str


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


class Forecast(Open):
    """What `plan` foresees; `seconds` null is never."""

    model: str
    release: str
    rps: float
    seconds: Number
    steps: list[JSON]
    faster: list[JSON]


class Trials(Open):
    """How often an equal candidate is rolled back, and how soon a worse one."""

    runs: int
    false_rollback: JSON
    detection: Any


class Comparison(Open):
    """The comparison report."""

    model: str
    release: str
    recommendation: str
    reasons: list[str]
    thresholds: list[JSON]
    guards: list[JSON]
    files: list[str]


class Evaluation(Open):
    """The evaluation gate's report."""

    model: str
    digest: str
    verdict: str
    reasons: list[str]
    slices: dict[str, JSON]


class LoadTest(Open):
    """The load gate's report, flat: the candidate's figures; latencies in ms."""

    arm: str
    rate: float
    achieved: float
    lag_p99_ms: float
    ttft: JSON
    tpot: JSON
    e2e: JSON
    goodput: Number
    usd_per_million_tokens: Number
    verdict: str
    valid: bool


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
    "lint": Lint,
    "plan": Forecast,
    "simulate": Trials,
    "loadtest": LoadTest,
    "eval": Evaluation,
    "report": Comparison,
    "keys create": NewKey,
    "keys list": list[Key],
    "keys revoke": Key,
}


def output_schema() -> JSON:
    """Return the JSON schema of what each verb prints: one entry of `properties` a verb."""
    asked: list[tuple[str, Mode, Any]] = [
        (verb, "validation", TypeAdapter(shape).core_schema) for verb, shape in SHAPES.items()
    ]
    by_verb, parts = GenerateJsonSchema(ref_template="#/$defs/{model}").generate_definitions(asked)
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
    """Return docs/schemas/output.json: `python -c "from canary.outputs import document; print(document())"`."""
    return json.dumps(output_schema(), indent=2)
