from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.record import snapshots
from gateway.record.metrics import Metrics
from gateway.record.snapshots import Snapshots, file_of, read
from tests.gateway.record.sample import counting, files, routed
from tests.gateway.record.test_metrics import GOOD
from tests.gateway.rig import until


async def test_the_file_is_what_the_worker_counts(tmp_path: Path):
    """Labels, numbers and all, in more pieces than one."""
    metrics = counting(*(f"model-{number}" for number in range(200)))
    metrics.fail_over("model-3")
    metrics.in_flight = 2
    await Snapshots(metrics, file_of(tmp_path, 1)).write()
    found = read(file_of(tmp_path, 1))
    assert found.sums == {name: rows for name, rows in metrics.snapshot().sums.items() if rows}
    assert found.sums["linnet_requests_in_flight"] == {(): [2]}
    assert files(tmp_path) == ["1.json"]


@pytest.mark.source
async def test_it_is_written_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is counted later is seen later, and an error ends nothing."""
    monkeypatch.setattr(snapshots, "WRITE_S", 0.01)
    metrics = counting("m")
    keeping = asyncio.ensure_future(Snapshots(metrics, file_of(tmp_path, 1)).keep())
    for expected in (1, 2):
        metrics.fail_over("m")
        await until(lambda expected=expected: _fail_overs(tmp_path) == expected, "the snapshot")
    metrics.snapshot = _fails  # a bug
    await asyncio.sleep(0.05)
    del metrics.snapshot
    metrics.fail_over("m")
    await until(lambda: _fail_overs(tmp_path) == 3, "the snapshot after it")
    keeping.cancel()


def _fails() -> None:
    raise RuntimeError("a bug")


def _fail_overs(folder: Path) -> float | None:
    found = read(file_of(folder, 1))
    return found and found.sums["linnet_fail_overs_total"][("m",)][0]


async def test_a_folder_that_is_gone_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Never an exception, and one more warning only after it had been well again."""
    folder = tmp_path / "gone"
    writer = Snapshots(counting("m"), file_of(folder, 1))
    await writer.write()
    await writer.write()
    assert caplog.text.count("cannot write the metrics") == 1
    folder.mkdir()
    await writer.write()
    assert read(file_of(folder, 1)) is not None
    folder.rename(tmp_path / "away")
    await writer.write()
    assert caplog.text.count("cannot write the metrics") == 2


async def test_a_full_disk_leaves_the_last_snapshot(tmp_path: Path):
    """A page with a hole would look like a restart."""
    metrics = counting("m")
    writer = Snapshots(metrics, file_of(tmp_path, 1))
    await writer.write()
    before = file_of(tmp_path, 1).read_bytes()
    file_of(tmp_path, 1).with_suffix(".tmp").symlink_to("/dev/full")
    metrics.fail_over("m")
    await writer.write()
    assert file_of(tmp_path, 1).read_bytes() == before


async def test_requests_are_served_between_the_pieces(tmp_path: Path):
    """A thousand models: writing them down is no stop."""
    models = [f"model-{number}" for number in range(1000)]
    metrics = counting(*models)
    for model in models:
        metrics.observe(model, GOOD)
    turns, writing = 0, asyncio.ensure_future(Snapshots(metrics, file_of(tmp_path, 1)).write())
    while not writing.done():
        turns += 1
        metrics.routes(routed(f"other-{turns}"))  # rows come and go meanwhile
        await asyncio.sleep(0)
    await writing
    assert turns > 100


@pytest.mark.parametrize("text", ["", "not a number", '1.0\n["linnet_store_up",[["x"', "1.0\n{}", "ü"])
def test_a_damaged_file_is_no_snapshot(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture):
    """It is told, and the page goes on without it."""
    path = file_of(tmp_path, 1)
    path.write_text(text, "utf-8")
    assert read(path) is None
    assert str(path) in caplog.text


def test_a_worker_that_has_written_nothing_yet_is_nothing_to_tell(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """It has only just started."""
    assert read(file_of(tmp_path, 1)) is None
    assert caplog.text == ""


def test_metrics_of_a_fresh_worker_can_be_shown():
    """What has no label is there from the start."""
    assert Metrics().snapshot().sums["linnet_store_up"] == {(): [0]}
