"""The verbs that this room brings: `up` and `demo`."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn

import typer
from pydantic import ValidationError

from canary.card.spec import load
from deploy.local.catalogue import ADAPTED, BASE
from deploy.local.demo import run_demo
from deploy.local.settings import LocalSettings
from deploy.local.stack import Stack, prepare, until_told

Engine = Annotated[Literal["vllm", "simulated"], typer.Option(help="real vLLM, or a scripted engine on the same wire")]
Spec = Annotated[Path | None, typer.Option(help="run the engines that this release names")]

INTERRUPTED = 130


def up(engine: Engine = "vllm", spec: Spec = None) -> None:
    """Run the whole stack in the foreground: store, two engines, control plane, gateway. Ctrl-C ends it."""
    _guard(lambda: _up(engine, spec))


def demo() -> None:
    """Release a good candidate, then watch a bad one being rolled back, on two real vLLM engines."""
    _guard(lambda: run_demo(_settings(), say))


def say(text: str) -> None:
    """Tell the person at the terminal, at once."""
    print(text, flush=True)


def _up(kind: Literal["vllm", "simulated"], spec: Path | None) -> int:
    settings = _settings()
    engines = [BASE, ADAPTED] if spec is None else _engines(spec)
    models = prepare(settings, kind, say)

    async def serve() -> int:
        async with Stack(settings, kind, models, say) as stack:
            await stack.start(engines)
            say(_welcome(settings, spec))
            await asyncio.Event().wait()
        return 0

    return asyncio.run(until_told(serve()))


def _engines(spec: Path) -> list[str]:
    arms = load(spec).arms
    return [arms.baseline.engine, arms.candidate.engine]


def _welcome(settings: LocalSettings, spec: Path | None) -> str:
    file = spec or "examples/demo/adapted.yaml"
    return f"""
linnet is up. Ctrl-C ends it; state and logs stay in {settings.state}.

  apps             {settings.gateway_url}/v1   (model {settings.model}; no API key: loopback only)
  control plane    {settings.control_url}
  metrics          http://127.0.0.1:{settings.ops_port}/metrics

  linnet start {file} --reason "try it"
  linnet loadtest {file}
  linnet eval {file}
  python -m loadtest.traffic --gateway {settings.gateway_url} --model {settings.model} \\
      --workload {settings.state}/models/prompts.jsonl --rate 10 --max-tokens 24     # users, until Ctrl-C
  linnet watch
"""


def _settings() -> LocalSettings:
    try:
        return LocalSettings()
    except ValidationError as error:
        first = error.errors()[0]
        _fail(f"LINNET_{str(first['loc'][0]).upper()}: {first['msg']}; set it right or unset it", 2)


def _guard(work: Callable[[], int]) -> None:
    """Run to the end, whatever ends it; errors of our rooms become a line and an exit code in `canary.console.cli`.

    Until the event loop takes the signals, SIGTERM is Ctrl-C too: what the engines' installation started must end.
    """
    _hear(signal.default_int_handler)
    try:
        code = work()
    except (KeyboardInterrupt, asyncio.CancelledError):
        _hear(signal.SIG_IGN)  # all has ended: a second Ctrl-C changes nothing
        say("\nstopped: nothing is left running, and the release state is kept")
        code = INTERRUPTED
    except OSError as error:
        _fail(f"{error.filename or 'the machine'}: {error.strerror}; free some room or mend the path", 1)
    raise typer.Exit(code)


def _hear(handler: signal.Handlers | Callable[[int, FrameType | None], Any]) -> None:
    for told in (signal.SIGINT, signal.SIGTERM):
        signal.signal(told, handler)


def _fail(message: str, code: int) -> NoReturn:
    print(f"linnet: {message}", file=sys.stderr)
    raise typer.Exit(code)
