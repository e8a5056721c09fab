"""loadtest/traffic.py, through a real Locust."""

import json
import signal
import subprocess
import sys
import time

import pytest

from loadtest.records import Record
from loadtest.traffic import main, summary


@pytest.fixture
def workload(tmp_path):
    """Ten prompts."""
    path = tmp_path / "w.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"prompt {n}", "slice": "general"}) + "\n" for n in range(10)))
    return path


def start(url, workload, *more):
    """Start traffic as a process."""
    command = [sys.executable, "-m", "loadtest.traffic", f"--gateway={url}", "--model=base", f"--workload={workload}"]
    return subprocess.Popen([*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_traffic_runs_until_it_is_told_to_stop(simulated, workload, tmp_path):
    """One line a request, a clean end on SIGTERM, one line of summary, nothing left running on the engine."""
    engine, out = simulated(ttft_ms=20, tpot_ms=2), tmp_path / "deep" / "out.jsonl"
    with start(engine.url, workload, "--rate=20", f"--out={out}", "--max-tokens=8") as process:
        deadline = time.monotonic() + 20
        while engine.counts["finished"] < 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=15)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert (process.returncode, errors) == (0, "")
    assert said == f"sent {len(records)}, ok {len(records)}, failed 0\n"
    assert len(records) >= 10
    needed = {"unix", "arm", "slice", "status", "ok", "ttft_ms", "tpot_ms", "e2e_ms", "tokens", "error"}
    assert needed <= set(records[0])
    assert records[0]["slice"] == "general"
    assert abs(records[0]["unix"] - time.time()) < 60
    assert engine.counts["running"] == 0


def test_traffic_ends_by_itself_and_tells_failures_by_arm(simulated, workload, tmp_path):
    """A second run appends to the file and sums up only its own requests."""
    engine, out = simulated(error_rate=1), tmp_path / "out.jsonl"
    out.write_text(Record(1.0, 1.0, ok=True).to_json() + "\n")
    with start(engine.url, workload, "--rate=20", "--duration=0.5", f"--out={out}") as process:
        said, _ = process.communicate(timeout=20)
    count = len(out.read_text().splitlines()) - 1
    assert said == f"sent {count}, ok 0, failed {count} (no arm {count})\n"


def test_no_users_are_left_when_traffic_is_killed(simulated, workload):
    """Locust sees within a second or so that nobody started it any more."""
    engine = simulated(ttft_ms=20, tpot_ms=2)
    with start(engine.url, workload, "--rate=20") as process:
        deadline = time.monotonic() + 20
        while not engine.counts["started"] and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    time.sleep(1.5)
    before = engine.counts["started"]
    time.sleep(0.5)
    assert engine.counts["started"] == before


def test_the_summary_names_the_arms():
    """What was not sent is not counted as sent."""
    records = [Record(1, 1, arm="baseline", ok=True), Record(1, 1, arm="candidate"), Record(1, 1, sent=False)]
    assert summary(records) == "sent 2, ok 1, failed 1 (candidate 1)"


def test_a_missing_workload_is_one_line(capsys, tmp_path):
    """Before anything is started."""
    code = main(["--gateway=http://127.0.0.1:1", "--model=m", f"--workload={tmp_path / 'none'}", "--rate=1"])
    assert code == 2
    assert capsys.readouterr().err.count("\n") == 1
