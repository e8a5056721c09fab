"""The verbs of this room: `linnet engines`, `linnet adapt`, `linnet quantize`."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving import environment, models
from serving.errors import ServingError
from serving.recipe import DEMO
from serving.verdict import table_of

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

engines = typer.Typer(help="The engines' own environment: real vLLM, locked, kept in the cache.", no_args_is_help=True)


@contextmanager
def one_line() -> Iterator[None]:
    """Show this room's errors as one line on stderr and leave with status 1; Ctrl-C leaves with 130."""
    try:
        yield
    except ServingError as error:
        typer.echo(f"linnet: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("linnet: interrupted; run it again to go on, nothing half-made is kept", err=True)
        raise typer.Exit(130) from None


@engines.command("install")
def install() -> None:
    """Make the engines' environment unless it is there."""
    with one_line():
        typer.echo(environment.install(environment.cache_dir(), typer.echo))


@engines.command("status")
def status(*, as_json: Json = False) -> None:
    """Say whether the environment for today's lock is there, and where; status 1 if not."""
    cache = environment.cache_dir()
    home, there = environment.environment_dir(cache), environment.installed(cache)
    if as_json:
        typer.echo(json.dumps({"installed": there, "path": str(home)}, indent=2))
    else:
        typer.echo(f"installed: {home}" if there else f"not installed: {home}; make it with `linnet engines install`")
    raise typer.Exit(0 if there else 1)


@engines.command("list")
def list_environments(*, as_json: Json = False) -> None:
    """List the environments and models in the cache; those that today's lock and recipe use are marked."""
    cache = environment.cache_dir()
    current = {environment.environment_dir(cache), environment.models_dir(cache)}
    folders = sorted(path for kind in ("engines-*", "models-*") for path in cache.glob(kind) if path.is_dir())
    if as_json:
        typer.echo(json.dumps([{"path": str(path), "current": path in current} for path in folders], indent=2))
        return
    for folder in folders:
        typer.echo(f"{'*' if folder in current else ' '} {folder}")
    if not folders:
        typer.echo(f"nothing in {cache}")


def adapt(
    *,
    demo: Annotated[bool, typer.Option("--demo", help="Make the demo's models from text this machine has.")] = False,
    base: Annotated[Path | None, typer.Option(help="The checkpoint to go on from.")] = None,
    domain: Annotated[Path | None, typer.Option(help='Domain text, JSON lines: {"text": "..."}.')] = None,
    general: Annotated[Path | None, typer.Option(help="General text of the same form, against forgetting.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the adapted checkpoint goes.")] = None,
    general_share: Annotated[float, typer.Option(min=0, max=1, help="Share of general text.")] = DEMO.general_share,
    steps: Annotated[int, typer.Option(min=1, help="Training steps of 2,048 tokens.")] = DEMO.candidate.steps,
) -> None:
    """Adapt a small model to a domain by continued pre-training, some general text mixed in against forgetting."""
    cache = environment.cache_dir()
    with one_line():
        if demo:
            summary = models.read_summary(models.make_models(cache, typer.echo))
            typer.echo(table_of(summary["table"]))
        elif base and domain and general and out:
            environment.install(cache, typer.echo)
            models.adapt(base, domain, general, out, share=general_share, steps=steps, cache=cache)
            typer.echo(out)
        else:
            raise ServingError("give --demo, or all of --base, --domain, --general and --out")


def quantize(
    source: Annotated[Path, typer.Argument(help="A bfloat16 checkpoint's folder.")],
    target: Annotated[Path, typer.Argument(help="Where the int8 checkpoint goes.")],
) -> None:
    """Quantize a checkpoint to compressed-tensors W8A8 int8, which vLLM serves as it is."""
    cache = environment.cache_dir()
    with one_line():
        environment.install(cache, typer.echo)
        models.quantize(source, target, cache)
        typer.echo(target)
