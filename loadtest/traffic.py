"""`python -m loadtest.traffic`: unforced user traffic for a demonstration, through the load test's own users.

Each request is a session of its own and goes to whichever arm the gateway chooses. One JSON line a request is
appended to --out (see loadtest.records.Record). SIGTERM or Ctrl-C stops sending, lets answers finish for 5 s, and
prints one line.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from uuid import uuid4

from loadtest.errors import LoadTestError
from loadtest.records import Job, Record
from loadtest.runner import Locust, read
from loadtest.schedule import load_workload


def main(arguments: Sequence[str] | None = None) -> int:
    """Send until told to stop, or for --duration seconds; return the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        load_workload(asked.workload)
        with tempfile.TemporaryDirectory(prefix="linnet-traffic-") as folder:
            sys.stdout.write(_run(asked, Path(folder)) + "\n")
    except LoadTestError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


def summary(records: Iterable[Record]) -> str:
    """Say in one line how many requests were sent, were good, and failed by arm."""
    sent = [record for record in records if record.sent]
    failed = Counter(record.arm or "no arm" for record in sent if not record.ok)
    by_arm = ", ".join(f"{arm} {count}" for arm, count in sorted(failed.items()))
    count = failed.total()
    return f"sent {len(sent)}, ok {len(sent) - count}, failed {count}" + (f" ({by_arm})" if by_arm else "")


def _run(asked: argparse.Namespace, folder: Path) -> str:
    out = asked.out or folder / "records.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.touch()
    start = out.stat().st_size
    locust = Locust(_job(asked, out), folder, "traffic")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: locust.terminate())
    try:
        locust.wait()
    except BaseException:
        locust.stop()
        raise
    return summary(read(out, start))


def _job(asked: argparse.Namespace, out: Path) -> Job:
    return Job(
        gateway=asked.gateway,
        model=asked.model,
        workload=str(asked.workload.resolve()),
        out=str(out.resolve()),
        rate=asked.rate,
        duration=asked.duration,
        max_tokens=asked.max_tokens,
        session=uuid4().hex,
        seed=asked.seed,
    )


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < float("inf"):
        raise ValueError
    return rate


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m loadtest.traffic", description=__doc__)
    parser.add_argument("--gateway", required=True, help="http://HOST:PORT")
    parser.add_argument("--model", required=True, help="the public model name")
    parser.add_argument("--workload", required=True, type=Path, help='JSON lines of {"prompt", "slice"}')
    parser.add_argument("--rate", required=True, type=_rate, help="requests per second")
    parser.add_argument("--duration", type=_rate, help="seconds; without it, until SIGTERM")
    parser.add_argument("--max-tokens", type=int, default=24)
    parser.add_argument("--out", type=Path, help="append one JSON line a request here")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
