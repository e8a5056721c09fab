from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from gateway.door.access import is_loopback
from gateway.errors import SettingsError
from gateway.pool.options import PoolOptions
from gateway.settings import load

GOOD = "models: {m: {engine: e, served_model: s, replicas: ['http://127.0.0.1:1']}}"


def test_the_environment_becomes_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Read once, frozen after."""
    (tmp_path / "models.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINNET_WORKERS", "3")
    monkeypatch.setenv("LINNET_STALE_SECONDS", "7.5")
    settings = load()
    assert (settings.host, settings.port, settings.ops_port, settings.workers) == ("127.0.0.1", 8080, 8082, 3)
    assert settings.limits.stale_s == 7.5
    assert settings.models[0].baseline.replicas == ("http://127.0.0.1:1",)
    assert (settings.models_file, settings.pools["m"]) == (Path("models.yaml"), PoolOptions())


@pytest.mark.parametrize(("name", "value"), [("LINNET_WORKERS", "many"), ("LINNET_GATEWAY_PORT", "70000")])
def test_a_wrong_value_is_one_line_with_its_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    """What, where, the mend."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as refused:
        load()
    assert "\n" not in str(refused.value)


def test_every_limit_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each has a variable of its own, but for those that other programs dictate."""
    (tmp_path / "models.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    usual = load().limits
    numbers = {
        "REQUEST_TIMEOUT": 1,
        "STALL_TIMEOUT": 2,
        "CONNECT_TIMEOUT": 3,
        "FIRST_BYTE_TIMEOUT": 4,
        "BETWEEN_TIMEOUT": 5,
        "TOTAL_TIMEOUT": 6,
        "HEAD_LIMIT": 2048,
        "HEADERS_LIMIT": 7,
        "BODY_LIMIT": 8,
        "NESTING_LIMIT": 9,
        "N_LIMIT": 10,
        "LIST_LIMIT": 11,
        "DRAIN_SECONDS": 12,
        "STALE_SECONDS": 13,
    }
    for name, number in numbers.items():
        monkeypatch.setenv(f"LINNET_{name}", str(number))
    limits = asdict(load().limits)
    changed = {name for name, value in limits.items() if value != asdict(usual)[name]}
    assert sorted(limits[name] for name in changed) == sorted(numbers.values())
    assert limits.keys() - changed == {"answer_bytes", "idle_s"}


@pytest.mark.parametrize(("name", "value"), [("HEAD_LIMIT", "10"), ("NESTING_LIMIT", "100000"), ("STALL_TIMEOUT", "0")])
def test_a_limit_that_would_break_everything_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    """No head fits into ten bytes; the scan of a body is not made for any depth."""
    monkeypatch.setenv(f"LINNET_{name}", value)
    with pytest.raises(SettingsError, match=f"LINNET_{name}"):
        load()


def test_a_wrong_file_of_models_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where it is set and where it is wrong; see split/test_catalogue.py for the rest."""
    (tmp_path / "mine.yaml").write_text("models: {m: {engine: e}}")
    monkeypatch.setenv("LINNET_MODELS", str(tmp_path / "mine.yaml"))
    with pytest.raises(SettingsError, match=r"mine\.yaml:1: models\.m\.served_model") as refused:
        load()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("host", "yes"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)]
)
def test_loopback_is_what_no_other_machine_reaches(host: str, yes: bool):
    """Anything that is not certainly loopback is not."""
    assert is_loopback(host) is yes


@pytest.mark.parametrize("url", ["foo", "redis://127.0.0.1:port/0", "http://127.0.0.1"])
def test_an_address_that_is_no_stores_is_one_line(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is found before a worker starts, not by each worker that dies of it."""
    (tmp_path / "models.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LINNET_REDIS_URL", url)
    with pytest.raises(SettingsError, match="LINNET_REDIS_URL") as refused:
        load()
    assert "\n" not in str(refused.value)
