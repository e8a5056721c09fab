"""What a valid spec may still get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from canary.card import lint
from canary.card.spec import load, parse
from canary.console import cli
from tests.canary.specs import SPEC, changed

LATENCY = changed("error_rate: {max_increase: 5pp}", "ttft_p95: {max_ratio: 1.10}")
SHORT = "  - {percent: 50, min_duration: 2s, min_samples: 50}\n"


def said(text: str) -> str:
    """Every warning that the spec alone gives."""
    spec = parse(text, "s.yaml")
    return "\n".join(lint.written(spec, lint.advice(spec)))


@pytest.mark.parametrize(
    ("old", "new", "warned"),
    [
        ("release: r1", "release: r1", False),
        (SHORT, "", True),
        (SHORT, "  - {percent: 20, min_duration: 2s}\n", False),
        (SHORT, "  - {percent: 85, min_duration: 2s}\n", True),
        ("bake: {duration: 2s}", "bake: {duration: 2s, percent: 70}", False),
    ],
)
def test_a_release_whose_arms_are_never_loaded_alike_waits_for_ever(old, new, warned):
    """At 5 % and 95 % of equal replicas no latency passes; a step at 50 %, or at 20 %, is enough."""
    assert ("waits for ever" in said(changed(old, new, LATENCY))) is warned


def test_the_load_counts_replicas_the_control_and_what_is_held_alike():
    """Replicas by the share, a control, or a wider max_load_ratio mend it; without a latency nothing is amiss."""
    lonely = changed(SHORT, "", LATENCY)
    assert "s.yaml:20: at 95 % the candidate has x19 the baseline's requests" in said(lonely)
    assert "for ever" not in said(changed("bake: {duration: 2s}", "analysis: {max_load_ratio: 100}", lonely))
    assert "for ever" not in said(changed(SHORT, ""))
    hosts = ", ".join(f"'http://10.0.0.{n}:1'" for n in range(19))
    shared = changed("engine: new,", f"engine: new, replicas: [{hosts}],", lonely)
    assert "for ever" not in said(shared)
    control = "  control: {replicas: ['http://10.0.1.1:1']}\ngates:\n"
    assert "for ever" not in said(changed("gates:\n", control, lonely))


def test_a_margin_of_nothing_and_a_free_candidate_are_told():
    """Both are valid, and hardly meant."""
    free = changed("served_model: new, usd_per_hour: 0.2", "served_model: new")
    assert "the spend and the stop loss do not see it" in said(free)
    assert "proved to be better" in said(changed("max_ratio: 1.10", "max_ratio: 1.0", LATENCY))


def test_files_that_a_gate_will_need_are_looked_for(tmp_path):
    """Relative to the spec, the place is the line that names them."""
    path = tmp_path / "r.yaml"
    path.write_text(SPEC)
    spec = load(path)
    assert f"{path}:16: prompts.jsonl is not there" in "\n".join(lint.written(spec, lint.advice(spec)))
    (tmp_path / "prompts.jsonl").write_text("{}\n")
    assert list(lint.advice(spec)) == []


@pytest.fixture(params=["control plane", "store"])
def way(request, control_url, valkey_url) -> tuple[str, str]:
    """Both ways to ask what runs."""
    return ("--url", control_url) if request.param == "control plane" else ("--store", valkey_url)


def test_engines_that_nobody_serves_are_faults_where_somebody_knows(tmp_path, capsys, way):
    """The control plane or the store says what runs; the line is the engine's."""
    path = tmp_path / "r.yaml"
    path.write_text(SPEC)
    assert cli.run(["lint", str(path), "--json", *way]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["valid"] is False
    assert found["faults"][0].startswith(f"{path}:13: engine base is not running and the spec gives no replicas and")


@pytest.mark.parametrize(("served", "code"), [("base", 0), ("other", 2)])
def test_a_replica_is_asked_what_it_serves(tmp_path, capsys, way, simulated, served, code):  # noqa: PLR0917
    """Another model is a fault; a replica that is silent from here only a warning."""
    engine = simulated(model=served)
    placed = changed("engine: base,", f"engine: base, replicas: ['{engine.url}'], digest: 'sha256:aa',")
    placed = changed("engine: new,", "engine: new, replicas: ['http://127.0.0.1:9'], digest: 'sha256:bb',", placed)
    path = tmp_path / "r.yaml"
    path.write_text(placed)
    assert cli.run(["lint", str(path), "--json", *way]) == code
    found = json.loads(capsys.readouterr().out)
    assert any("127.0.0.1:9 does not say from here" in line for line in found["warnings"])
    assert [f"{path}:13: {engine.url} does not serve base, but {served}" in line for line in found["faults"]] == (
        [True] if code else []
    )


def test_with_nobody_to_ask_a_spec_is_valid_with_a_warning(tmp_path, capsys):
    """CI lints without a stack: exit code 0, and what was not checked on standard error."""
    path = tmp_path / "r.yaml"
    path.write_text(SPEC)
    assert cli.run(["lint", str(path), "--url", "http://127.0.0.1:9"]) == 0
    out, err = capsys.readouterr()
    assert "valid" in out
    assert "not checked whether the engines run" in err
    assert all(line.startswith(f"warning: {path}:") for line in err.splitlines())


EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_each_example_is_valid_and_can_end(path, capsys):
    """A reader may start from it: nothing to warn of but files that are theirs, and a plan that comes to an end."""
    spec = load(path)
    assert all("is not there" in note.what for note in lint.advice(spec))
    assert cli.run(["plan", str(path), "--rps", "20", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seconds"] is not None


def test_the_examples_explain_every_key():
    """Three files, each key of the spec in one of them, and the schema for editors in the first line."""
    texts = [path.read_text() for path in EXAMPLES]
    assert [path.stem for path in EXAMPLES] == ["cautious", "lora", "standard"]
    assert all(text.startswith("# yaml-language-server: $schema=../docs/schemas/spec.json\n") for text in texts)
