"""The Locust file: one Locust user that is the scheduler of all arrivals (see loadtest.users).

Run by `linnet loadtest` and `python -m loadtest.traffic` as `locust -f loadtest/locustfile.py --headless --job FILE`.
Locust keeps the statistics, the signals and the summary; the records go to the job's `out` as JSON lines.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import gevent
from locust import User, events

from loadtest.records import Client, Job, Record
from loadtest.schedule import load_workload
from loadtest.users import HttpAsk, OpenLoop, orphaned


def _options(parser: Any) -> None:
    parser.add_argument("--job", required=True, help="a job file (loadtest.records.Job)")


def _wire(environment: Any, **_: Any) -> None:
    """Wire the run: job, records, scheduler."""
    job = Job.from_json(Path(environment.parsed_options.job).read_text(encoding="utf-8"))
    out = Path(job.out).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed when Locust quits
    fire = environment.events.request.fire
    name = f"chat {job.arm}".strip()

    def keep(record: Record) -> None:
        out.write(record.to_json() + "\n")
        error = None if record.ok else RuntimeError(record.error)
        times = {"response_time": record.e2e_ms or 0, "response_length": record.tokens}
        fire(request_type="POST", name=name, exception=error, context={}, **times)

    ask = HttpAsk(job, os.environ.get("LINNET_API_KEY", ""))
    loop = environment.linnet = OpenLoop(job, load_workload(Path(job.workload)), ask, keep)
    cpu, wall = time.process_time(), time.perf_counter()

    def leave(**_: Any) -> None:
        loop.stop()
        out.close()
        client = Client(time.process_time() - cpu, time.perf_counter() - wall, loop.sent)
        Path(job.out + ".client").write_text(json.dumps(client.to_dict()), encoding="utf-8")

    environment.events.quitting.add_listener(leave)


def _send(user: Any) -> None:
    """Send the schedule, then end the run; end it too when the process that started it is gone."""
    watch = gevent.spawn(_end_with_parent, os.getppid())
    user.environment.linnet.run()
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
