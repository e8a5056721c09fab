"""The published schema of specs says what the models check."""

from __future__ import annotations

import json
import re
from pathlib import Path

from canary.card.captions import CAPTIONS
from canary.card.schema import spec_schema
from canary.console import cli

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs" / "schemas" / "spec.json"


def test_the_published_schema_is_the_models():
    """`linnet lint --schema > docs/schemas/spec.json` writes it anew."""
    assert json.loads(PUBLISHED.read_text()) == spec_schema()


def test_lint_prints_the_schema(capsys):
    """To the letter of the published file."""
    assert cli.run(["lint", "--schema"]) == 0
    assert capsys.readouterr().out == PUBLISHED.read_text()


def parts() -> dict[str, dict]:
    """Every object of the schema that has keys, the whole included."""
    found = spec_schema()
    return {
        name: part["properties"] for name, part in {"Spec": found, **found["$defs"]}.items() if "properties" in part
    }


def test_every_key_has_a_caption_and_every_caption_a_key():
    """Editors show it; what is gone is not explained any more."""
    known = parts()
    assert [(name, key) for name, keys in known.items() for key, one in keys.items() if "description" not in one] == []
    assert [(name, key) for name in known for key in CAPTIONS.get(name, {}) if key not in known[name]] == []


def test_quantities_are_described_as_they_are_written():
    """A duration is text with a unit, its default too; a bound that a pattern cannot say is left out."""
    steps = parts()["StepSpec"]
    assert re.fullmatch(steps["min_duration"]["pattern"], "1.5h")
    assert steps["min_duration"]["default"] == "0s"
    assert parts()["Increase"]["max_increase"]["examples"] == ["0.5pp"]
    assert '"gt"' not in json.dumps(list(parts().values()))


def test_unknown_keys_are_errors_in_an_editor_too():
    """Strict, as the command line is."""
    found = spec_schema()
    assert all(found["$defs"][name]["additionalProperties"] is False for name in parts() if name != "Spec")
    assert found["additionalProperties"] is False


def test_every_example_uses_only_described_keys_and_together_all_of_them():
    """The three examples show each key of the spec."""
    text = "\n".join(path.read_text() for path in (ROOT / "examples").glob("*.yaml"))
    keys = {key for name, part in parts().items() for key in part}
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}:", text)] == []
