"""`linnet simulate`: a spec's own guardrails over made-up traffic, many times, before anything is started."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Any

import typer

from canary import figures, options, render
from canary.errors import Usage
from canary.options import DEFAULT_URL
from canary.verbs.change import read_spec
from canary.verbs.gates import SpecFile
from canary.verbs.plan import seen_traffic, within

if TYPE_CHECKING:
    from rich.console import RenderableType

    from canary.simulate import OwnNoise, Told
    from canary.spec import Spec
    from canary.trials import Setting, Summary, Trial

COLUMNS = ("scenario", "runs", "rolled back", "95 % interval", "requests", "after", "by")


Rps = Annotated[float, typer.Option("--rps", help="The traffic in requests a second.")]
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
    rps: Rps = 20.0,
    as_seen: AsSeen = False,
    runs: Runs = 100,
    seed: Seed = 1,
    seconds: Seconds = 900,
    every: Every = 5,
    own_noise: Noise = None,
    plot: Plot = None,
    model: options.Model = None,
    url: options.Url = DEFAULT_URL,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Try the spec's guardrails on made-up traffic: how often an equal candidate is rolled back, how soon a worse one.

    Nothing is started, and without --as-seen nobody is asked. Made-up traffic has no slices; shadow, bake
    and tripwires are left out.
    """
    lasts, own, found = int(within("--seconds", seconds, 10, 86_400)), noise(own_noise), read_spec(spec)
    rate = within("--rps", seen_traffic(model or found.model, url, store).rps if as_seen else rps, 0.1, 10_000)
    setting = replace(
        _setting(found, rate, lasts),
        runs=int(within("--runs", runs, 1, 100_000)),
        seed=int(within("--seed", seed, 0, 2**31)),
        every=int(within("--every", every, 1, 600)),
    )
    _check(plot)
    summed = _told(found, setting, own)
    document = to_json(found, setting, summed)
    if plot is not None:
        _draw(plot, summed)
    if as_json:
        options.print_json(document)
    else:
        render.console().print(draw(document))


def _setting(spec: Spec, rate: float, lasts: int) -> Setting:
    from canary import trials  # noqa: PLC0415 - the statistics only where they are used

    return trials.Setting(trials.steps(spec, rate, lasts), trials.traffic(spec, rate), runs=1, seed=1, every=1)


def _told(spec: Spec, setting: Setting, own: OwnNoise) -> Sequence[Summary]:
    """Tell the stories of every scenario on all processors, and sum them up."""
    from canary import trials  # noqa: PLC0415 - see simulate

    policy = trials.whole(spec.policy())
    kinds = trials.scenarios(policy, own)
    jobs = [trial for kind in kinds for trial in trials.trials(kind, policy, setting)]
    with _progress(len(jobs)) as tick:
        told = hold_all(jobs, len(os.sched_getaffinity(0)), tick)
    return trials.summaries(kinds, told)


def hold_all(jobs: Sequence[Trial], processes: int, tick: Callable[[], None] = lambda: None) -> list[Told]:
    """Tell all stories on so many processes; the result is in the order of the jobs, however many there are."""
    from canary import trials  # noqa: PLC0415 - see simulate

    told: list[Told] = []
    if processes <= 1 or len(jobs) == 1:
        for job in jobs:
            told.append(trials.hold(job))
            tick()
        return told
    pool = ProcessPoolExecutor(min(processes, len(jobs)), get_context("spawn"), initializer=_deaf)
    try:
        for story in pool.map(trials.hold, jobs, chunksize=1):
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
    from canary.simulate import OwnNoise  # noqa: PLC0415 - see simulate

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
    from canary.trials_plot import rolled_back  # noqa: PLC0415 - see simulate

    try:
        plot.write_text(rolled_back(summed), encoding="utf-8")
    except OSError as error:
        raise Usage(f"--plot {plot}: cannot be written ({error.strerror}); name another file") from None


