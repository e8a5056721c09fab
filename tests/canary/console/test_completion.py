"""What a Tab key gives."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from canary.console import cli, completion
from tests.canary.console.test_cli import linnet
from tests.canary.console.test_cli_release import spec  # noqa: F401 - a fixture


@pytest.mark.parametrize(
    ("words", "found"),
    [("linnet roll", ["rollback"]), ("linnet status --wait ba", ["bake"]), ("linnet keys re", ["revoke"])],
)
def test_the_shell_completes_verbs_and_phases(words, found):
    """Through the very protocol that the installed script speaks."""
    done = linnet(_LINNET_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" ")))
    assert done.stdout.split() == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_each_shell_can_be_shown(shell):
    """`--show-completion` prints a script that calls linnet back."""
    done = linnet("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0
    assert "_LINNET_COMPLETE" in done.stdout


def test_models_and_keys_come_from_the_store(valkey_url, spec):  # noqa: F811
    """Those that there are, and that begin so; a revoked key is none."""
    assert cli.run(["start", str(spec), "--reason", "x", "--store", valkey_url]) == 0
    assert cli.run(["keys", "create", "app", "--reason", "x", "--store", valkey_url]) == 0
    here = SimpleNamespace(params={"store": valkey_url})
    assert completion.models(here, "") == ["m"]
    assert completion.models(here, "x") == []
    (found,) = completion.keys(here, "key_")
    assert cli.run(["keys", "revoke", found, "--reason", "x", "--store", valkey_url]) == 0
    assert completion.keys(here, "") == []


@pytest.mark.parametrize("params", [{}, {"url": "http://127.0.0.1:9"}, {"store": "redis://127.0.0.1:9/0"}])
def test_nobody_who_answers_completes_nothing(params):
    """A Tab key never prints an error."""
    assert completion.models(SimpleNamespace(params=params), "") == []
    assert completion.keys(SimpleNamespace(params=params), "") == []
