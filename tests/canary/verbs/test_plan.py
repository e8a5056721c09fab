"""`linnet plan`: a forecast from a file alone."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from canary import references
from canary.console import cli
from canary.core.state import Phase
from canary.core.tally import parse
from canary.references import Collected, Sides
from tests.canary import materials
from tests.canary.specs import changed
from tests.canary.test_references import halves

FULL = changed(
    "error_rate: {max_increase: 5pp}",
    "error_rate: {max_increase: 0.5pp}\n  ttft_p95: {max_ratio: 1.10}\n  shadow_quality: {min_difference: -0.02}",
)


@pytest.fixture
def spec(tmp_path):
    """A spec with a guardrail of each kind."""
    path = tmp_path / "spec.yaml"
    path.write_text(FULL)
    return str(path)


@pytest.fixture
def run(capsys, spec):
    """Run the verb: exit code, standard output, standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        code = cli.run(["plan", spec, *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_every_step_has_its_numbers(run):
    """Shares, the slowest guardrail, how long it takes and what would be faster."""
    code, out, err = run("--rps", "20")
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    for words in ("shadow", "5 %", "bake 95 %", "(slowest)", "PASS if equal", "at 20 requests/s", "no reference"):
        assert words in said
    assert re.search(r"50 %: \d+ min \d+ s; the proof of \w+ decides", said)
    assert "a reference of 6 h would save" in said
    assert "no latency passes where an arm has many times the other's requests in flight a replica" in said


def test_json_has_every_field(run):
    """What a script reads; null is never."""
    found = json.loads(run("--rps", "20", "--json")[1])
    assert (found["release"], found["rps"], found["limit_requests"]) == ("r1", 20, 100_000)
    assert [step["step"] for step in found["steps"]] == ["shadow", "5 %", "50 %", "bake 95 %"]
    assert found["seconds"] == pytest.approx(sum(step["seconds"] for step in found["steps"]))
    guard = found["steps"][2]["guardrails"][0]
    assert (guard["name"], guard["margin"], guard["worse_by"]) == ("error_rate", 0.005, 0.01)
    assert guard["pass"]["requests"] == pytest.approx(20 * guard["pass"]["seconds"], abs=2)
    assert found["steps"][3]["guardrails"][2]["fail"] is None
    assert {"what", "of", "before", "after"} == set(found["faster"][0])


def test_assumptions_can_be_given(run):
    """Rates in percent or as they are; harm, replicas and a reference too."""
    given = ("--assume", "error_rate=2%", "--assume", "pair_sd=0.1", "--worse", "3")
    given += ("--replicas", "2", "--reference", "6")
    found, plain = (json.loads(run("--rps", "20", "--json", *words)[1]) for words in (given, ()))
    assert (found["assumed"]["error_rate"], found["assumed"]["pair_sd"], found["worse"]) == (0.02, 0.1, 3)
    assert (found["replicas"], found["reference_hours"]) == (2, 6)
    fails = [one["steps"][2]["guardrails"][1]["fail"]["seconds"] for one in (found, plain)]
    assert 5 * fails[0] < fails[1]


def test_a_slice_has_its_own_traffic(tmp_path, capsys):
    """A tenth of the traffic takes about ten times as long."""
    path = tmp_path / "spec.yaml"
    path.write_text(changed("max_increase: 5pp", "max_increase: 5pp, slices: [domain, general]"))

    def seconds(*words: str) -> list[float]:
        assert cli.run(["plan", str(path), "--rps", "20", "--json", *words]) == 0
        found = json.loads(capsys.readouterr()[0])
        return [row["fail"]["seconds"] for row in found["steps"][2]["guardrails"]]

    few, many = seconds("--slice", "domain=10%")
    assert few == pytest.approx(9 * many, rel=0.02)
    assert len(set(seconds())) == 1


def test_too_little_traffic_is_said_plainly(run):
    """Never, in the headline, the table and the step."""
    said = " ".join(run("--rps", "20", "--assume", "error_rate=50%", "--assume", "pair_sd=1")[1].split())
    assert "never ends at 20 requests/s" in said
    assert "never within 100,000 requests" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--url", "http://127.0.0.1:9"), "add --rps N"),
        (("--url", "nowhere"), "add --rps N"),
        (("--rps", "0"), "--rps 0: out of range"),
        (("--rps", "nan"), "--rps nan: out of range"),
        (("--rps", "many"), "--rps"),
        (("--rps", "20", "--replicas", "0"), "--replicas 0: out of range"),
        (("--rps", "20", "--reference", "-1"), "--reference -1: out of range"),
        (("--rps", "20", "--worse", "1"), "--worse 1: out of range"),
        (("--rps", "20", "--assume", "errors=1%"), "nothing is called 'errors'"),
        (("--rps", "20", "--assume", "error_rate"), "write NAME=VALUE"),
        (("--rps", "20", "--assume", "ttft_sd=x"), "'x' is no number"),
        (("--rps", "20", "--assume", "ttft_sd=0"), "out of range"),
        (("--rps", "20", "--slice", "legal=10"), "no slice 'legal'"),
        (("--rps", "20", "--slice", "domain=110"), "not parts of 100 %"),
        (("--rps", "20", "--slice", "domain=-1"), "not parts of 100 %"),
        (("--rps", "20", "--slice", "domain=nan"), "not parts of 100 %"),
    ],
)
def test_an_error_is_one_line(run, words, said):
    """What, where, the mend; exit code 2 and nothing on standard output."""
    code, out, err = run(*words)
    assert (code, out, err.count("\n"), said in err) == (2, "", 1, True), err


