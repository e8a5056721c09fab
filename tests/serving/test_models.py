"""The models are made once, aside, and a stage's failure is one line."""

import json
import sys
import threading
from pathlib import Path

import pytest

from serving import models
from serving.environment import models_dir
from serving.errors import ModelError
from serving.steps import run_step

OUTPUTS = {
    "serving.corpus": ("text/licences.json",),
    "serving.adapt": ("base/training.json", "candidate/training.json"),
    "serving.quantize": (),
    "serving.perplexity": ("table.json",),
}


@pytest.fixture
def stages(monkeypatch):
    """Stages that write what the real ones write; returns the modules as they are run."""
    ran: list[str] = []

    def stage(python, module, *arguments, progress):
        ran.append(module)
        progress(f"{module} runs")
        text = next(str(a) for a in arguments if ".partial" in str(a))
        home = Path(text[text.index("/") : text.index(".partial")] + ".partial")
        for name in OUTPUTS[module]:
            (home / name).parent.mkdir(exist_ok=True)
            (home / name).write_text("{}")

    monkeypatch.setattr(models, "install", lambda cache, progress: None)
    monkeypatch.setattr(models, "engine_python", lambda cache: Path("python"))
    monkeypatch.setattr(models, "run_stage", stage)
    return ran


def test_the_stages_run_in_their_order_once(stages, tmp_path):
    """A second call runs nothing, and the summary tells how long each stage took."""
    home = models.make_models(tmp_path, lambda _: None)
    assert home == models_dir(tmp_path)
    assert stages == [
        *("serving.corpus", "serving.adapt", "serving.adapt", "serving.quantize", "serving.perplexity"),
    ]
    models.make_models(tmp_path, lambda _: None)
    assert len(stages) == 5
    summary = models.read_summary(home)
    assert list(summary["seconds"]) == ["text", "baseline", "candidate", "quantize", "evaluate"]
    assert summary["recipe"]["general_share"] == 0.7


def test_a_failed_stage_leaves_nothing_half_made(stages, tmp_path, monkeypatch):
    """What was made before the failure goes, so the next run starts clean."""

    def fail(*_, **__):
        raise ModelError("no gain")

    monkeypatch.setattr(models, "run_stage", fail)
    with pytest.raises(ModelError, match="no gain"):
        models.make_models(tmp_path, lambda _: None)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    with pytest.raises(ModelError, match="make them with `linnet adapt --demo`"):
        models.read_summary(models_dir(tmp_path))


def test_a_stage_runs_as_a_module_of_this_package_alone(tmp_path):
    """Its lines are shown, and nothing else of ours is on its path."""
    said: list[str] = []
    (tmp_path / "packages").mkdir()
    models.run_stage(
        Path(sys.executable), "serving.corpus", tmp_path / "packages", tmp_path / "out", progress=said.append
    )
    assert said[0].startswith("text: domain")
    assert json.loads((tmp_path / "out" / "licences.json").read_text()) == {}


def test_a_stage_that_fails_says_its_last_line():
    """One line, whatever the stage printed before."""
    with pytest.raises(
        ModelError,
        match=r"^serving.corpus failed \(exit status 1\): IndexError: list index out of range; run it again$",
    ):
        models.run_stage(Path(sys.executable), "serving.corpus", progress=lambda _: None)


@pytest.mark.parametrize("missing", ["base", "domain", "general"])
def test_adapt_says_which_input_is_missing(tmp_path, missing):
    """A base, two texts: each is checked before anything runs."""
    paths = {"base": tmp_path / "base", "domain": tmp_path / "d.jsonl", "general": tmp_path / "g.jsonl"}
    paths["base"].mkdir()
    for name, file in (
        ("base", paths["base"] / "config.json"),
        ("domain", paths["domain"]),
        ("general", paths["general"]),
    ):
        if name != missing:
            file.write_text("{}")
    with pytest.raises(ModelError, match="is not there; give a checkpoint's folder and JSON lines"):
        models.adapt(*paths.values(), tmp_path / "out", share=0.7, steps=1, cache=tmp_path)


def test_an_interrupted_step_takes_its_process_along():
    """Whoever stops listening ends the command at once."""
    timer = threading.Timer(30, lambda: None)

    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_step([sys.executable, "-c", "print('x', flush=True); import time; time.sleep(60)"], {}, interrupt)
    assert timer.is_alive()
    timer.cancel()
