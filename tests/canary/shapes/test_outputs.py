"""Every verb's JSON is what docs/schemas/output.json says: nothing missing, and nothing that it does not name."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema_rs import Draft202012Validator

from canary.console import cli
from canary.shapes import outputs
from canary.shapes.release import Finding, Status
from canary.storage.store import Store
from tests.canary import materials
from tests.canary.console.test_cli_release import run, spec, started, way  # noqa: F401 - fixtures
from tests.canary.specs import changed
from tests.canary.world import BY, EVAL, LOAD, World

PUBLISHED = Path(__file__).parents[3] / "docs" / "schemas" / "output.json"
CONTRACT = {"model", "release", "phase", "step", "generation", "desired", "actual", "overlays", "guardrails"}
REASON = ("--reason", "x")
SPEC, KEY = "the spec's file", "the id of the key that was made"  # filled in when a verb is called

# What is told before a verb, and the words that it needs.
BEFORE: dict[str, tuple[str, ...]] = {
    "watch": ("rollback",),
    "retry": ("rollback",),
    "start": ("abort",),
    "resume": ("pause",),
    "unfreeze": ("freeze",),
    "report": ("eval", "loadtest"),
    "keys list": ("keys create",),
    "keys revoke": ("keys create",),
}
WORDS: dict[str, tuple[str, ...]] = {
    "lint": (SPEC,),
    "plan": (SPEC, "--rps", "5", "--as-seen"),
    "simulate": (SPEC, "--runs", "2", "--seconds", "20"),
    "start": (SPEC,),
    "eval": (SPEC,),
    "loadtest": (SPEC, "--arm", "candidate"),
    "promote": ("--skip-analysis",),
    "set-weight": ("7", "--ramp", "10s"),
    "keys create": ("app", "--scope", "tester", "--rpm", "5"),
    "keys revoke": (KEY,),
}
CHANGES = {*outputs.CHANGES, "keys create", "keys revoke"}  # these need a reason
NOWHERE = {"engines status", "engines list"}  # of this machine: no way leads there
SLOW = {"plan", "simulate", "eval", "loadtest", "report"}  # told by one way
CODES = {"watch": 1, "engines status": 1, "eval": 1}  # a rollback; nothing is installed; equal engines gain nothing
QUICK = "rate: 10, duration: 1s, max_tokens: 8, max_lag_p99: 1s, saturation: {in_flight: 2, duration: 500ms}"
LINES = {"watch", "audit --export -"}  # a document on each line


def closed(part: Any) -> Any:
    """Return the schema with every object closed to what is not named."""
    if isinstance(part, list):
        return [closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    own = {"additionalProperties": False} if "properties" in part else {}
    return {**{key: closed(one) for key, one in part.items()}, **own}


def faults(verb: str, value: Any) -> list[str]:
    """Say what the published schema finds wrong in a verb's output."""
    schema = closed(json.loads(PUBLISHED.read_text()))
    whole = {"$defs": schema["$defs"], **schema["properties"][verb]}
    return [f"{error.instance_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(value)]


async def _to_canary(url: str, text: str) -> None:
    store = Store.connect(url)
    try:
        world = World(store)
        await world.start(text)
        await world.step()
        await store.put_report("m", "load", "d-new", LOAD, BY)
        await store.put_report("m", "eval", "d-new", EVAL, BY)
        while not (await world.release()).percent:
            await world.step()
            await world.pairs()
        await world.traffic(200)
        await world.step()
    finally:
        await store.close()


@pytest.fixture
def placed(simulated, tmp_path, monkeypatch) -> Path:
    """A spec whose engines answer, with all that it names beside it; state and cache are the test's own."""
    monkeypatch.setenv("LINNET_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LINNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LINNET_GATEWAY_URL", simulated(model="m").url)
    (tmp_path / "cache" / "engines-old").mkdir(parents=True)
    text = changed("workload: prompts.jsonl,", f"workload: prompts.jsonl, {QUICK},")
    for name in ("base", "new"):
        at = simulated(model=name, accuracy=0.5).url
        text = changed(f"engine: {name},", f"engine: {name}, replicas: ['{at}'], digest: d-{name},", text)
    words = [" ".join(f"{name}{index}" for name in "abcdefghij") for index in range(12)]
    (tmp_path / "evals").mkdir()
    (tmp_path / "evals" / "domain.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in words))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": one}) + "\n" for one in words))
    (tmp_path / "r.yaml").write_text(text)
    return tmp_path / "r.yaml"


