"""The command line on a real release: over HTTP to the admin API, and straight to the store."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from canary.console import cli
from canary.errors import Unreachable
from canary.verbs import look
from canary.verbs.look import reached
from tests.canary.console.test_cli import linnet
from tests.canary.specs import changed

CONTRACT = "model release phase step generation desired actual overlays guardrails spend_usd budget_usd"


@pytest.fixture(params=["control plane", "store"])
def way(request, control_url, valkey_url) -> tuple[str, str]:
    """Both ways to a release: every verb must work on each."""
    return ("--url", control_url) if request.param == "control plane" else ("--store", valkey_url)


@pytest.fixture
def spec(tmp_path) -> Path:
    """A spec whose engines need no stack."""
    path = tmp_path / "release.yaml"
    placed = changed("engine: base,", "engine: base, replicas: ['http://127.0.0.1:8101'], digest: 'sha256:aa',")
    placed = changed("engine: new,", "engine: new, replicas: ['http://127.0.0.1:8102'], digest: 'sha256:bb',", placed)
    path.write_text(placed)
    return path


@pytest.fixture
def run(capsys):
    """Run a verb: exit code, standard output, standard error."""

    def call(*words: str) -> tuple[int, str, str]:
        code = cli.run(words)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def started(run, spec, way) -> tuple[str, str]:
    """A release that was just started; the way to it."""
    assert run("start", str(spec), "--reason", "november", *way)[0] == 0
    return way


def test_a_started_release_shows_the_contracts_fields(run, started):
    """`status --json` is what CI reads."""
    code, out, _ = run("status", "--json", *started)
    state = json.loads(out)
    assert code == 0
    assert state.keys() >= set(CONTRACT.split())
    assert (state["model"], state["release"], state["phase"]) == ("m", "r1", "draft")
    assert state["desired"] == {"baseline": 1.0, "candidate": 0.0}


def test_status_explain_audit_and_history_are_drawn(run, started):
    """Each face works on a fresh release."""
    for verb, word in (("status", "draft"), ("explain", "next: "), ("audit", "november"), ("history", "under way")):
        code, out, _ = run(verb, *started)
        assert (code, word in out) == (0, True), out


def test_a_change_is_audited_with_actor_and_reason(run, started):
    """Who, what and why, by either way."""
    assert run("pause", "--reason", "wait for Ann", *started)[0] == 0
    code, out, _ = run("audit", "--json", *started)
    last = json.loads(out)[-1]
    assert code == 0
    assert (last["what"], last["why"]) == ("pause", "wait for Ann")
    assert "@" in last["who"]


def test_a_pause_shows_and_resume_takes_it_off(run, started):
    """The overlay carries the reason."""
    run("pause", "--reason", "wait for Ann", *started)
    assert json.loads(run("status", "--json", *started)[1])["overlays"]["paused"] == "wait for Ann"
    run("resume", "--reason", "Ann agrees", *started)
    assert json.loads(run("status", "--json", *started)[1])["overlays"]["paused"] == ""


def test_another_generation_is_a_conflict(run, started):
    """Exit code 4, one line that says which generation it is."""
    code, out, err = run("rollback", "--reason", "bad", "--if-generation", "99", *started)
    assert (code, out, err.count("\n")) == (4, "", 1)
    assert "generation 1, not 99" in err


def test_the_expected_generation_goes_through(run, started):
    """--if-generation N with the right N changes nothing else."""
    assert run("abort", "--reason", "changed my mind", "--if-generation", "1", *started)[0] == 0


@pytest.mark.parametrize("verb", ["status", "explain", "pause", "rollback", "report"])
def test_an_unknown_model_is_refused_in_one_line(run, started, verb):
    """Exit code 1 and the way to begin."""
    reason = ("--reason", "x") if verb in {"pause", "rollback"} else ()
    code, out, err = run(verb, "--model", "nobody", *reason, *started)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "nobody" in err


def test_a_second_start_is_refused_and_supersede_takes_its_place(run, started, spec):
    """A release under way is not overwritten by accident."""
    assert run("start", str(spec), "--reason", "again", *started)[0] == 1
    assert run("start", str(spec), "--reason", "again", "--supersede", *started)[0] == 0
    found = json.loads(run("history", "--json", *started)[1])
    assert [attempt["result"] for attempt in found] == ["superseded", ""]


def test_a_rollback_ends_the_attempt_and_retry_begins_the_next(run, started, spec):
    """The digest is quarantined until retry says otherwise."""
    assert run("rollback", "--reason", "bad", *started)[0] == 0
    code, _, err = run("start", str(spec), "--reason", "again", *started)
    assert (code, "rolled back (bad)" in err) == (1, True)
    assert run("retry", "--reason", "mended", *started)[0] == 0
    assert json.loads(run("status", "--json", *started)[1])["attempt"] == 2


def test_waiting_says_by_its_exit_code_what_came(run, started):
    """Reached: 0. Another end: 1. Nothing: 5."""
    assert run("status", "--wait", "draft", "--timeout", "5s", *started)[0] == 0
    code, _, err = run("status", "--wait", "promoted", "--timeout", "0", *started)
    assert (code, err.count("\n")) == (5, 1)
    run("abort", "--reason", "changed my mind", *started)
    assert run("status", "--wait", "aborted", "--timeout", "5s", *started)[0] == 0
    code, _, err = run("status", "--wait", "promoted", "--timeout", "5s", *started)
    assert (code, "aborted, not promoted: changed my mind" in err) == (1, True)


@pytest.mark.parametrize(
    ("phase", "wanted", "expected"),
    [
        ("bake", "canary", True),
        ("shadow", "canary", False),
        ("promoted", "bake", True),
        ("rolled_back", "draft", False),
        ("promoted", "rolled_back", False),
    ],
)
def test_a_phase_passed_on_the_way_counts_as_reached(phase, wanted, expected):
    """Waiting for the canary ends in the bake too; ends are reached only as themselves."""
    assert reached(phase, wanted) is expected


def test_waiting_sees_what_happens_meanwhile(run, started):
    """The wait ends with the rollback, not with the timeout."""
    later = threading.Timer(0.3, lambda: cli.run(["rollback", "--reason", "bad", *started]))
    later.start()
    begun = time.monotonic()
    assert run("status", "--wait", "rolled_back", "--timeout", "20s", *started)[0] == 0
    later.join()
    assert time.monotonic() - begun < 10


def test_watching_in_a_pipe_prints_a_line_for_each_change_and_ends_with_the_release(run, started):
    """Plain lines, and exit code 1 after a rollback."""
    later = threading.Timer(0.4, lambda: cli.run(["rollback", "--reason", "bad", *started]))
    later.start()
    code, out, err = run("watch", "--interval", "50ms", *started)
    later.join()
    lines = [line for line in out.splitlines() if line.startswith("m r1") and "generation" in line]
    assert (code, "bad" in err) == (1, True)
    assert "draft" in lines[0]
    assert "rolled_back" in lines[-1]
    assert "\x1b" not in out


def test_the_report_is_written_in_both_forms(run, started, tmp_path):
    """Markdown and HTML; --json holds recommendation, reasons, thresholds and guards."""
    out = tmp_path / "deep" / "folder"
    code, said, _ = run("report", "--out", str(out), "--json", *started)
    value = json.loads(said)
    assert code == 0
    assert {"recommendation", "reasons", "thresholds", "guards"} <= value.keys()
    assert [Path(file).name for file in value["files"]] == ["report.md", "report.html"]
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    assert run("report", *started)[1].startswith("# r1: ")


def test_a_folder_that_cannot_be_written_is_one_line(run, started, tmp_path):
    """A file where the folder should be: usage, exit code 2."""
    (tmp_path / "taken").write_text("")
    code, _, err = run("report", "--out", str(tmp_path / "taken"), *started)
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:9/0", "unix:///nowhere/valkey.sock", "nonsense"])
@pytest.mark.parametrize("verb", ["status", "rollback"])
def test_a_store_out_of_reach_is_one_line(run, verb, url):
    """Exit code 3, whatever the verb."""
    reason = ("--reason", "x") if verb == "rollback" else ()
    code, out, err = run(verb, "--model", "m", "--store", url, *reason)
    assert (code, out, err.count("\n")) == (3, "", 1)


def test_the_process_itself_exits_with_the_code(started):
    """The same through a real process: conflict is 4, status is 0."""
    assert linnet("status", *started).returncode == 0
    done = linnet("abort", "--reason", "x", "--if-generation", "99", *started)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (4, "", False)


@pytest.mark.parametrize(("better", "code"), [(0.6, 0), (0.2, 1)])
def test_eval_scores_both_arms_and_keeps_the_report(run, spec, way, simulated, better, code):  # noqa: PLR0917
    """From passages to a stored report that the comparison report then shows."""
    verdict = "fail" if code else "pass"
    base, new = simulated(model="base", accuracy=0.2), simulated(model="new", accuracy=better)
    folder = spec.parent / "evals"
    folder.mkdir()
    for name in ("domain", "general"):
        texts = (" ".join(f"{name}{index * word}" for word in range(2, 12)) for index in range(3, 33))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    text = spec.read_text().replace("http://127.0.0.1:8101", base.url).replace("http://127.0.0.1:8102", new.url)
    spec.write_text(
        text.replace("{domain: evals/domain.jsonl}", "{domain: evals/domain.jsonl, general: evals/general.jsonl}")
    )
    run("start", str(spec), "--reason", "x", *way)
    found, out, _ = run("eval", str(spec), "--json", *way)
    assert (found, json.loads(out)["verdict"]) == (code, verdict)
    value = json.loads(run("report", "--json", *way)[1])
    assert value["evaluation"]["digest"] == "sha256:bb"
    assert value["thresholds"][0]["met"] is (verdict == "pass")


def test_eval_without_a_release_is_refused(run, spec, way):
    """Nothing to evaluate: start it first."""
    code, _, err = run("eval", str(spec), *way)
    assert (code, err.count("\n")) == (1, 1)


def test_watching_on_a_terminal_is_live_and_in_colour(run, started):
    """The glance is redrawn in place; the end of the release ends it, with its exit code."""
    run("rollback", "--reason", "bad", *started)
    ours, theirs = pty.openpty()
    code = "from canary.console.cli import main; main()"
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    environment.pop("NO_COLOR", None)
    watching = subprocess.Popen(
        [sys.executable, "-c", code, "watch", *started], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    assert watching.wait(30) == 1
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "\x1b[1;31mrolled_back" in shown
    assert "rolled_back: bad" in shown


def test_watching_survives_a_restart_of_the_control_plane(monkeypatch, capsys):
    """One line says that nobody answers; the watch goes on where it was."""
    answers = iter([{"phase": "canary"}, Unreachable("gone"), Unreachable("gone"), {"phase": "promoted"}])

    class Flapping:
        def status(self, _model):
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    state = look._lines(Flapping(), "m", 0.0, as_json=False)
    out, err = capsys.readouterr()
    assert (state["phase"], len(out.splitlines()), err.count("\n")) == ("promoted", 2, 1)
    assert "waiting for an answer: gone" in err


def test_a_terminal_is_asked_for_the_reason_and_told_what_will_happen(valkey_url, spec):
    """The question is the confirmation; with --reason nobody is asked."""
    ours, theirs = pty.openpty()
    code = "from canary.console.cli import main; main()"
    words = ["rollback", "--store", valkey_url]
    assert cli.run(["start", str(spec), "--reason", "x", "--store", valkey_url]) == 0
    asked = subprocess.Popen([sys.executable, "-c", code, *words], stdin=theirs, stdout=theirs, stderr=theirs)
    os.write(ours, b"the bad one\n")
    assert asked.wait(30) == 0
    os.close(theirs)
    said = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "its share goes to 0 and its digest into quarantine" in said
    assert "reason (Ctrl-C changes nothing): " in said
    assert "rolled_back" in said


def test_what_a_change_led_to_is_one_line_in_a_pipe(run, started):
    """However long a reason is: nothing wraps it."""
    code, out, _ = run("pause", "--reason", "word " * 60, *started)
    assert (code, out.count("\n")) == (0, 1)


def test_a_change_that_changes_nothing_says_so(run, started):
    """A second abort is no error, and nobody believes that it did something."""
    assert "nothing changed" not in run("abort", "--reason", "no need", *started)[2]
    code, out, err = run("abort", "--reason", "again", *started)
    assert (code, "aborted" in out, err) == (0, True, "abort: nothing changed, all is as it was\n")
