"""docs/: what is there is written down, and what is written down is there."""

import re
from pathlib import Path

import pytest
import yaml

from canary.console.cli import verbs

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
SOURCES = [
    path for room in ("gateway", "serving", "canary", "loadtest", "deploy") for path in (ROOT / room).rglob("*.py")
]
INTERNAL = {"LINNET_WORKER_FD", "LINNET_WORKER_PARENT", "LINNET_WORKER_METRICS"}  # between a gateway and its workers


def found(pattern: str) -> set[str]:
    """Every match in the sources."""
    return {match for path in SOURCES for match in re.findall(pattern, path.read_text())}


def test_every_metric_is_documented():
    """A dashboard's author finds each name."""
    names = {name if name.endswith("_total") or name != "linnet_releases" else "linnet_releases_total"
             for name in found(r'"(linnet_[a-z_]+)"')}  # fmt: skip
    assert names
    assert {name for name in names if f"`{name}`" not in REFERENCE} == set()


def test_every_environment_variable_is_documented():
    """Nothing can be set that is not in the reference."""
    names = found(r"\b(LINNET_[A-Z_]*[A-Z])\b") - INTERNAL
    assert {name for name in names if f"`{name}`" not in REFERENCE} == set()


def test_every_verb_is_documented():
    """The reference lists what `linnet --help` lists."""
    assert {"status", "up", "loadtest"} <= set(verbs())
    assert {verb for verb in verbs() if f"`{verb}" not in REFERENCE} == set()


@pytest.mark.parametrize(
    "rule", yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"][0]["rules"]
)
def test_alerts_watch_metrics_that_exist(rule):
    """An alert on a metric nobody exports would be silent for ever."""
    for name in re.findall(r"linnet_[a-z_]+", rule["expr"]):
        assert f"`{name}`" in REFERENCE


def test_prometheus_scrapes_the_default_ports():
    """The shipped configuration finds a local stack as it starts by default."""
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets["linnet-gateway"] == ["127.0.0.1:8082"]
    assert targets["linnet-control"] == ["127.0.0.1:8081"]


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """No page sends its reader to a file that is not there."""
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
