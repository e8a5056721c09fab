"""`linnet keys`, over HTTP and straight to the store."""

from __future__ import annotations

import json

import pytest

from canary.console import cli
from tests.canary.console.test_cli import linnet

WHY = ("--reason", "for the demo")


@pytest.fixture(params=["control plane", "store"])
def way(request, control_url, valkey_url) -> tuple[str, str]:
    """Both ways: every verb must work on each."""
    return ("--url", control_url) if request.param == "control plane" else ("--store", valkey_url)


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a verb without an admin key in the environment: exit code, standard output, standard error."""
    monkeypatch.delenv("LINNET_ADMIN_KEY", raising=False)

    def call(*words: str) -> tuple[int, str, str]:
        code = cli.run(["keys", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_a_key_is_made_listed_and_revoked(run, way) -> None:
    """Standard output is the key and nothing else, so that a script can keep it."""
    code, secret, said = run("create", "app", "--rpm", "60", "--usd-per-day", "2.5", *WHY, *way)
    assert code == 0
    assert secret.startswith("lk-")
    assert secret.count("\n") == 1
    assert "inference; 60 requests/min, 2.5 USD/day" in said
    code, shown, _ = run("list", *way)
    key_id = shown.splitlines()[1].split()[0]
    assert (code, "60 requests/min" in shown, secret.strip() in shown) == (0, True, False)
    assert run("revoke", key_id, *WHY, *way)[:2] == (0, f"{key_id} app: revoked\n")
    assert "revoked" in run("list", *way)[1]


def test_json_has_every_field(run, way) -> None:
    """What a script reads; the scopes may be given one by one or together."""
    made = json.loads(run("create", "t", "--scope", "inference,tester", "--scope", "admin", *WHY, "--json", *way)[1])
    assert made["scopes"] == ["admin", "inference", "tester"]
    assert (made["rpm"], made["tpm"], made["usd_per_day"], made["revoked_ms"]) == (None, None, None, 0)
    assert made["secret"].startswith("lk-")


def test_no_keys_is_said(run, way) -> None:
    """And what it means."""
    assert "loopback only" in run("list", *way)[1]
    assert json.loads(run("list", "--json", *way)[1]) == []


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("create", "app", "--scope", "root", *WHY), 2, "root"),
        (("create", "app", "--rpm", "0", *WHY), 2, "--rpm 0: not a limit"),
        (("create", "a/b", *WHY), 2, "no name"),
        (("revoke", "key_0", *WHY), 1, "linnet keys list"),
    ],
)
def test_an_error_is_one_line(run, way, words, code, said) -> None:
    """The same by both ways."""
    found, out, err = run(*words, *way)
    assert (found, out, err.count("\n"), said in err) == (code, "", 1, True), err


def test_the_admins_key_comes_from_the_environment(run, monkeypatch, control_url, valkey_url) -> None:
    """Never from the command line, where every process could read it."""
    url, store = ("--url", control_url), ("--store", valkey_url)
    admin = run("create", "root", "--scope", "admin", *WHY, *url)[1].strip()
    code, out, err = run("list", *url)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "LINNET_ADMIN_KEY" in err
    assert run("list", *store)[0] == 0
    monkeypatch.setenv("LINNET_ADMIN_KEY", admin)
    assert run("list", *url)[0] == 0
    app = run("create", "app", *WHY, *url)[1].strip()
    monkeypatch.setenv("LINNET_ADMIN_KEY", app)
    code, _, err = run("list", *url)
    assert (code, "no scope admin" in err) == (1, True)
    monkeypatch.setenv("LINNET_ADMIN_KEY", "two words")
    code, _, err = run("list", *url)
    assert (code, "LINNET_ADMIN_KEY: not a key" in err) == (2, True)


def test_the_secret_is_not_in_the_audit(run, way, capsys) -> None:
    """Who, why and which key, never the key."""
    secret = run("create", "app", *WHY, *way)[1].strip()
    assert cli.run(["audit", *way]) == 0
    shown = capsys.readouterr().out
    assert "keys create app" in shown
    assert "for the demo" in shown
    assert secret not in shown


def test_the_process_itself(valkey_url) -> None:
    """The group's help, and a real process without a terminal."""
    assert "revoke" in linnet("keys", "--help").stdout
    done = linnet("keys", "create", "app", *WHY, "--store", valkey_url)
    assert (done.returncode, done.stdout[:3]) == (0, "lk-")