def test_without_a_rate_the_store_is_asked(run, valkey_url):
    """A model that has no release cannot tell."""
    code, out, err = run("--store", valkey_url)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no release of m tells it" in err


@pytest.fixture
def stored(monkeypatch):
    """A release that serves ten requests a second, and what its baseline's replicas have shown in `blocks` blocks."""

    def store(blocks: int) -> None:
        release = replace(materials.RELEASE, phase=Phase.CANARY, shares=(0.0, 5.0), started=time.time() - 100)
        sums = {
            "0|baseline|domain|assigned": "300",
            "1|baseline|domain|assigned": "600",
            "1|candidate||assigned": "100",
        }
        compared = parse(
            {name: str(amount) for name, amount in halves(int(time.time() // 10) - blocks, blocks).items()}
        )
        taken = references.halves(compared, time.time() + 60)
        known = Collected().take("replicas", Sides("base", 1, 1), taken, time.time())
        material = {"release": json.loads(release.to_json()), "tallies": sums, "references": known.to_json()}
        monkeypatch.setattr("canary.verbs.plan.connect", lambda *_: SimpleNamespace(material=lambda _: material))

    return store


def test_the_reference_in_the_store_is_used(run, stored):
    """With --as-seen or without --rps; a longer one makes a latency fail sooner, and its age and quality are said."""
    blind = json.loads(run("--rps", "20", "--json")[1])
    stored(400)
    seen = json.loads(run("--rps", "20", "--as-seen", "--json")[1])
    assert (blind["reference"], seen["reference"]["ttft"]["seconds"]) == ({}, 3970.0)
    fails = [one["steps"][2]["guardrails"][1]["fail"]["seconds"] for one in (seen, blind)]
    assert fails[0] < fails[1] / 2
    said = " ".join(run("--rps", "20", "--as-seen")[1].split())
    assert "reference: 1.1 h of 2 replicas, last block" in said
    assert "own noise of TTFT at most" in said
    assert "a reference of 6 h would" not in said
    supposed = json.loads(run("--as-seen", "--reference", "6", "--json")[1])
    assert (supposed["reference"], supposed["reference_hours"], round(supposed["rps"])) == ({}, 6, 10)


def test_a_reference_that_tells_nothing_yet_is_said_and_not_believed(run, stored):
    """A minute of it is none."""
    stored(20)
    code, out, _ = run("--rps", "20", "--as-seen")
    said = " ".join(out.split())
    assert code == 0
    assert "too little to tell" in said
    assert "a reference of 6 h would save" in said


def test_as_seen_needs_somebody_to_ask(run):
    """One line, with the mend."""
    code, out, err = run("--rps", "20", "--as-seen", "--url", "http://127.0.0.1:9")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "leave it out" in err


def test_a_control_is_loaded_alike(tmp_path, capsys):
    """With one a latency may pass at a small share."""
    line = "  candidate: {engine: new, served_model: new, usd_per_hour: 0.2}\n"
    path = tmp_path / "spec.yaml"
    path.write_text(changed(line, line + "  control: {engine: spare}\n", FULL))
    assert cli.run(["plan", str(path), "--rps", "20", "--json"]) == 0
    found = json.loads(capsys.readouterr()[0])
    assert found["control"] == 1
    assert [row["load_matched"] for row in found["steps"][1]["guardrails"]] == [True, True, True]


def test_a_stored_release_tells_the_traffic(run, monkeypatch):
    """Its requests a second and the parts of its slices."""
    release = replace(materials.RELEASE, phase=Phase.CANARY, shares=(0.0, 5.0), started=time.time() - 100)
    sums = {"0|baseline|domain|assigned": "300", "1|baseline|domain|assigned": "600", "1|candidate||assigned": "100"}
    known = SimpleNamespace(material=lambda _: {"release": json.loads(release.to_json()), "tallies": sums})
    monkeypatch.setattr("canary.verbs.plan.connect", lambda *_: known)
    found = json.loads(run("--json")[1])
    assert found["rps"] == pytest.approx(10, rel=0.05)
    assert found["slices"] == {"domain": 0.9}
