"""The verbs of API keys: create, list, revoke."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from canary.console import completion, figures, options, render
from canary.console.client import connect
from canary.console.options import DEFAULT_URL

keys = typer.Typer(
    no_args_is_help=True, help="Make, list and revoke the API keys that apps, testers and admins call with."
)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is called in lists and in the audit.")],
    *,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="inference, tester or admin; may be repeated. [inference]")
    ] = None,
    rpm: Annotated[int | None, typer.Option("--rpm", help="Requests per minute, at most.")] = None,
    tpm: Annotated[int | None, typer.Option("--tpm", help="Tokens per minute, at most.")] = None,
    usd_per_day: Annotated[float | None, typer.Option("--usd-per-day", help="USD per UTC day, at most.")] = None,
    reason: options.Reason = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Make a key and show it, this once: only its hash is kept."""
    why = options.require_reason(reason, "keys create")
    scopes = [word for given in scope or ["inference"] for word in given.split(",") if word]
    wish = {"name": name, "scopes": scopes, "rpm": rpm, "tpm": tpm, "usd_per_day": usd_per_day}
    made = connect(url, store).create_key(wish, options.actor(), why)
    if as_json:
        options.print_json(made)
        return
    typer.echo(f"{made['id']} {made['name']}: {' '.join(made['scopes'])}; {limits(made)}", err=True)
    typer.echo("keep the key now, nobody can show it again:", err=True)
    typer.echo(made["secret"])


@keys.command("list")
def list_(*, url: options.Url = DEFAULT_URL, store: options.Store = None, as_json: options.Json = False) -> None:
    """List every key with its scopes and limits, the revoked ones too."""
    rows = connect(url, store).keys()
    if as_json:
        options.print_json(rows)
    elif rows:
        render.console().print(table(rows))
    else:
        typer.echo("No API keys: the gateway and the control plane serve loopback only.")


@keys.command()
def revoke(
    key_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The key's id, as `linnet keys list` shows it.", autocompletion=completion.keys
        ),
    ],
    *,
    reason: options.Reason = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """End a key for good; every worker refuses it within a moment."""
    why = options.require_reason(reason, "keys revoke")
    ended = connect(url, store).revoke_key(key_id, options.actor(), why)
    if as_json:
        options.print_json(ended)
    else:
        typer.echo(f"{ended['id']} {ended['name']}: revoked")


def table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Draw the keys: id, name, scopes, limits, when made, whether it holds."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in ("id", "name", "scopes", "limits", "made (UTC)", ""):
        drawn.add_column(title, overflow="fold")
    for row in rows:
        made = figures.moment(float(row["created_ms"]), "%Y-%m-%d %H:%M")
        state = "[red]revoked[/]" if row["revoked_ms"] else ""
        drawn.add_row(row["id"], escape(row["name"]), " ".join(row["scopes"]), limits(row), made, state)
    return drawn


def limits(row: Mapping[str, Any]) -> str:
    """Say what a key may use."""
    said = (
        ("rpm", "{:,} requests/min"),
        ("tpm", "{:,} tokens/min"),
        ("usd_per_day", "{:g} USD/day"),
    )
    return ", ".join(form.format(row[name]) for name, form in said if row[name] is not None) or "no limit"
