"""The verbs of this room say what is, and their errors are one line."""

import json

import pytest
import typer
from typer.testing import CliRunner

from serving import cli, environment, models
from serving.errors import InstallError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a verb over an empty cache."""
    monkeypatch.setenv("LINNET_CACHE", str(tmp_path))
    app = typer.Typer()
    app.add_typer(cli.engines, name="engines")
    app.command()(cli.adapt)
    app.command()(cli.quantize)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_status_of_an_empty_cache_says_how_to_install(run):
    """Status 1, one line."""
    answer = run("engines", "status")
    assert answer.exit_code == 1
    assert "make it with `linnet engines install`" in answer.output


def test_list_marks_what_is_in_use(run, tmp_path):
    """Today's environment has a star, an old one none."""
    assert "nothing in" in run("engines", "list").output
    environment.environment_dir(tmp_path).mkdir()
    (tmp_path / "engines-old").mkdir()
    lines = run("engines", "list").output.splitlines()
    assert f"* {environment.environment_dir(tmp_path)}" in lines
    assert f"  {tmp_path / 'engines-old'}" in lines


def test_an_install_that_fails_is_one_line_and_status_1(run, monkeypatch):
    """No traceback reaches the terminal."""

    def fail(*_):
        raise InstallError("the disk is full; free some room")

    monkeypatch.setattr(environment, "install", fail)
    answer = run("engines", "install")
    assert (answer.exit_code, answer.output) == (1, "linnet: the disk is full; free some room\n")


def test_adapt_without_its_inputs_says_what_it_wants(run):
    """Either the demo or one's own text."""
    answer = run("adapt", "--steps", 3)
    assert answer.exit_code == 1
    assert "give --demo, or all of --base, --domain, --general and --out" in answer.output


def test_ctrl_c_leaves_with_its_own_status(run, monkeypatch):
    """130, and one line."""

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "make_models", interrupted)
    answer = run("adapt", "--demo")
    assert answer.exit_code == 130
    assert "interrupted" in answer.output


def test_made_models_show_their_table(run, tmp_path):
    """A second `adapt --demo` prints the table and makes nothing."""
    home = environment.models_dir(tmp_path)
    home.mkdir()
    (home / "adaptation.json").write_text(json.dumps({"table": []}))
    answer = run("adapt", "--demo")
    assert answer.exit_code == 0
    assert answer.output.startswith("held-out")
