"""Locust as a child process: gevent's patches and its CPU time stay out of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from loadtest.errors import ClientError
from loadtest.records import Client, Job, Record, Trace

_LOCUSTFILE = Path(__file__).with_name("locustfile.py")
_GRACE_S = 5.0


class Locust:
    """One run of the Locust file, in a process group of its own; `folder` takes the job and Locust's log."""

    def __init__(self, job: Job, folder: Path, name: str) -> None:
        self._job = job
        self._log = folder / f"{name}.log"
        self._client = Path(job.out + ".client")
        self._client.unlink(missing_ok=True)
        job_file = folder / f"{name}.job.json"
        job_file.write_text(job.to_json(), encoding="utf-8")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                _command(job, job_file),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=_environment(),
                process_group=0,
            )

    def wait(self) -> dict[str, Client]:
        """Wait for its end; return how the client fared by loop. Raises ClientError where it left nothing behind."""
        code = self._process.wait()
        try:
            fared = json.loads(self._client.read_text(encoding="utf-8"))
            return {loop: Client(**told) for loop, told in fared.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            raise ClientError(f"Locust ended with code {code} before its summary; see {self._log}") from None

    def terminate(self) -> None:
        """Ask it to stop sending and to finish; returns at once."""
        self._process.terminate()

    def stop(self) -> None:
        """End it: first asking, then not."""
        self._process.terminate()
        try:
            self._process.wait(self._job.drain + _GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run(job: Job, folder: Path, name: str) -> tuple[Trace, Trace]:
    """Run a job with saturation to its end; return what the schedule left, and what the saturation run did.

    An interruption ends Locust too.
    """
    for out in (job.out, job.saturation_out):
        Path(out).unlink(missing_ok=True)
    locust = Locust(job, folder, name)
    try:
        clients = locust.wait()
    except BaseException:
        locust.stop()
        raise
    scheduled = Trace(read(Path(job.out)), clients["open"])
    return scheduled, Trace(read(Path(job.saturation_out)), clients["saturation"])


def read(path: Path, start: int = 0) -> list[Record]:
    """Read the records of a file from byte `start`; a last line that was cut off is left out."""
    with path.open("rb") as file:
        file.seek(start)
        lines = file.read().split(b"\n")
    return [Record.from_json(line.decode()) for line in lines[:-1]]


def _command(job: Job, job_file: Path) -> list[str]:
    options = ["--headless", "--users=1", "--spawn-rate=1", "--only-summary", "--loglevel=WARNING"]
    ends = ["--exit-code-on-error=0", "--stop-timeout=0"]
    return [
        *(sys.executable, "-m", "locust", f"--locustfile={_LOCUSTFILE}", f"--host={job.gateway}"),
        *options,
        *ends,
        f"--job={job_file}",
    ]


def _environment() -> dict[str, str]:
    """Our environment without settings that change what Locust does."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
