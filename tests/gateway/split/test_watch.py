from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.split import watch
from gateway.split.catalogue import read
from gateway.split.follow import forever
from gateway.split.splits import SplitFiles, Splits
from gateway.split.watch import ModelsFile
from tests.gateway.rig import until

ONE = "models: {m: {engine: e, served_model: s, replicas: ['http://127.0.0.1:1']}}"
TWO = ONE[:-1] + ", n: {engine: e, served_model: s, replicas: ['http://127.0.0.1:2'], pool: {slots: 3}}}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with one model."""
    path = tmp_path / "models.yaml"
    path.write_text(ONE)
    return path


def put(path: Path, text: str) -> None:
    """Write it, as an operator does."""
    path.write_text(text)


def put_in_place(path: Path, text: str) -> None:
    """Write another file of the same times and name it alike."""
    fresh, before = path.with_suffix(".new"), path.stat()
    fresh.write_text(text)
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.replace(path)


def remove(path: Path) -> None:
    """Take it away."""
    path.unlink()


@pytest.fixture
def splits(path: Path, tmp_path: Path) -> Splits:
    """What a worker read when it started."""
    return Splits(read(path).models, SplitFiles(tmp_path), "w", 60)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Twenty looks a second."""
    monkeypatch.setattr(watch, "LOOK_S", 0.05)
    return


@asynccontextmanager
async def watched(path: Path, splits: Splits):
    """The file, watched for as long as the block lasts."""
    file = ModelsFile(path, splits)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(forever("watching the models", file.look, 0.0))
        yield file
        task.cancel()


async def test_models_come_change_and_go_with_the_file(path: Path, splits: Splits):
    """Without a restart, and without a word to anybody."""
    async with watched(path, splits):
        put(path, TWO)
        await until(lambda: splits.route("n"), "the new model")
        assert splits.route("n").pool.slots == 3
        put(path, TWO.replace("127.0.0.1:2", "127.0.0.1:3").replace("slots: 3", "slots: 4"))
        await until(lambda: splits.route("n").pool.slots == 4, "the new slots")
        assert splits.route("n").split.baseline.replicas == ("http://127.0.0.1:3",)
        put(path, ONE)
        await until(lambda: splits.route("n") is None, "the model is gone")
        assert list(splits.models) == ["m"]


async def test_a_bad_file_is_refused_once_and_the_old_one_stays(
    path: Path, splits: Splits, caplog: pytest.LogCaptureFixture
):
    """One line in the log, a word for /readyz; a mended file is taken and the word is gone."""
    async with watched(path, splits):
        put(path, TWO.replace("engine", "engin"))
        await until(lambda: splits.models_file != "ok", "refused")
        await asyncio.sleep(0.2)
        assert list(splits.models) == ["m"]
        assert splits.models_file.startswith(f"refused: {path}:1: models.m.engin")
        assert caplog.text.count("models refused, the old ones stay") == 1
        remove(path)
        await until(lambda: "No such file" in splits.models_file, "refused anew")
        assert list(splits.models) == ["m"]
        put(path, TWO)
        await until(lambda: splits.models_file == "ok", "mended")
        assert list(splits.models) == ["m", "n"]


async def test_a_file_put_in_anothers_place_is_seen(path: Path, splits: Splits):
    """As editors and mounted configurations do: the same name, the same size, the same time, another file."""
    async with watched(path, splits):
        await asyncio.sleep(0.2)
        put_in_place(path, ONE.replace("127.0.0.1:1", "127.0.0.1:9"))
        await until(lambda: splits.route("m").split.baseline.replicas == ("http://127.0.0.1:9",), "the new file")


async def test_a_file_still_being_written_is_left_alone(path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch):
    """Half a file may be a whole one without some models; they would be unknown for a moment."""
    async with watched(path, splits):
        put(path, TWO)
        await until(lambda: splits.route("n"), "the new model")
        lacking = []
        for step in range(30):  # an editor at work
            put(path, f"{ONE}\n# {'x' * step}")
            await asyncio.sleep(0.01)
            lacking.append(splits.route("n") is None)
        assert not any(lacking)
        put(path, TWO)
        await asyncio.sleep(0.3)
        assert splits.route("n") is not None


async def test_a_reload_does_not_wait(path: Path, splits: Splits, monkeypatch: pytest.MonkeyPatch):
    """SIGHUP: now, whatever the file's times say."""
    monkeypatch.setattr(watch, "LOOK_S", 30.0)
    async with watched(path, splits) as file:
        await asyncio.sleep(0.05)
        put(path, TWO)
        file.reload()
        await until(lambda: splits.route("n"), "the new model", seconds=2)
