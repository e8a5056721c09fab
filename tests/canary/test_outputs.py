"""Every verb's JSON is what docs/schemas/output.json says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from canary import cli, outputs
from canary.shapes import Finding, Status
from tests.canary import materials
from tests.canary.test_cli_release import run, spec, started, way  # noqa: F401 - fixtures

PUBLISHED = Path(__file__).parents[2] / "docs" / "schemas" / "output.json"
CONTRACT = {"model", "release", "phase", "step", "generation", "desired", "actual", "overlays", "guardrails"}
REASON = ("--reason", "x")


def shaped(verb: str, text: str) -> object:
    """The output of a verb, once its shape is found right: an unknown field is a fault."""
    value = json.loads(text)
    TypeAdapter(outputs.SHAPES[verb]).validate_python(value)
    return value


def test_the_published_schema_is_the_types():
    """`python -c "from canary.outputs import document; print(document())"` writes it anew."""
    assert PUBLISHED.read_text() == outputs.document() + "\n"


def test_every_verb_that_prints_json_has_a_shape():
    """A verb that comes new is described too; `engines` and the like belong to their rooms."""
    own = {verb for verb in cli.VERBS if verb != "keys"}
    assert own | {"loadtest", "keys create", "keys list", "keys revoke"} == set(outputs.SHAPES)


def test_the_contracts_fields_are_named():
    """What CI and dashboards read."""
    assert CONTRACT | {"spend_usd", "budget_usd"} <= set(Status.model_fields)


def test_a_look_at_a_fresh_release_is_shaped(run, started):  # noqa: F811
    """Every verb that only looks."""
    for verb in ("status", "explain", "history", "audit", "report"):
        assert shaped(verb, run(verb, "--json", *started)[1])


def test_every_change_prints_the_new_status(run, started, spec):  # noqa: F811
    """One shape for all of them."""
    for verb in ("pause", "resume", "freeze", "unfreeze", "abort", "retry", "rollback", "retry"):
        code, out, _ = run(verb, *REASON, "--json", *started)
        assert code == 0
        shaped(verb, out)
    assert run("start", str(spec), *REASON, "--supersede", "--json", *started)[0] == 0


def test_what_needs_no_release_is_shaped(run, spec, way):  # noqa: F811
    """Before a release, and keys."""
    shaped("lint", run("lint", str(spec), "--json", *way)[1])
    shaped("plan", run("plan", str(spec), "--rps", "5", "--json")[1])
    made = shaped("keys create", run("keys", "create", "app", *REASON, "--json", *way)[1])
    shaped("keys list", run("keys", "list", "--json", *way)[1])
    shaped("keys revoke", run("keys", "revoke", made["id"], *REASON, "--json", *way)[1])


def test_a_faulty_spec_is_shaped(run, tmp_path):  # noqa: F811
    """Also where there is nothing to name."""
    (tmp_path / "s.yaml").write_text("model: m\n")
    assert shaped("lint", run("lint", str(tmp_path / "s.yaml"), "--json")[1])["valid"] is False


def test_a_finding_is_shaped():
    """As the controller stores it and the status shows it."""
    for one in (*materials.FINDINGS, materials.BREACH):
        Finding.model_validate({**one.to_dict(), "name": one.guardrail})


DEAD = ("--url", "http://127.0.0.1:9")
GONE = ("--store", "redis://127.0.0.1:9/0")
LOOKS = ("status", "watch", "explain", "history", "audit", "report")
PLAIN = ("pause", "resume", "promote", "abort", "rollback", "retry", "freeze", "unfreeze")


@pytest.mark.parametrize("verb", [*LOOKS, *PLAIN])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (DEAD, 3),  # nobody answers
        (GONE, 3),
        (("--url", "nowhere"), 2),  # wrong usage
        (("--nonsense",), 2),
    ],
)
def test_each_verb_exits_by_the_contract(run, verb, words, code):  # noqa: F811
    """The same fault is the same code on every verb, in one line."""
    reason = REASON if verb in PLAIN else ()
    found, out, err = run(verb, "--model", "m", *reason, *words)
    assert (found, out, err.count("\n")) == (code, "", 1)


@pytest.mark.parametrize("verb", [*PLAIN, "set-weight"])
def test_each_change_exits_by_the_contract(run, started, verb):  # noqa: F811
    """Another generation is 4, an unknown model 1, and a refusal 1 or done 0; never anything else."""
    more = ("5",) if verb == "set-weight" else ()
    code, out, err = run(verb, *more, *REASON, "--if-generation", "99", *started)
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert run(verb, *more, *REASON, "--model", "nobody", *started)[0] == 1
    expected = 1 if verb in {"promote", "retry", "set-weight"} else 0
    assert run(verb, *more, *REASON, *started)[0] == expected
