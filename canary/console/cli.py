"""The command line: a table of verbs, loaded when called, and one place where errors become a line and an exit code.

The operator's verbs are listed here; other rooms bring theirs through the entry-point group "linnet.verbs" (a Typer
application or a plain function), so that `linnet status` never imports a load test.
"""

from __future__ import annotations

import os
import pkgutil
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from canary.errors import LinnetError, Refused, SpecError

ROOMS = ("canary", "gateway", "serving", "loadtest", "deploy")
GROUP = "linnet.verbs"
_NEGATIVE = re.compile(r"-[\d.]")  # the parser takes it for an option

VERBS = {
    "lint": "canary.verbs.gates:lint",
    "plan": "canary.verbs.plan:plan",
    "simulate": "canary.verbs.simulate:simulate",
    "start": "canary.verbs.change:start",
    "status": "canary.verbs.look:status",
    "watch": "canary.verbs.look:watch",
    "explain": "canary.verbs.look:explain",
    "pause": "canary.verbs.change:pause",
    "resume": "canary.verbs.change:resume",
    "set-weight": "canary.verbs.change:set_weight",
    "promote": "canary.verbs.change:promote",
    "abort": "canary.verbs.change:abort",
    "rollback": "canary.verbs.change:rollback",
    "retry": "canary.verbs.change:retry",
    "freeze": "canary.verbs.change:freeze",
    "unfreeze": "canary.verbs.change:unfreeze",
    "keys": "canary.verbs.keys:keys",
    "history": "canary.verbs.look:history",
    "audit": "canary.verbs.audit:audit",
    "eval": "canary.verbs.gates:evaluate",
    "report": "canary.verbs.gates:report",
}

PANELS = {
    "Before a release": ("lint", "plan", "simulate"),
    "A release": ("start", "loadtest", "eval", "promote", "retry", "report"),
    "Look": ("status", "watch", "explain", "history", "audit"),
    "Step in": ("pause", "resume", "set-weight", "freeze", "unfreeze", "abort", "rollback"),
}
OTHERS = "Around it"


def verbs() -> dict[str, str]:
    """Return every verb and where its code is; the operator's own names come first and cannot be taken."""
    return {**VERBS, **{entry.name: entry.value for entry in entry_points(group=GROUP) if entry.name not in VERBS}}


def command(name: str, where: str) -> Any:
    """Load one verb: a Typer application as it is, a function as a command of its own."""
    try:
        found = pkgutil.resolve_name(where)
    except (ImportError, AttributeError) as error:
        found = _unavailable(name, error)
    if isinstance(found, typer.Typer):
        app = found
    else:
        app = typer.Typer(add_completion=False)
        app.command(name)(found)
    app._add_completion = False  # noqa: SLF001 - completion belongs to `linnet` itself
    loaded: Any = typer.main.get_command(app)
    loaded.name = name
    loaded.rich_help_panel = next((panel for panel, names in PANELS.items() if name in names), OTHERS)
    return loaded


def _unavailable(name: str, error: Exception) -> Callable[[], None]:
    """Make the verb of a room that does not load: the others, and the help, must not suffer for it."""

    def run() -> None:
        raise Refused(f"{name}: its room does not load ({error}); repair the installation: make setup") from error

    run.__doc__ = "(not available in this installation)"
    return run


class Verbs(TyperGroup):
    """The group whose commands are loaded by name."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the signature is the group's
        """Return the names without loading anything, in the order in which the help shows them."""
        shown = [name for names in PANELS.values() for name in names]
        return sorted(verbs(), key=lambda name: shown.index(name) if name in shown else len(shown))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Load the verb; None if there is none of that name."""
        table = verbs()
        if cmd_name not in table:
            return None
        if cmd_name not in self.commands:
            self.add_command(command(cmd_name, table[cmd_name]), cmd_name)
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that was typed, or say which one may have been meant."""
        near = get_close_matches(args[0], verbs(), n=1)
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            error.message = f"no verb {args[0]!r}{f'; did you mean {near[0]!r}?' if near else ''}"
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; Ctrl-C is told here, because Typer would make a silent exit code of it."""
        if signal.getsignal(signal.SIGINT) not in (signal.default_int_handler, signal.SIG_IGN):
            with suppress(ValueError):  # only the main thread has handlers to set
                signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on it is an exception
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None


app = typer.Typer(name="linnet", cls=Verbs, no_args_is_help=True, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"linnet {version('linnet')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
]


@app.callback()
def linnet(*, _version: Version = False) -> None:
    """Release a language model as safely as you release code: shadow, canary, guardrails, rollback."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with a code of the contract."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; whatever goes wrong is one line on standard error."""
    try:
        result = typer.main.get_command(app).main(
            args=None if args is None else list(args), prog_name="linnet", standalone_mode=False
        )
    except typer.TyperException as error:
        return _usage(error)
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except SpecError as error:
        return _faults(error)
    except Exception as error:  # noqa: BLE001 - the one place where an error becomes a line
        return _fail(*_line(error))
    return result if isinstance(result, int) else 0


def _usage(error: typer.TyperException) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help itself
        typer.echo(error.format_message(), err=True)
        return 2
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "linnet"
    verb = path.removeprefix("linnet").strip()
    where = f"{verb}: " if verb else ""
    option = str(getattr(error, "option_name", ""))
    negative = f"{option}: no number below 0 is taken here; write 0 or more" if _NEGATIVE.match(option) else ""
    return _fail(f"{where}{negative or error.format_message().rstrip('.')}; see `{path} --help`", 2)


def _line(error: Exception) -> tuple[str, int]:
    """Errors of our rooms are written for people; anything else is a fault of ours, and says so."""
    if isinstance(error, LinnetError) or type(error).__module__.partition(".")[0] in ROOMS:
        return str(error), int(getattr(error, "exit_code", 1))
    if os.environ.get("LINNET_DEBUG"):
        traceback.print_exception(error)
    kind = f"{type(error).__name__}: {error}".strip(": ")
    return f"a fault in linnet ({kind}); set LINNET_DEBUG=1 for the details and report it", 1


def _faults(error: SpecError) -> int:
    for line in error.lines:
        typer.echo(line, err=True)
    return error.exit_code


def _fail(message: str, code: int) -> int:
    one_line = "; ".join(part.strip() for part in message.splitlines() if part.strip())
    typer.echo(f"linnet: {one_line}", err=True)
    return code
