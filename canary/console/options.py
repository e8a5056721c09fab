"""The options that every verb of the operator shares, spelled once."""

from __future__ import annotations

import getpass
import json
import re
import socket
import sys
from typing import Annotated, Any

import typer

from canary.console import completion
from canary.errors import Usage

DEFAULT_URL = "http://127.0.0.1:8081"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="LINNET_MODEL",
        help="The model's public name; default: the only one.",
        autocompletion=completion.models,
    ),
]
Url = Annotated[str, typer.Option("--url", envvar="LINNET_CONTROL_URL", help="The control plane.")]
Store = Annotated[
    str | None,
    typer.Option("--store", help="Go straight to the store (redis://HOST:PORT/0): works with the control plane dead."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Reason = Annotated[
    str | None, typer.Option("--reason", "-r", help="Why; kept in the audit. Required when not on a terminal.")
]
IfGeneration = Annotated[
    int | None, typer.Option("--if-generation", help="Do it only if the release is still at this generation.")
]

DURATION = re.compile(r"(?P<number>\d+(\.\d+)?)(?P<unit>ms|s|m|h|)")
UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str, option: str) -> float:
    """Read 500ms, 20s, 5m, 2h, or bare seconds, as seconds. Raises Usage."""
    match = DURATION.fullmatch(text.strip())
    if match is None:
        raise Usage(f"{option} {text}: not a length of time; write 500ms, 20s, 5m or 2h")
    return float(match["number"]) * UNITS[match["unit"]]


def require_reason(reason: str | None, verb: str, what: str = "") -> str:
    """Return the reason; ask for one on a terminal, raise Usage elsewhere: every change of a release has a why.

    The question says `what` will happen and can be left: it is the confirmation, and who gives a reason is not asked.
    """
    if reason and reason.strip():
        return reason.strip()
    if not sys.stdin.isatty():
        raise Usage(f"{verb}: no reason given, and no terminal to ask on; add --reason TEXT")
    if what:
        typer.echo(f"{verb}: {what}", err=True)
    asked: str = typer.prompt("reason (Ctrl-C changes nothing)", err=True)
    return require_reason(asked, verb)


def actor() -> str:
    """Name who runs this command: user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def json_line(value: Any) -> str:
    """Return one JSON document on one line."""
    return json.dumps(value, sort_keys=True, default=str)


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True, default=str))
