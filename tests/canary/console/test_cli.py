from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from canary.console import cli
from tests.canary.specs import SPEC, changed

ROOT = Path(__file__).parents[3]
DEAD = "http://127.0.0.1:9"


def linnet(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own, without a terminal."""
    return subprocess.run(
        [sys.executable, "-c", "from canary.console.cli import main; main()", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "100", **environment},
        cwd=ROOT,
    )


def run(capsys, *words: str) -> tuple[int, str, str]:
    """Run the command in this process: exit code, standard output, standard error."""
    code = cli.run(words)
    out, err = capsys.readouterr()
    return code, out, err


CHANGES = ("pause", "resume", "abort", "rollback", "retry", "freeze", "unfreeze", "promote")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("stauts",), 2, "did you mean 'status'"),
        (("status", "--foo"), 2, "see `linnet status --help`"),
        (("status", "--wait", "bread"), 2, "not a phase"),
        (("status", "--wait", "bake", "--timeout", "soon"), 2, "--timeout soon: not a length of time"),
        (("status", "--url", "nowhere"), 2, "not a URL"),
        (("status", "--url", DEAD), 3, "start it (linnet up)"),
        (("status", "--url", DEAD, "--wait", "bake", "--timeout", "0"), 3, "control plane"),
        (("watch", "--url", DEAD), 3, "--store URL"),
        (("explain", "--url", DEAD), 3, "control plane"),
        (("history", "--url", DEAD), 3, "control plane"),
        (("audit", "--url", DEAD), 3, "control plane"),
        (("report", "--url", DEAD), 3, "control plane"),
        (("set-weight", "101", "--reason", "x"), 2, "from 0 to 100"),
        (("set-weight", "nan", "--reason", "x"), 2, "from 0 to 100"),
        (("set-weight", "", "--reason", "x"), 2, "set-weight '': not a share"),
        (("set-weight", "-5", "--reason", "x"), 2, "set-weight: -5: no number below 0 is taken here; write 0 or more"),
        (("set-weight", "--reason", "x", "-.5%"), 2, "no number below 0 is taken here"),
        (("set-weight", "-x", "--reason", "x"), 2, "No such option: -x"),
        (("status", "--model", " "), 2, "--model: no name in it"),
        (("status", "--timeout", "-1"), 2, "--timeout -1: not a length of time"),
        (("watch", "--interval", "often"), 2, "--interval often: not a length of time"),
        (("audit", "--verify", "--offline", sys.executable), 2, "not UTF-8 text; give what `linnet audit --export`"),
        (("set-weight", "half", "--reason", "x"), 2, "from 0 to 100"),
        (("set-weight", "5", "--ramp", "soon", "--reason", "x"), 2, "not a length of time"),
        (("set-weight", "5%", "--reason", "x", "--url", DEAD), 3, "control plane"),
        (("start", "none.yaml", "--reason", "x"), 2, "none.yaml:1: cannot be read"),
        (("eval", "none.yaml"), 2, "none.yaml:1: cannot be read"),
        (("keys", "list", "--url", DEAD), 3, "control plane"),
        (("keys", "create", "app", "--url", DEAD), 2, "add --reason TEXT"),
        (("keys", "revoke", "key_1", "--url", DEAD), 2, "add --reason TEXT"),
        (("keys", "creat", "app"), 2, "see `linnet keys"),
        *((((verb, "--reason", "x", "--url", DEAD)), 3, "control plane") for verb in CHANGES),
    ],
)
def test_an_error_is_one_line_with_the_contracts_code(monkeypatch, capsys, words, code, said):
    """What, where, the mend, on standard error; nothing on standard output; never a traceback."""
    monkeypatch.setattr("sys.stdin", io.StringIO())
    found, out, err = run(capsys, *words)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("verb", [*CHANGES, "start", "set-weight"])
def test_without_a_terminal_a_change_needs_a_reason(tmp_path, verb):
    """A change without a why is refused before anything is asked of the control plane."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC)
    more = {"start": (str(spec),), "set-weight": ("5",)}.get(verb, ())
    done = linnet(verb, *more, "--url", DEAD)
    assert done.returncode == 2
    assert "add --reason TEXT" in done.stderr


def test_lint_names_file_line_and_mend_for_every_fault(tmp_path, capsys):
    """One line a fault, exit code 2; --json lists them."""
    spec = tmp_path / "bad.yaml"
    spec.write_text(changed("max_increase: 5pp", "max_encrease: 5pp", changed("model: m\n", "model: m\nmodle: x\n")))
    code, _, err = run(capsys, "lint", str(spec))
    assert code == 2
    assert all(line.startswith(f"{spec}:") for line in err.splitlines())
    assert len(err.splitlines()) >= 2
    code, out, _ = run(capsys, "lint", str(spec), "--json")
    assert code == 2
    assert json.loads(out) == {"valid": False, "faults": err.splitlines(), "warnings": []}


def test_lint_of_a_good_spec_says_so(tmp_path, capsys):
    """Exit code 0, and what it describes."""
    spec = tmp_path / "good.yaml"
    spec.write_text(SPEC)
    assert run(capsys, "lint", str(spec))[0] == 0
    assert json.loads(run(capsys, "lint", str(spec), "--json")[1])["release"] == "r1"


def test_a_fault_of_ours_is_one_line_too(monkeypatch, capsys):
    """Even an unforeseen exception shows no traceback unless asked for."""

    def broken(*_args, **_kwargs):
        raise ZeroDivisionError("division by zero\nsecond line")

    monkeypatch.setattr("canary.verbs.look.connect", broken)
    code, _, err = run(capsys, "status")
    assert code == 1
    assert err.startswith("linnet: a fault in linnet (ZeroDivisionError: division by zero; second line)")
    assert "Traceback" not in err
    monkeypatch.setenv("LINNET_DEBUG", "1")
    assert "Traceback" in run(capsys, "status")[2]


def test_status_loads_no_heavy_room():
    """The glance stays quick: no load test, no statistics, no store client on the way to the control plane."""
    heavy = "locust gevent scipy numpy redis httpx yaml"
    code = (
        "import sys; from canary.console.cli import run; run(['status', '--url', 'http://127.0.0.1:9']); "
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


def test_every_entry_point_of_the_project_is_a_verb():
    """Rooms bring their verbs by pyproject.toml; none can take an operator's verb away."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][cli.GROUP]
    assert listed.items() <= cli.verbs().items()
    assert not listed.keys() & cli.VERBS.keys()


def test_the_help_survives_a_room_that_does_not_load(monkeypatch, capsys):
    """A broken room is named as such; calling its verb says the mend."""
    monkeypatch.setattr(cli, "verbs", lambda: {**cli.VERBS, "gone": "canary.nowhere:gone"})
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "not available" in out
    code, _, err = run(capsys, "gone")
    assert code == 1
    assert "make setup" in err


@pytest.mark.parametrize("kind", ["function", "application"])
def test_a_verb_may_be_a_function_or_an_application(monkeypatch, kind):
    """Both ways of bringing a verb work, with their own options."""

    def hello(name: str = "you") -> None:
        typer.echo(f"hello {name}")

    app = typer.Typer()
    app.command("hello")(hello)
    app.command("bye")(hello)
    monkeypatch.setattr(sys.modules[__name__], "contributed", hello if kind == "function" else app, raising=False)
    monkeypatch.setattr(cli, "verbs", lambda: {"greet": f"{__name__}:contributed"})
    words = ["greet", "--name", "finch"] if kind == "function" else ["greet", "hello", "--name", "finch"]
    done = CliRunner().invoke(cli.app, words)
    assert done.output == "hello finch\n"


def commands():
    """Every command there is: a verb, or a verb of a group, such as "keys create"."""
    for verb, where in sorted(cli.VERBS.items()):
        command = cli.command(verb, where)
        group = getattr(command, "commands", None)
        yield from ((f"{verb} {name}", one) for name, one in group.items()) if group else ((verb, command),)


@pytest.mark.parametrize(("verb", "command"), list(commands()))
def test_every_verb_explains_itself_and_its_options(verb, command):
    """A sentence of help, --json, and the way to the release; changes also take --reason and --if-generation."""
    options = {name for parameter in command.params for name in parameter.opts}
    assert command.help
    assert "--json" in options
    if verb != "lint":
        assert {"--url", "--store"} <= options
    if verb in {*CHANGES, "set-weight", "start"}:
        assert {"--reason", "--if-generation"} <= options
    if verb in {"keys create", "keys revoke"}:
        assert "--reason" in options


def test_the_version_is_one_word_after_the_name(capsys):
    """For reports of faults."""
    code, out, _ = run(capsys, "--version")
    assert (code, out.split()[0], out.count(".")) == (0, "linnet", 2)


def test_every_verb_of_a_panel_exists_and_the_help_orders_by_them():
    """A verb that was renamed does not fall out of the help."""
    assert {name for names in cli.PANELS.values() for name in names} <= set(cli.verbs())
