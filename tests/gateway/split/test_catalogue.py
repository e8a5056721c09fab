from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.arms import Endpoint, Split
from gateway.errors import SettingsError
from gateway.pool.options import Balance, PoolOptions
from gateway.split.catalogue import is_base_url, parse, read

GOOD = """\
models:
  support:
    engine: base
    served_model: small
    replicas: [http://127.0.0.1:1, http://127.0.0.1:2/v, http://127.0.0.1:1]
    pool: {balance: affinity, slots: 64, queue: 8, queue_s: 1.5}
  other: {engine: e, served_model: s, replicas: ["http://[::1]:8101"]}
"""
FILE = Path("models.yaml")


def told(text: str) -> str:
    """The one line about a wrong file."""
    with pytest.raises(SettingsError, match=r"^models\.yaml:\d+: ") as refused:
        parse(text, FILE)
    line = str(refused.value)
    assert "\n" not in line
    return line.removeprefix("models.yaml:")


def test_a_file_becomes_splits_and_options():
    """Several models, each with replicas and rules of its own; what is left out is as usual."""
    found = parse(GOOD, FILE)
    arm = Endpoint("base", "small", ("http://127.0.0.1:1", "http://127.0.0.1:2/v"))
    assert found.models[0] == Split("support", 0, arm)
    assert found.pools["support"] == PoolOptions(balance=Balance.AFFINITY, slots=64, queue=8, queue_s=1.5)
    assert found.pools["other"] == PoolOptions()


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("engine: base", "engin: base", "3: models.support.engin: is no name that is known here"),
        ("engine: base", "engine: 7", "3: models.support.engine: must be text; put it in quotes"),
        ("    engine: base\n", "", "2: models.support.engine: is missing"),
        ("replicas: [http", "replicas: [file", "5: models.support.replicas.0: 'file://127.0.0.1:1' is no base URL"),
        ('replicas: ["http://[::1]:8101"]', "replicas: []", "7: models.other.replicas: is empty"),
        ("slots: 64", "slots: many", "6: models.support.pool.slots: input should be a valid integer, not 'many'"),
        ("slots: 64", "slots: -1", "6: models.support.pool.slots: input should be greater than or equal to 0, not -1"),
        ("slots: 64", "slot: 64", "6: models.support.pool.slot: is no name that is known here"),
        ("balance: affinity", "balance: luck", "6: models.support.pool.balance: input should be"),
        ("  other:", "  support:", "7: support is given twice; keep one"),
        ("  other: {", "  other: {{", "8: not YAML"),
        ("models:\n", "model:\n", "1: model: is no name that is known here"),
    ],
)
def test_a_wrong_file_is_one_line_with_its_place_and_its_mend(before: str, after: str, line: str):
    """File, line, place, mend."""
    assert before in GOOD
    assert told(GOOD.replace(before, after)).startswith(line)


@pytest.mark.parametrize("text", ["", "models:", "models: {}", "models: []", "[]", "3", "models: {'': {}}", "\x00"])
def test_a_file_without_models_is_refused(text: str):
    """A gateway that serves nothing is no gateway; nor is a file that was cut off while it was written."""
    assert told(text)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path):
    """Missing, a folder, no text."""
    with pytest.raises(SettingsError, match="LINNET_MODELS"):
        read(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="LINNET_MODELS"):
        read(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not UTF-8"):
        read(tmp_path / "bytes.yaml")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_one_line(text: str):
    """A file is never the end of a worker."""
    try:
        parse(text, FILE)
    except SettingsError as error:
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://127.0.0.1:8101", True),
        ("http://engine.svc/base", True),
        ("https://a", False),
        ("http://", False),
        ("http://a:0", False),
        ("http://a:99999", False),
        ("http://a/?x=1", False),
        ("http://a/#f", False),
        ("http://a b", False),
        ("http://a\r\nx: y", False),
        ("http://[::1", False),
        ("http://ä", False),
        (7, False),
    ],
)
def test_a_replica_is_a_plain_base_url(url: object, good: bool):
    """What could smuggle a header, a path or another protocol is none."""
    assert is_base_url(url) is good
