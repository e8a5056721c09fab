"""`linnet simulate`: guardrails over made-up traffic."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from canary import cli, trials
from canary.core.policy import Guard, Policy
from canary.simulate import Step, Traffic
from canary.traffic import Measured
from canary.verbs import simulate
from tests.canary.specs import SPEC, changed

QUICK = ("--runs", "3", "--seconds", "60")


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run the verb in this process: exit code, standard output, standard error."""
    monkeypatch.setattr(simulate.os, "sched_getaffinity", lambda _: {0})
    path = tmp_path / "spec.yaml"

    def call(*words: str, text: str = SPEC) -> tuple[int, str, str]:
        path.write_text(text)
        code = cli.run(["simulate", str(path), *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_every_scenario_has_its_row(run):
    """What was assumed, how often, how sure, how soon and by what; no progress where no terminal is."""
    code, out, err = run(*QUICK)
    assert (code, err) == (0, "")
    said = " ".join(out.split())
    for words in (
        "20 requests/s",
        "5 % for 20 s, 50 % for 40 s",
        "a look every 5 s (the controller's: 1 s)",
        "0 % to 70.8 %",
        "not in 1 min 0 s",
        "errors +10 pp 3",
        "Too few runs to tell",
    ):
        assert words in said
    assert "TTFT" not in out


def test_json_has_every_field(run):
    """What a script reads; null is a median that was not reached."""
    found = json.loads(run(*QUICK, "--json", "--own-noise", "0.1,0.1,60")[1])
    equal, _, errors = found["scenarios"]
    assert (found["alpha"], found["bound_holds"], found["sliced"]) == (0.01, None, False)
    assert (equal["rolled_back"], equal["median_requests"], equal["longest_seconds"]) == (0, None, 60)
    assert (errors["rolled_back"], errors["by"]) == (3, {"error_rate": 3})
    assert 0 < errors["median_seconds"] < 60


def test_the_traffic_can_be_what_was_seen(run, monkeypatch):
    """The last release's, as `linnet plan` has it."""
    monkeypatch.setattr(simulate, "seen_traffic", lambda *_: Measured(12.5))
    assert json.loads(run(*QUICK, "--json", "--as-seen")[1])["traffic"]["rate"] == 12.5


def test_slices_are_said_to_be_one(run):
    """Made-up traffic has none, and a guardrail of a slice is tried all the same."""
    text = changed("max_increase: 5pp", "max_increase: 5pp, slices: [domain, general]")
    found = json.loads(run(*QUICK, "--json", text=text)[1])
    assert found["sliced"]
    assert found["scenarios"][2]["rolled_back"] == 3


def test_the_same_seed_tells_the_same(run):
    """Another seed does not."""
    first, again, other = (run(*QUICK, "--json", "--seed", seed)[1] for seed in ("1", "1", "2"))
    assert first == again != other


def test_processes_change_nothing():
    """One or two: the same stories in the same order, each ticked."""
    policy = Policy((Guard("error_rate", 0.1),))
    setting = trials.Setting((Step(0.5, 30),), Traffic(), 4, 1, 5)
    jobs = [job for kind in trials.scenarios(policy) for job in trials.trials(kind, policy, setting)]
    ticks: list[int] = []
    alone = simulate.hold_all(jobs, 1)
    assert simulate.hold_all(jobs, 2, lambda: ticks.append(1)) == alone
    assert len(ticks) == len(jobs)
    assert len({story.requests for story in alone}) > 6


def test_the_plot_is_an_svg(run, tmp_path):
    """Well-formed, a line a scenario."""
    path = tmp_path / "out.svg"
    assert run(*QUICK, "--plot", str(path))[0] == 0
    lines = [one for one in ET.fromstring(path.read_text()).iter() if one.get("class") == "line"]  # noqa: S314 - our own
    assert len(lines) == 3


@pytest.mark.parametrize(
    ("holds", "said"), [(True, "holds: 0 of 9"), (False, "is broken: 0 of 9"), (None, "--runs 368 would")]
)
def test_the_sentence_is_plain(holds, said):
    """It holds, it is broken, or so few runs cannot tell."""
    row = {"name": "equal", "runs": 9, "rolled_back": 0, "low": 0.0, "high": 0.336}
    found = {"scenarios": [row], "judged_by": "equal", "alpha": 0.01, "bound_holds": holds, "runs_needed": 368}
    assert said in simulate._sentence(found)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rps", "0"), "--rps 0: out of range"),
        (("--rps", "nan"), "--rps nan: out of range"),
        (("--runs", "0"), "--runs 0: out of range"),
        (("--runs", "few"), "--runs"),
        (("--seed", "-1"), "--seed -1: out of range"),
        (("--seconds", "1"), "--seconds 1: out of range"),
        (("--every", "0"), "--every 0: out of range"),
        (("--own-noise", "0.1"), "not three numbers"),
        (("--own-noise", "0.1,x,3"), "not three numbers"),
        (("--own-noise", "0.1,0.1,0"), "--own-noise TAU 0: out of range"),
        (("--own-noise", "-1,0.1,60"), "--own-noise TTFT_SD -1: out of range"),
        (("--as-seen", "--url", "nowhere"), "add --rps N"),
        (("--plot", "out.png"), "name it FILE.svg"),
        (("--plot", "/nowhere/out.svg"), "cannot be written"),
    ],
)
def test_an_error_is_one_line(run, words, said):
    """What, where, the mend; exit code 2 and nothing on standard output."""
    code, out, err = run(*words)
    assert (code, out, err.count("\n"), said in err) == (2, "", 1, True), err


def test_a_bad_spec_is_told_with_its_line(run):
    """As by every other verb."""
    code, out, err = run(text=changed("max_increase: 5pp", "max_increase: much"))
    assert (code, out) == (2, "")
    assert "spec.yaml:" in err
