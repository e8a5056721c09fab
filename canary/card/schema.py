"""The release spec as a JSON schema, for editors; made from the models that check it, so that both agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema

from canary.card import units
from canary.card.captions import CAPTIONS

JSON = dict[str, Any]
DURATION: Final = r"^\d+(\.\d+)?(ms|s|m|h|d)$"
WRITTEN: Final[Mapping[Callable[..., Any], JSON]] = {
    units.seconds: {"type": "string", "pattern": DURATION, "examples": ["500ms", "20s", "5m", "2h"]},
    units.points: {"type": "string", "pattern": r"^\d+(\.\d+)?pp$", "examples": ["0.5pp"]},
    units.rate: {"type": "string", "pattern": r"^\d+(\.\d+)?(%|pp)$", "examples": ["2%"]},
}
_GUARDS: Final = "GuardSpec"  # the class whose keys its kinds share


class _AsWritten(GenerateJsonSchema):
    """Quantities are written with their unit, and so are their defaults."""

    def function_before_schema(self, schema: Any) -> JSON:
        """Describe what is written, not what it is read as."""
        return dict(WRITTEN.get(schema["function"]["function"]) or super().function_before_schema(schema))

    def default_schema(self, schema: Any) -> JSON:
        """Write a default of seconds as people do."""
        found = super().default_schema(schema)
        if found.get("pattern") == DURATION:
            found["default"] = f"{found['default']:g}s"
        return found


def spec_schema() -> JSON:
    """Return the JSON schema (draft 2020-12) of a release spec."""
    from canary.card.spec import Spec  # noqa: PLC0415 - slow to import, and only this needs it

    found = Spec.model_json_schema(by_alias=True, schema_generator=_AsWritten)
    parts = found.pop("$defs")
    told = {name: _told(part, name) for name, part in parts.items()}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Linnet release spec"}
    return {**head, **_told(found, "Spec"), "$defs": told}


def _told(part: JSON, name: str) -> JSON:
    """Return a part without titles and nulls, each of its keys with a caption."""
    part.pop("title", None)
    captions = CAPTIONS.get(name) or CAPTIONS[_GUARDS]
    for key, value in part.get("properties", {}).items():
        part["properties"][key] = {**_plain(value), **({"description": captions[key]} if key in captions else {})}
    return part


def _plain(value: JSON) -> JSON:
    """Leave out what nobody writes: titles, null for what may be left out, bounds of what a pattern describes."""
    choices = [one for one in value.get("anyOf", ()) if one != {"type": "null"}]
    if len(choices) == 1:
        value = {**{key: one for key, one in value.items() if key != "anyOf"}, **choices[0]}
    unsaid = {"title", "gt", "ge", "lt", "le"}
    if value.get("default", "") is None or isinstance(value.get("default"), dict):
        unsaid.add("default")
    return {key: one for key, one in value.items() if key not in unsaid}
