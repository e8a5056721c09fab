"""`linnet simulate`: guardrails over made-up traffic."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from canary.console import cli
from canary.core.policy import Guard, Policy
from canary.traffic import Measured
from canary.trials import stories
from canary.trials.world import Step, World
from canary.verbs import simulate
from tests.canary.recordings import ENTRY, entries, lines
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
        "a look every 10 s (the controller's: 1 s)",
        "of 3 runs each",
        "0 to 70.8 %",
        "> 1 min 0 s",
        "errors +10 pp 3",
        "Too few runs to tell",
    ):
        assert words in said
    assert "TTFT" not in out


def test_json_has_every_field(run):
    """What a script reads; null is a median or a 90 % quantile that was not reached."""
    found = json.loads(run(*QUICK, "--json", "--own-noise", "0.1,0.1,60")[1])
    equal, _, errors = found["scenarios"]
    assert (found["runs"], found["alpha"], found["sliced"], found["log"]) == (3, 0.01, False, None)
    assert found["false_rollback"] == {
        "scenario": "equal",
        "count": 0,
        "rate": 0.0,
        "low95": 0.0,
        "high95": pytest.approx(0.708, abs=0.001),
        "holds": None,
        "runs_needed": 368,
    }
    (detection,) = found["detection"].values()
    assert (detection["share"], detection["missed"]) == (1.0, 0)
    assert 0 < detection["median"] <= detection["p90"] < 60
    assert (equal["rolled_back"], equal["median_requests"], equal["longest_seconds"]) == (0, None, 60)
    assert (errors["name"], errors["rolled_back"], errors["by"]) == ("errors +10 pp", 3, {"error_rate": 3})
    assert list(found["detection"]) == ["errors +10 pp"]
    assert 0 < errors["median_seconds"] < 60


def test_what_is_missed_is_said(run):
    """Where no story had time to find it."""
    text = changed("max_increase: 5pp", "max_increase: 0.01pp")
    found = json.loads(run(*QUICK, "--json", text=text)[1])["detection"]["errors +0.02 pp"]
    assert found == {"share": 0.0, "median": None, "p90": None, "missed": 3}


@pytest.fixture
def log(tmp_path):
    """A gateway's access log of a quarter of an hour, in two slices, with two damaged lines."""
    path = tmp_path / "access.log"
    other = replace(ENTRY, model="another")
    path.write_bytes(
        b"".join([b"{torn\n", *lines(entries(4500, gap=0.2, slices=("law", "general"))), *lines([other]), b"x"])
    )
    return path


def test_recorded_traffic_is_told_again(run, log):
    """What was in the log, what was not, and a guardrail of a slice on its slice."""
    text = changed("max_increase: 5pp", "max_increase: 20pp, slices: [law, rare]")
    said = " ".join(run(*QUICK, "--log", str(log), text=text)[1].split())
    for words in (
        "recorded traffic",
        "recorded: 4,500 requests of the baseline in 14 min 53 s, 5.04",
        "requests/s, 1.8 % failed",
        "with a TTFT",
        "left out, in lines: 2 damaged, 1 of other models",
        "slices: law 50 %, general 50 %",
        "slices that the log lacks: rare",
        "not in a log: sessions",
    ):
        assert words in said, said
    assert "made up" not in said
    found = json.loads(run(*QUICK, "--json", "--seconds", "300", "--log", str(log), text=text)[1])
    assert found["log"]["left_out"] == {"damaged": 2, "of other models": 1}
    assert found["log"]["rate"] == pytest.approx(5.0, rel=0.1) == found["traffic"]["rate"]
    assert found["scenarios"][2]["by"] == {"error_rate": 3}


def test_what_no_log_tells_is_made_up_and_said(run, log):
    """Shadow scores, flaws of a text; a story longer than the log goes round."""
    more = (
        "  error_rate: {max_increase: 5pp}\n  refusal: {max_increase: 5pp}\n  shadow_quality: {min_difference: -0.1}\n"
    )
    text = changed("  error_rate: {max_increase: 5pp}\n", more)
    said = " ".join(run("--runs", "1", "--seconds", "1000", "--log", str(log), text=text)[1].split())
    assert "made up all the same: shadow scores, refusals" in said
    assert "the log is shorter than a story" in said


def test_a_log_that_says_too_little_is_one_line(run, tmp_path):
    """Nothing in it, too few, nobody by that name, none there."""
    path = tmp_path / "access.log"
    for text, said in (
        (b"", "0 requests of m that count as evidence of a baseline; 100 are needed: log for longer, or say --rps"),
        (b"".join(lines(entries(99))), "99 requests of m"),
        (b"".join(lines([replace(one, model="n") for one in entries(100)])), "name one of them with --model"),
    ):
        path.write_bytes(text)
        code, out, err = run("--log", str(path))
        assert (code, out, err.count("\n"), said in err) == (2, "", 1, True), err
    path.write_bytes(b"".join(lines([replace(one, model="n") for one in entries(100)])))
    assert run(*QUICK, "--log", str(path), "--model", "n")[0] == 0


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
    setting = stories.Setting(World([Step(0.5, 30)]), 4, 1, 5)
    jobs = [job for kind in stories.scenarios(policy) for job in stories.trials(kind, policy, setting)]
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
        (("--as-seen", "--rps", "3"), "--rps and --as-seen: each says what the traffic is; keep one"),
        (("--rps", "3", "--log", "x"), "--rps and --log: each says"),
        (("--log", "/nowhere/x"), "cannot be read (No such file"),
        (("--log", "."), "cannot be read (Is a directory"),
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
