"""`linnet simulate`: a spec's own guardrails over made-up or recorded traffic, many times, before anything starts."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated

import typer

from canary.console import options, render
from canary.console.options import DEFAULT_URL
from canary.errors import Usage
from canary.verbs.change import read_spec
from canary.verbs.gates import SpecFile
from canary.verbs.plan import seen_traffic, within

if TYPE_CHECKING:
    from canary.card.spec import Spec
    from canary.trials.recording import Recording
    from canary.trials.simulate import Told
    from canary.trials.stories import Setting, Summary, Trial
    from canary.trials.world import OwnNoise

RPS = 20.0

Log = Annotated[
    Path | None,
    typer.Option(
        "--log",
        metavar="FILE",
        help="In place of --rps, the model's traffic as the gateway's access log has it: when requests came, how the "
        "baseline answered each, their slices.",
    ),
]
Rps = Annotated[float | None, typer.Option("--rps", help=f"The traffic in requests a second; default: {RPS:g}.")]
AsSeen = Annotated[
    bool, typer.Option("--as-seen", help="In place of --rps, the traffic that the model's last release saw.")
]
Runs = Annotated[int, typer.Option("--runs", help="How often each scenario is told.")]
Seed = Annotated[int, typer.Option("--seed", help="The same seed tells the same stories.")]
Seconds = Annotated[int, typer.Option("--seconds", help="How long a story lasts at most.")]
Every = Annotated[
    int, typer.Option("--every", help="Seconds between looks; the controller looks every second, which takes longer.")
]
Noise = Annotated[
    str | None,
    typer.Option(
        "--own-noise",
        metavar="TTFT_SD,TPOT_SD,TAU",
        help="The candidate machine's own slow noise: standard deviations of the log, and seconds. Default: none.",
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE.svg", help="Draw the share rolled back over the candidate's requests."),
]


def simulate(
    spec: SpecFile,
    *,
    rps: Rps = None,
    as_seen: AsSeen = False,
    log: Log = None,
    runs: Runs = 250,
    seed: Seed = 1,
    seconds: Seconds = 900,
    every: Every = 10,
    own_noise: Noise = None,
    plot: Plot = None,
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Try the spec's guardrails on traffic: how often an equal candidate is rolled back, how soon a worse one.

    The traffic is made up, at --rps or at the rate --as-seen, and has no slices; or it is what the --log of a gateway
    recorded. Nothing is started, and without --as-seen nobody is asked. Shadow, bake and tripwires are left out.
    """
    from canary.trials import stories, telling  # noqa: PLC0415 - the statistics only where they are used

    lasts, own, found = int(within("--seconds", seconds, 10, 86_400)), noise(own_noise), read_spec(spec)
    chosen = [name for name, said in (("--rps", rps is not None), ("--as-seen", as_seen), ("--log", log)) if said]
    if len(chosen) > 1:
        raise Usage(f"{' and '.join(chosen)}: each says what the traffic is; keep one")
    times = int(within("--runs", runs, 1, 100_000))
    number, looks = int(within("--seed", seed, 0, 2**31)), int(within("--every", every, 1, 600))
    _check(plot)
    name = model or found.model
    recording = None if log is None else recorded(log, name)
    rate = seen_traffic(name, url, store).rps if as_seen else RPS if rps is None else rps
    rate = within("--rps", rate, 0.1, 10_000) if recording is None else recording.rate
    setting = stories.Setting(stories.world(found, rate, lasts, recording), times, number, looks)
    summed = _told(found, setting, own)
    document = telling.to_json(found, setting, summed)
    if plot is not None:
        _draw(plot, summed)
    if as_json:
        options.print_json(document)
    else:
        render.console().print(telling.draw(document))


def recorded(log: Path, model: str) -> Recording:
    """Read a gateway's access log. Raises Usage."""
    from canary.trials.recording import RecordingError, read  # noqa: PLC0415 - see simulate

    try:
        with log.open("rb") as lines:
            return read(lines, model)
    except OSError as error:
        raise Usage(f"--log {log}: cannot be read ({error.strerror}); name the gateway's access log") from None
    except RecordingError as error:
        raise Usage(f"--log {log}: {error}") from None


def _told(spec: Spec, setting: Setting, own: OwnNoise) -> Sequence[Summary]:
    """Tell the stories of every scenario on all processors, and sum them up."""
    from canary.trials import stories  # noqa: PLC0415 - see simulate

    policy = stories.whole(spec.policy()) if setting.world.recording is None else spec.policy()
    kinds = stories.scenarios(policy, own, setting.world.usual())
    jobs = [trial for kind in kinds for trial in stories.trials(kind, policy, setting)]
    with _progress(len(jobs)) as tick:
        told = hold_all(jobs, len(os.sched_getaffinity(0)), tick)
    return stories.summaries(kinds, told)


def hold_all(jobs: Sequence[Trial], processes: int, tick: Callable[[], None] = lambda: None) -> list[Told]:
    """Tell all stories on so many processes; the result is in the order of the jobs, however many there are."""
    from canary.trials import stories  # noqa: PLC0415 - see simulate

    told: list[Told] = []
    if processes <= 1 or len(jobs) == 1:
        for job in jobs:
            told.append(stories.hold(job))
            tick()
        return told
    pool = ProcessPoolExecutor(min(processes, len(jobs)), get_context("spawn"), initializer=_deaf)
    try:
        for story in pool.map(stories.hold, jobs, chunksize=1):
            told.append(story)
            tick()
    finally:
        pool.shutdown(cancel_futures=True)
    return told


def _deaf() -> None:
    """Leave Ctrl-C to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_die_with, args=(parent_process(),), daemon=True).start()


def _die_with(parent: BaseProcess | None) -> None:
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show how far it is on standard error, if that is a terminal."""
    from rich.console import Console  # noqa: PLC0415 - see simulate
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("stories"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task("stories", total=total)
        yield lambda: shown.advance(task)


def noise(given: str | None) -> OwnNoise:
    """Read `TTFT_SD,TPOT_SD,TAU`. Raises Usage."""
    from canary.trials.world import OwnNoise  # noqa: PLC0415 - see simulate

    if given is None:
        return OwnNoise()
    try:
        ttft, tpot, tau = (float(part) for part in given.split(","))
    except ValueError:
        raise Usage(f"--own-noise {given}: not three numbers; write TTFT_SD,TPOT_SD,TAU such as 0.18,0.1,180") from None
    return OwnNoise(
        within("--own-noise TTFT_SD", ttft, 0, 2),
        within("--own-noise TPOT_SD", tpot, 0, 2),
        within("--own-noise TAU", tau, 1, 86_400),
    )


def _check(plot: Path | None) -> None:
    """Find out before the minutes of work whether the plot can be written. Raises Usage."""
    if plot is None:
        return
    if plot.suffix.lower() != ".svg":
        raise Usage(f"--plot {plot}: drawn as SVG; name it FILE.svg")
    if plot.is_dir() or not os.access(plot.parent, os.W_OK):
        raise Usage(f"--plot {plot}: cannot be written; name a file in a folder that is there")


def _draw(plot: Path, summed: Sequence[Summary]) -> None:
    from canary.trials.plot import rolled_back  # noqa: PLC0415 - see simulate

    try:
        plot.write_text(rolled_back(summed), encoding="utf-8")
    except OSError as error:
        raise Usage(f"--plot {plot}: cannot be written ({error.strerror}); name another file") from None
