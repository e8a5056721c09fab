"""The verbs around the decision card: lint the spec, evaluate the arms offline, write the comparison report."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canary.console import options, render
from canary.console.client import Client, connect, only_model
from canary.console.options import DEFAULT_URL
from canary.core.arms import Endpoint
from canary.errors import Refused, SpecError, Usage
from canary.verbs.change import read_spec

if TYPE_CHECKING:
    from canary.card.spec import Spec

SpecFile = Annotated[Path, typer.Argument(help="The release spec (YAML).")]
ACTIVE = ("draft", "preflight", "shadow", "canary", "bake")
VERDICT_CODES = {"pass": 0, "fail": 1, "invalid": 3}


def lint(
    spec: Annotated[Path | None, typer.Argument(help="The release spec (YAML).")] = None,
    *,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of specs, for editors.")] = False,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Check a release spec without running anything; each fault names file, line and mend.

    Where a control plane or store answers, engines that nobody serves are faults too. Warnings leave it valid.
    """
    if schema:
        from canary.card.schema import spec_schema  # noqa: PLC0415 - only here

        options.print_json(spec_schema())
        return
    if spec is None:
        raise Usage("lint: no spec given; `linnet lint SPEC`, or --schema for the schema")
    found, faults, warnings = _linted(spec, url, store)
    if as_json:
        about = {"model": found.model, "release": found.release} if found else {}
        options.print_json({"valid": not faults, "faults": faults, "warnings": warnings, **about})
    elif found and not faults:
        typer.echo(f"{spec}: valid: release {found.release} of model {found.model}, {len(found.steps)} steps")
        for line in warnings:
            typer.echo(f"warning: {line}", err=True)
    if faults:
        raise SpecError(faults)


def _linted(path: Path, url: str, store: str | None) -> tuple[Spec | None, list[str], list[str]]:
    """Return the spec, its faults and its warnings; no spec where it is not one."""
    from canary.card import lint as linting  # noqa: PLC0415 - slow to import
    from canary.card import spec as specs  # noqa: PLC0415

    try:
        found = specs.load(path)
    except SpecError as error:
        return None, list(error.lines), []
    notes = [*linting.advice(found), *linting.engines(found, connect(url, store))]
    faults, warnings = ([note for note in notes if note.fault is bad] for bad in (True, False))
    return found, linting.written(found, faults), linting.written(found, warnings)


def evaluate(
    spec: SpecFile,
    *,
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Score both arms on the card's evaluation files and report against its thresholds.

    Passes when the domain's gain reaches min_gain and its 95 % interval lies above 0, and the general loss is proved
    to be at most max_general_loss.
    """
    client = connect(url, store)
    found = _evaluate(spec, client, model)
    client.put_report(found["model"], "eval", found["digest"], found, options.actor())
    if as_json:
        options.print_json(found)
    else:
        render.console().print(render.evaluation(found))
    raise typer.Exit(VERDICT_CODES[found["verdict"]])


def _evaluate(path: Path, client: Client, model: str | None) -> dict[str, Any]:
    from canary import evaluate as evaluation  # noqa: PLC0415 - numpy and httpx only where they are used
    from canary.examine import examine  # noqa: PLC0415

    spec = read_spec(path)
    name = model or spec.model
    pair = arms(client.material(name), name)
    demand = evaluation.demand(spec)
    passages = {part: evaluation.read_passages(file, demand.passages) for part, file in demand.files.items()}
    scores = asyncio.run(examine(*pair, passages))
    return evaluation.report(name, pair, round(time.time() * 1000), scores, demand.thresholds)


def arms(material: dict[str, Any], model: str) -> tuple[Endpoint, Endpoint]:
    """Return where both arms of the release under way are served. Raises Refused when none is."""
    state = material.get("release") or {}
    if state.get("phase") not in ACTIVE:
        raise Refused(f"{model}: no release is under way; start one first: linnet start SPEC --reason TEXT")
    return Endpoint.from_json(state["baseline"]), Endpoint.from_json(state["candidate"])


def report(
    *,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write report.md and report.html into this folder.")
    ] = None,
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Write the comparison report: recommendation and reasons first, every figure traced."""
    from canary.report import pages  # noqa: PLC0415 - only this verb sets pages
    from canary.report.facts import build  # noqa: PLC0415

    client = connect(url, store)
    facts = build(client.material(only_model(client, model)), time.time() * 1000)
    files = {"report.md": pages.markdown(facts), "report.html": pages.html(facts)}
    written = [] if out is None else write(out, files)
    if as_json:
        options.print_json({**facts.to_json(), "files": written})
    elif out is None:
        typer.echo(files["report.md"], nl=False)
    else:
        typer.echo(f"{facts.release}: {facts.advice}")
        for file in written:
            typer.echo(file)


def write(folder: Path, pages: dict[str, str]) -> list[str]:
    """Write the pages; return their paths. Raises Usage if the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Usage(f"--out {folder}: {error.strerror or error}; name a folder that can be written") from error
    return [str(folder / name) for name in pages]
