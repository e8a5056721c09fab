from __future__ import annotations

from pathlib import Path

import pytest

from gateway.door.access import is_loopback
from gateway.errors import SettingsError
from gateway.settings import load, read_models

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


@pytest.mark.parametrize(("name", "value"), [("LINNET_WORKERS", "many"), ("LINNET_GATEWAY_PORT", "70000")])
def test_a_wrong_value_is_one_line_with_its_name(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    """What, where, the mend."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as refused:
        load()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "models: []",
        "models: {m: {engine: e}}",
        GOOD.replace("}}", ", extra: 1}}"),
        GOOD.replace("http:", "file:"),
        GOOD.replace("['http://127.0.0.1:1']", "[]"),
        GOOD.replace("http://127.0.0.1:1", "http://127.0.0.1:99999"),
        "models: {m: [",
    ],
)
def test_a_wrong_file_of_models_is_one_line_with_its_place(tmp_path: Path, text: str):
    """Unknown and missing names are errors."""
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=r"models\.yaml") as refused:
        read_models(path)
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
