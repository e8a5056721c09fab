"""Make the demo's models once, stage by stage, and keep them: each stage is a module run by the engines' python."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.child import mend_for, status_words
from serving.environment import building, engine_python, environment_dir, inside, install, models_dir, site_packages
from serving.errors import ModelError
from serving.recipe import DEMO, Training
from serving.steps import run_step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Progress = Callable[[str], None]

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""No network, no bars; threads that wait sleep, so that a busy machine does not slow the training tenfold."""

SUMMARY = "adaptation.json"
"""Written last: a models folder that has it is whole."""


def make_models(cache: Path, progress: Progress = print) -> Path:
    """Make the demo's models unless they are there; return their folder. A second call takes milliseconds."""
    home = models_dir(cache)
    if not (home / SUMMARY).exists():
        install(cache, progress)
        with building(home, progress):
            if not (home / SUMMARY).exists():
                _make(cache, home, progress)
    return home


def read_summary(home: Path) -> dict[str, Any]:
    """Read what the making of the models reported."""
    try:
        summary: dict[str, Any] = json.loads((home / SUMMARY).read_text())
    except (OSError, ValueError):
        raise ModelError(f"no models in {home}; make them with `linnet adapt --demo`") from None
    return summary


def adapt(base: Path, domain: Path, general: Path, out: Path, *, share: float, steps: int, cache: Path) -> None:
    """Continue a checkpoint's pre-training on the user's own text."""
    for path in (base / "config.json", domain, general):
        if not path.exists():
            raise ModelError(f"{path} is not there; give a checkpoint's folder and JSON lines of text")
    training = replace(DEMO.candidate, steps=steps, warmup=min(DEMO.candidate.warmup, steps))
    out.mkdir(parents=True, exist_ok=True)
    run_stage(
        engine_python(cache),
        "serving.adapt",
        _candidate_job(base, domain, general, out, training=training, share=share),
    )


def quantize(source: Path, target: Path, cache: Path) -> None:
    """Quantize a checkpoint folder to W8A8 int8."""
    run_stage(engine_python(cache), "serving.quantize", source, target)


def run_stage(python: Path, module: str, *arguments: str | Path, progress: Progress = print) -> None:
    """Run a module under the engines' python and show its lines; a failure becomes one line."""

    def show(line: str) -> None:
        if not line.startswith("error: "):
            progress(line)

    status, lines = run_step(inside(python, module, *arguments), os.environ | QUIET, show)
    if status:
        raise ModelError(_complaint(module, status, lines))


def _complaint(module: str, status: int, lines: Sequence[str]) -> str:
    """A stage that knows what is wrong says so itself, after `error: `; else its last words, and a mend."""
    said = lines[-1] if lines else ""
    if said.startswith("error: "):
        return said.removeprefix("error: ")
    return f"{module} failed ({status_words(status)}): {said or 'it said nothing'}; {mend_for(said, 'run it again')}"


def _make(cache: Path, home: Path, progress: Progress) -> None:
    """Build aside, then rename: half-made models are never taken for whole ones."""
    aside = home.with_name(home.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    progress("models: training a baseline and a domain-adapted candidate (a few minutes, once)")
    try:
        seconds = _run_stages(cache, aside, progress)
        (aside / SUMMARY).write_text(json.dumps(_summary(aside, seconds), indent=1))
        aside.rename(home)
    except OSError as error:
        raise ModelError(f"cannot write {aside}: {error.strerror}; free some room or set LINNET_CACHE") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    progress(f"models: ready in {home}")


def _run_stages(cache: Path, out: Path, progress: Progress) -> dict[str, float]:
    """Run the stages in their order; return each one's seconds."""
    python, text = engine_python(cache), out / "text"
    general, domain = text / "general-train.jsonl", text / "domain-train.jsonl"
    training, share = DEMO.candidate, DEMO.general_share
    candidate = _candidate_job(out / "base", domain, general, out / "candidate", training=training, share=share)
    stages: tuple[tuple[str, str, tuple[str | Path, ...]], ...] = (
        ("text", "serving.corpus", (site_packages(environment_dir(cache)), text)),
        ("baseline", "serving.adapt", (json.dumps({"general": str(general), "out": str(out / "base")}),)),
        ("candidate", "serving.adapt", (candidate,)),
        ("quantize", "serving.quantize", (out / "candidate", out / "candidate-w8a8")),
        ("evaluate", "serving.perplexity", (out, text)),
    )
    seconds: dict[str, float] = {}
    for name, module, arguments in stages:
        started = time.monotonic()
        run_stage(python, module, *arguments, progress=progress)
        seconds[name] = round(time.monotonic() - started, 1)
    return seconds


def _candidate_job(base: Path, domain: Path, general: Path, out: Path, *, training: Training, share: float) -> str:
    paths = {"base": base, "domain": domain, "general": general, "out": out}
    return json.dumps(
        {name: str(path) for name, path in paths.items()} | {"training": asdict(training), "general_share": share}
    )


def _summary(out: Path, seconds: dict[str, float]) -> dict[str, Any]:
    return {
        "recipe": asdict(DEMO),
        "baseline": json.loads((out / "base" / "training.json").read_text()),
        "candidate": json.loads((out / "candidate" / "training.json").read_text()),
        "table": json.loads((out / "table.json").read_text()),
        "licences": json.loads((out / "text" / "licences.json").read_text()),
        "seconds": seconds,
        "python": sys.version.split()[0],
    }