@pytest.fixture
def told(run, valkey_url, control_url, placed):  # noqa: F811
    """Tell a verb to a release in its canary, and what comes before it; return exit code and what it printed."""
    asyncio.run(_to_canary(valkey_url, placed.read_text()))
    ways = {"store": ("--store", valkey_url), "control plane": ("--url", control_url)}

    def call(verb: str, by: str) -> tuple[int, str]:
        for one in BEFORE.get(verb, ()):
            _, out = call(one, by)
        fills = {SPEC: str(placed), KEY: json.loads(out)["id"] if verb == "keys revoke" else ""}
        words = [fills.get(word, word) for word in WORDS.get(verb, ())]
        words += REASON if verb in CHANGES else ()
        words += () if verb in NOWHERE else ways[by]
        code, out, err = run(*verb.split(), *words, "--json")
        return code, out or err

    return call


@pytest.mark.parametrize(
    ("verb", "by"),
    [(verb, "store") for verb in outputs.SHAPES]
    + [(verb, "control plane") for verb in outputs.SHAPES if verb not in NOWHERE | SLOW],
)
def test_each_verb_prints_what_the_schema_says(told, verb, by):
    """On a release in its canary, by either way: no field is missing, and none that the schema does not name."""
    code, out = told(verb, by)
    assert code == CODES.get(verb, 0), out
    for value in map(json.loads, out.splitlines() if verb in LINES else [out]):
        assert faults(verb, value) == []
        one = value[0] if isinstance(value, list) else value
        assert faults(verb, [{**one, "new": 1}] if isinstance(value, list) else {**one, "new": 1})


def test_the_canary_has_something_to_show(told):
    """Empty lists would fit any schema."""
    found = json.loads(told("status", "store")[1])
    assert all(found[part] for part in ("guardrails", "timeline", "load", "shadow_tokens", "reference"))
    assert json.loads(told("report", "store")[1]).keys() >= {"load", "evaluation"}


def test_the_published_schema_is_the_types():
    """`python -c "from canary.shapes.outputs import document; print(document())"` writes it anew."""
    assert PUBLISHED.read_text() == outputs.document() + "\n"


def with_json(command: Any, path: tuple[str, ...] = ()) -> dict[str, bool]:
    """Return every verb below a command, and whether it has `--json`."""
    if inner := getattr(command, "commands", None):
        return {verb: has for name, one in inner.items() for verb, has in with_json(one, (*path, name)).items()}
    return {" ".join(path): any("--json" in option.opts for option in command.params)}


def test_every_verb_that_tells_facts_has_json_and_a_shape():
    """A verb that comes new is described too; only those that make something say no more than where it is."""
    found: dict[str, bool] = {}
    for name, where in cli.verbs().items():
        found |= with_json(cli.command(name, where), (name,))
    assert {verb for verb, has in found.items() if not has} == MAKERS
    assert {verb for verb, has in found.items() if has} == {verb.partition(" --")[0] for verb in outputs.SHAPES}


MAKERS = {"up", "demo", "adapt", "quantize", "engines install"}


def test_the_contracts_fields_are_named():
    """What CI and dashboards read."""
    assert CONTRACT | {"spend_usd", "budget_usd"} <= set(Status.model_fields)


def test_a_fresh_release_and_its_ends_are_shaped(run, started):  # noqa: F811
    """Nothing was measured yet, nobody was exposed: null and empty are in the schema too."""
    for verb in ("status", "explain", "history", "audit", "report", "abort", "status", "report"):
        reason = REASON if verb in CHANGES else ()
        assert faults(verb, json.loads(run(verb, *reason, "--json", *started)[1])) == []


def test_a_faulty_spec_is_shaped(run, tmp_path):  # noqa: F811
    """Also where there is nothing to name."""
    (tmp_path / "s.yaml").write_text("model: m\n")
    found = json.loads(run("lint", str(tmp_path / "s.yaml"), "--json")[1])
    assert (found["valid"], faults("lint", found)) == (False, [])


def test_an_audit_without_entries_is_shaped(run, way):  # noqa: F811
    """Nothing was written yet."""
    assert faults("audit --verify", json.loads(run("audit", "--verify", "--json", *way)[1])) == []


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