def to_json(spec: Spec, setting: Setting, summed: Sequence[Summary]) -> dict[str, Any]:
    """Return the outcome as plain values: shares in 0..1, null for a median that was not reached."""
    from canary import trials  # noqa: PLC0415 - see simulate

    alpha = spec.analysis.alpha
    holds, worst = trials.bound(summed, alpha)
    return {
        "model": spec.model,
        "release": spec.release,
        "seed": setting.seed,
        "every_seconds": setting.every,
        "traffic": asdict(setting.traffic),
        "steps": [{"percent": 100 * step.share, "seconds": step.seconds} for step in setting.steps],
        "alpha": alpha,
        "bound_holds": holds,
        "judged_by": worst.scenario.name,
        "runs_needed": trials.runs_needed(alpha),
        "untold": list(trials.untold(spec.policy())),
        "sliced": any(guard.slices != ("",) for guard in spec.policy().guards),
        "scenarios": [_row(one) for one in summed],
    }


def _row(one: Summary) -> dict[str, Any]:
    ended = one.longest or (None, None)
    return {
        "name": one.scenario.name,
        "equal": one.scenario.equal,
        "runs": one.runs,
        "rolled_back": one.rolled_back,
        "low": one.low,
        "high": one.high,
        "median_requests": one.requests,
        "median_seconds": one.seconds,
        "longest_requests": ended[0],
        "longest_seconds": ended[1],
        "by": one.failed,
    }


def draw(found: dict[str, Any]) -> RenderableType:
    """Draw what `to_json` returns: what was assumed, a row a scenario, and whether the bound holds."""
    from rich.console import Group  # noqa: PLC0415 - see simulate
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    head = Text.assemble((str(found["model"]), "bold"), f"  {found['release']}  made-up traffic")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for number, name in enumerate(COLUMNS):
        table.add_column(name, no_wrap=True, justify="right" if 0 < number < len(COLUMNS) - 1 else "left")
    for row in found["scenarios"]:
        table.add_row(*map(escape, _cells(row)))
    style = {True: "green", False: "bold red", None: "yellow"}[found["bound_holds"]]
    return Group(head, Text(_assumed(found), "dim"), Text(""), table, Text(""), Text(_sentence(found), style))


def _assumed(found: dict[str, Any]) -> str:
    traffic = found["traffic"]
    stay = ", ".join(f"{step['percent']:g} % for {figures.seconds(step['seconds'])}" for step in found["steps"])
    lines = (
        f"assumed: {traffic['rate']:g} requests/s, {traffic['pairs_per_s']:.3g} shadow pairs/s; {stay}",
        f"a look every {found['every_seconds']} s (the controller's: 1 s); seed {found['seed']}",
        "counted: the candidate's requests and the time until rollback, medians of all runs",
        *([f"no story: made-up traffic cannot show harm to {', '.join(found['untold'])}"] if found["untold"] else []),
        *(["slices: made-up traffic has none; each guardrail is held to all of it"] if found["sliced"] else []),
    )
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    requests, after = figures.number(row["median_requests"]), figures.seconds(row["median_seconds"])
    if row["median_requests"] is None:
        requests = f"not in {figures.number(row['longest_requests'])}"
        after = f"not in {figures.seconds(row['longest_seconds'])}"
    by = ", ".join(f"{name} {count}" for name, count in row["by"].items())
    interval = f"{figures.share(row['low'])} to {figures.share(row['high'])}"
    return [row["name"], str(row["runs"]), str(row["rolled_back"]), interval, requests, after, by or figures.MISSING]


def _sentence(found: dict[str, Any]) -> str:
    row = next(row for row in found["scenarios"] if row["name"] == found["judged_by"])
    alpha = figures.share(found["alpha"])
    saw = f"{row['rolled_back']} of {row['runs']} runs of `{row['name']}` were rolled back"
    if found["bound_holds"]:
        return f"The bound on false rollbacks holds: {saw}, {figures.share(row['high'])} at most, alpha is {alpha}."
    if found["bound_holds"] is False:
        return f"The bound on false rollbacks is broken: {saw}, {figures.share(row['low'])} at least, alpha is {alpha}."
    more = max(found["runs_needed"], 2 * row["runs"])
    return (
        f"Too few runs to tell whether the bound on false rollbacks holds: {saw}, {figures.share(row['high'])} at "
        f"most, alpha is {alpha}; --runs {more} would tell more."
    )
