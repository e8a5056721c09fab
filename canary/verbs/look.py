"""The verbs that only look: status, watch, explain, history."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from canary.console import explain as reasons
from canary.console import history as past
from canary.console import options, render
from canary.console.client import Client, connect, only_model
from canary.console.completion import ORDER, PHASES, phases
from canary.console.options import DEFAULT_URL
from canary.errors import Refused, TimedOut, Unreachable, Usage

FAILED_ENDS = {"rolled_back", "aborted", "superseded"}
POLL_S = 0.5
AWAY_S = 60.0  # a control plane that is silent for longer is not restarting

Count = Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How many of the latest entries.")]


def status(
    *,
    wait: Annotated[
        str | None,
        typer.Option("--wait", metavar="PHASE", help="Wait until the release is there.", autocompletion=phases),
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", help="How long to wait: 20s, 5m, 2h.")] = "1h",
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Show a release at a glance; with --wait, wait for a phase and say by the exit code what came."""
    client, patience = connect(url, store), options.duration(timeout, "--timeout")
    if wait is None:
        _show(client.status(only_model(client, model)), render.status, as_json=as_json)
        return
    if wait not in PHASES:
        raise Usage(f"--wait {wait}: not a phase; write one of {', '.join(PHASES)}")
    state = wait_for(client, model, wait, patience)
    _show(state, render.status, as_json=as_json)
    if not reached(str(state.get("phase")), wait):
        raise Refused(
            f"{state.get('model')}: {state.get('phase')}, not {wait}: {state.get('reason') or 'no reason given'}"
        )


def reached(phase: str, wanted: str) -> bool:
    """Tell whether `phase` is the wanted one, or lies beyond it on the way to promotion."""
    if phase in ORDER and wanted in ORDER:
        return ORDER.index(phase) >= ORDER.index(wanted)
    return phase == wanted


def wait_for(
    client: Client,
    model: str | None,
    wanted: str,
    timeout: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Poll until the wanted phase or an end; raises TimedOut after `timeout` seconds.

    A control plane that is away for a while (a restart) is waited for; if it stays away, Unreachable.
    """
    end = clock() + timeout
    while True:
        state, trouble = _try(client, model)
        phase = str((state or {}).get("phase"))
        if state is not None and (reached(phase, wanted) or phase in FAILED_ENDS or phase == "promoted"):
            return state
        if clock() >= end:
            raise trouble or TimedOut(
                f"{(state or {}).get('model')}: still {phase} after {timeout:g} s, not {wanted}; "
                "see `linnet explain`, or wait longer with --timeout"
            )
        sleep(POLL_S)


def _try(client: Client, model: str | None) -> tuple[dict[str, Any] | None, Unreachable | None]:
    try:
        return client.status(only_model(client, model)), None
    except Unreachable as error:
        return None, error


def watch(
    *,
    interval: Annotated[str, typer.Option("--interval", help="How often to look: 500ms, 1s.")] = "1s",
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Follow a release until it ends: live on a terminal, one plain line for each change when piped."""
    client, screen, pause = connect(url, store), render.console(), options.duration(interval, "--interval")
    name = only_model(client, model)
    if screen.is_terminal and not as_json:
        state = _live(client, name, pause, screen)
    else:
        state = _lines(client, name, pause, as_json=as_json)
    if state.get("phase") in FAILED_ENDS:
        raise Refused(f"{name}: {state.get('phase')}: {state.get('reason') or 'no reason given'}")


def _followed(client: Client, name: str, pause: float) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the status until the release ends, each with what keeps it from being fresh ('' while nothing does).

    A control plane that goes away (a restart) is waited for; one that stays away raises Unreachable.
    """
    state, heard = client.status(name), time.monotonic()
    yield state, ""
    while state.get("phase") not in render.ENDS:
        time.sleep(pause)
        try:
            state, heard = client.status(name), time.monotonic()
            yield state, ""
        except Unreachable as error:
            if time.monotonic() - heard > AWAY_S:
                raise
            yield state, f"waiting for an answer: {error}"


def _live(client: Client, name: str, pause: float, screen: Any) -> dict[str, Any]:
    with Live(console=screen, refresh_per_second=4) as live:
        for state, trouble in _followed(client, name, pause):
            face = render.status(state)
            live.update(Group(face, Text(trouble, "yellow")) if trouble else face)
    return state


def _lines(client: Client, name: str, pause: float, *, as_json: bool) -> dict[str, Any]:
    shown, troubled = None, ""
    for state, trouble in _followed(client, name, pause):
        if trouble and not troubled:
            typer.echo(f"linnet: {trouble}", err=True)
        if (now := render.milestone(state)) != shown:
            typer.echo(options.json_line(state) if as_json else render.line(state))
        shown, troubled = now, trouble
    return state


def explain(
    *,
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Say what each guardrail found and why, and what happens next."""
    client = connect(url, store)
    state = client.status(only_model(client, model))
    if as_json:
        options.print_json(reasons.to_json(state))
        return
    render.console().print(reasons.draw(state))


def history(
    *,
    count: Count = 20,
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """List the attempts of a model's releases and how each ended, from the audit."""
    client = connect(url, store)
    name = only_model(client, model)
    attempts = past.attempts(client.audit(name, past.DEPTH))[-count:]
    if as_json:
        options.print_json([attempt.to_json() for attempt in attempts])
        return
    render.console().print(past.table(attempts) if attempts else "No attempt yet.")


def _show(state: dict[str, Any], face: Callable[[dict[str, Any]], Any], *, as_json: bool) -> None:
    if as_json:
        options.print_json(state)
    else:
        render.console().print(face(state))
