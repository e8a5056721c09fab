"""The verbs that change a release: each needs a reason and may insist on a generation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from canary.console import options, render
from canary.console.client import Client, Order, connect, only_model
from canary.console.options import DEFAULT_URL, IfGeneration, Json, Model, Reason, Store, Url
from canary.errors import Usage

if TYPE_CHECKING:
    from canary.card.spec import Spec


def _order(
    verb: str, reason: str | None, if_generation: int | None, args: Mapping[str, Any] | None = None, *, what: str = ""
) -> Order:
    why = options.require_reason(reason, verb, what)
    return Order(verb, options.actor(), why, uuid4().hex, if_generation, args)


def _carry_out(client: Client, model: str | None, order: Order, *, as_json: bool) -> None:
    state = client.command(only_model(client, model), order)
    _tell(state, as_json=as_json)
    if not as_json and not _noted(state, order):
        typer.echo(f"{order.verb}: nothing changed, all is as it was", err=True)


def _noted(state: dict[str, Any], order: Order) -> bool:
    """Tell whether the release's story has this order; what changes nothing is not noted."""
    told = state.get("timeline") or ()
    return any(one["why"] == order.reason and str(one["actor"]).startswith(order.actor) for one in told)


def _tell(state: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        options.print_json(state)
    else:
        typer.echo(render.line(state))


def _plain(verb: str, words: str) -> Callable[..., None]:
    """Make a verb without arguments of its own."""

    def run(
        *,
        reason: Reason = None,
        if_generation: IfGeneration = None,
        model: Model = None,
        url: Url = DEFAULT_URL,
        store: Store = None,
        as_json: Json = False,
    ) -> None:
        _carry_out(connect(url, store), model, _order(verb, reason, if_generation, what=words), as_json=as_json)

    run.__doc__, run.__name__ = words, verb
    return run


pause = _plain("pause", "Stop automation from advancing; it may still roll back.")
resume = _plain("resume", "Hand a paused release back to automation.")
abort = _plain("abort", "End the attempt without judging it: the candidate's share goes to 0.")
rollback = _plain("rollback", "The candidate is bad: its share goes to 0 and its digest into quarantine.")
retry = _plain("retry", "Let a stopped candidate try again, out of quarantine.")
freeze = _plain("freeze", "Nothing advances until `unfreeze`; rolling back still works.")
unfreeze = _plain("unfreeze", "Let releases advance again.")


def start(
    spec: Annotated[Path, typer.Argument(help="The release spec (YAML).")],
    *,
    reason: Reason = None,
    if_generation: IfGeneration = None,
    supersede: Annotated[bool, typer.Option("--supersede", help="Take the place of a release under way.")] = False,
    url: Url = DEFAULT_URL,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Start the release that a spec describes."""
    found = read_spec(spec)
    order = _order("start", reason, if_generation, {"supersede": True} if supersede else {})
    _tell(connect(url, store).start(found.text, found.where, order), as_json=as_json)


def read_spec(path: Path) -> Spec:
    """Return a checked spec whose `where` is an absolute path. Raises SpecError."""
    from canary.card import spec  # noqa: PLC0415 - validation is slow to import, and only these verbs need it

    spec.load(path)  # faults name the file as it was typed
    return spec.load(path.expanduser().resolve())


def set_weight(
    percent: Annotated[str, typer.Argument(metavar="PERCENT", help="The candidate's share of traffic, 0..100.")],
    *,
    ramp: Annotated[str, typer.Option("--ramp", help="Move there in small steps over this time: 30s, 2m.")] = "0s",
    reason: Reason = None,
    if_generation: IfGeneration = None,
    model: Model = None,
    url: Url = DEFAULT_URL,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Set the candidate's share by hand; this pauses automation."""
    share = weight(percent)
    what = f"The candidate's share goes to {share:g} %, and automation is paused until `linnet resume`."
    args = {"percent": share, "ramp": options.duration(ramp, "--ramp")}
    order = _order("set-weight", reason, if_generation, args, what=what)
    _carry_out(connect(url, store), model, order, as_json=as_json)


def weight(text: str) -> float:
    """Read 5, 5% or 0.5 as percent. Raises Usage outside 0..100."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 100:  # noqa: PLR2004
        raise Usage(f"set-weight {text or repr('')}: not a share; write a number from 0 to 100")
    return value


def promote(
    *,
    skip_analysis: Annotated[
        bool, typer.Option("--skip-analysis", help="All the way now, whatever the guardrails say.")
    ] = False,
    reason: Reason = None,
    if_generation: IfGeneration = None,
    model: Model = None,
    url: Url = DEFAULT_URL,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """On to the next step, as the evidence permits; with --skip-analysis, all the way."""
    if skip_analysis and sys.stdin.isatty() and not as_json:
        typer.confirm("promote without analysis?", abort=True, err=True)
    order = _order("promote", reason, if_generation, {"skip_analysis": skip_analysis})
    _carry_out(connect(url, store), model, order, as_json=as_json)
