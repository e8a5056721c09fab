"""The Locust file: one Locust user that is the scheduler of all arrivals, then of the saturation run.

Run by `linnet loadtest` and `python -m loadtest.traffic` as `locust -f loadtest/locustfile.py --headless --job FILE`.
Locust keeps the statistics, the signals and the summary; the records go to the job's `out` as JSON lines.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gevent
from locust import User, events

from loadtest.records import Client, Job, Record
from loadtest.saturation import ClosedLoop
from loadtest.schedule import load_workload
from loadtest.users import HttpAsk, Keep, OpenLoop, orphaned


class Leg:
    """One loop of the run, and how this process fared in it."""

    def __init__(self, loop: OpenLoop | ClosedLoop) -> None:
        self.loop = loop
        self.client = Client(0.0, 0.0, 0)

    def run(self) -> None:
        """Run the loop to its end, or until it is interrupted."""
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            self.loop.run()
        finally:
            self.client = Client(time.process_time() - cpu, time.perf_counter() - wall, self.loop.sent)


def _options(parser: Any) -> None:
    parser.add_argument("--job", required=True, help="a job file (loadtest.records.Job)")


def _wire(environment: Any, **_: Any) -> None:
    """Wire the run: job, records, the schedule, then the saturation run."""
    job = Job.from_json(Path(environment.parsed_options.job).read_text(encoding="utf-8"))
    lines, ask, files = (
        load_workload(Path(job.workload)),
        HttpAsk(job, os.environ.get("LINNET_API_KEY", "")),
        ExitStack(),
    )
    name = f"chat {job.arm}".strip()
    legs = {"open": Leg(OpenLoop(job, lines, ask, _keeper(environment, files, job.out, name)))}
    if job.saturation.in_flight:
        keep = _keeper(environment, files, job.saturation_out, f"{name} saturated")
        legs["saturation"] = Leg(ClosedLoop(job, lines, ask, keep))
    environment.linnet = legs

    def leave(**_: Any) -> None:
        for leg in legs.values():
            leg.loop.stop()
        files.close()
        clients = {name: leg.client.to_dict() for name, leg in legs.items()}
        Path(job.out + ".client").write_text(json.dumps(clients), encoding="utf-8")

    environment.events.quitting.add_listener(leave)


def _keeper(environment: Any, files: ExitStack, path: str, name: str) -> Keep:
    """Return what keeps a record: as a line in `path`, and in Locust's statistics."""
    out = files.enter_context(Path(path).open("a", encoding="utf-8", buffering=1))  # noqa: SIM115 - closed by `files`
    fire = environment.events.request.fire

    def keep(record: Record) -> None:
        out.write(record.to_json() + "\n")
        error = None if record.ok else RuntimeError(record.error)
        times = {"response_time": record.e2e_ms or 0, "response_length": record.tokens}
        fire(request_type="POST", name=name, exception=error, context={}, **times)

    return keep


def _send(user: Any) -> None:
    """Send all there is to send, then end the run; end it too when the process that started it is gone."""
    watch = gevent.spawn(_end_with_parent, os.getppid())
    for leg in user.environment.linnet.values():
        leg.run()
    watch.kill()
    user.environment.runner.quit()


def _end_with_parent(parent: int) -> None:
    while not orphaned(parent):
        gevent.sleep(1)
    os._exit(1)  # nobody waits for a summary, and the records are written


class Arrivals(User):  # type: ignore[misc]
    """All users in one: spawns a greenlet for each arrival."""

    tasks = (_send,)


events.init_command_line_parser.add_listener(_options)
events.init.add_listener(_wire)
