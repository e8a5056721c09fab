"""loadtest/cli.py, through the command line, a real Locust and simulated engines.

The control plane here is a plain HTTP server that says what a release under way says and keeps what is put.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlencode

import pytest

from canary.console import options
from canary.console.cli import run

SPEC = """
model: m
release: r-1
decision:
  goal: {{metric: domain_accuracy, text: "better"}}
  baseline: "today"
  data: {{sources: ["s"], licence: "MIT", known_bias: "none"}}
  budget: {{usd: 1, stop_loss_usd: 2, spent_before_usd: 0, opportunity: "o", risk: "r"}}
  risks: ["none"]
  evaluation: {{domain: domain.jsonl, general: general.jsonl}}
  success: {{domain_accuracy: {{min_gain: 0.01}}}}
  rollback: "back"
arms:
  baseline: {{engine: base, served_model: base, usd_per_hour: 1.0}}
  candidate: {{engine: next, served_model: next, usd_per_hour: 1.0}}
{gates}
steps:
  - {{percent: 10}}
guardrails:
  error_rate: {{max_increase: 5pp}}
"""
GATES = """
gates:
  load:
    workload: w.jsonl
    rate: 10
    duration: 1s
    max_tokens: 8
    saturation: {{in_flight: 2, duration: 500ms}}
    slo: {{ttft_p95: {slo}}}
    max_lag_p99: {lag}
"""


class Control(ThreadingHTTPServer):
    """A control plane with one release under way."""

    daemon_threads = True

    def __init__(self):
        self.kept = {}
        arms = {arm: {"engine": arm, "digest": f"d-{arm}"} for arm in ("baseline", "candidate")}
        self.split = {"release": "r-1", **arms}
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """Two routes."""

    def do_GET(self):
        """Answer the raw material of reports."""
        self.answer({"split": self.server.split})

    def do_PUT(self):
        """Keep a report."""
        path, _, self.server.asked = self.path.partition("?")
        self.server.kept[path] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer({})

    def answer(self, value):
        """Send JSON."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def control():
    """A control plane in a thread."""
    with Control() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def spec(tmp_path, monkeypatch):
    """Write a spec and its workload; the state folder is the test's own."""
    monkeypatch.setenv("LINNET_STATE", str(tmp_path / "state"))
    lines = [json.dumps({"prompt": f"prompt {n}", "slice": "domain"}) + "\n" for n in range(10)]
    (tmp_path / "w.jsonl").write_text("".join(lines))

    def write(slo="2s", lag="1s", gates=GATES):
        path = tmp_path / "spec.yaml"
        path.write_text(SPEC.format(gates=gates.format(slo=slo, lag=lag)))
        return path

    return write


@pytest.fixture
def served(simulated, control):
    """An engine in the gateway's place, and the options that lead to it."""
    engine = simulated("m", ttft_ms=10, tpot_ms=2)
    return engine, ["--url", control.url, "--gateway", engine.url]


def test_both_arms_are_run_and_the_report_is_kept(served, control, spec, capsys, tmp_path):
    """Pass is 0; the report goes to the control plane under the candidate's digest, and to the state folder."""
    code = run(["loadtest", str(spec()), *served[1], "--json"])
    said = json.loads(capsys.readouterr().out)
    (kept,) = (tmp_path / "state" / "reports").iterdir()
    report = json.loads(kept.read_text())
    assert code == 0, report["reasons"]
    assert control.kept == {"/admin/v1/models/m/reports/load/d-candidate": report}
    assert control.asked == urlencode({"actor": options.actor()})
    assert (report["verdict"], report["digest"], list(report["arms"])) == (
        "pass",
        "d-candidate",
        ["baseline", "candidate"],
    )
    assert [report["arms"][arm]["digest"] for arm in report["arms"]] == ["d-baseline", "d-candidate"]
    figures = report["arms"]["candidate"]
    assert figures["ok"] == figures["sent"] > 0
    assert 10 <= figures["ttft"]["p50"] < 100
    assert figures["capacity"]["requests"] >= 4
    assert 1 / 3 < report["cost_ratio"] < 3  # equal engines, on cores that may be anybody's
    needed = {
        "arm",
        "rate",
        "achieved",
        "lag_p99_ms",
        "ttft",
        "tpot",
        "e2e",
        "goodput",
        "capacity",
        "usd_per_million_tokens",
        "verdict",
        "valid",
    }
    assert needed <= set(said)


def test_the_line_of_an_arm_tells_its_capacity_and_its_cost(served, control, spec, capsys):
    """Tokens a second at capacity, and USD per million of them at 1 USD/h."""
    assert run(["loadtest", str(spec()), *served[1], "--arm", "candidate", "--duration", "500ms"]) == 0
    said = capsys.readouterr().out
    (report,) = control.kept.values()
    figures = report["arms"]["candidate"]
    per_second, cost = figures["capacity"]["completion_tokens_per_s"], figures["usd_per_million_tokens"]
    assert f"{per_second:.1f} token/s at capacity | {cost:.4g} USD/million" in said
    assert cost == pytest.approx(1e6 / 3600 / per_second, rel=0.01)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({"slo": "1ms"}, (1, "fail: candidate: ttft_p95")), ({"lag": "0ms"}, (3, "invalid: candidate: lag p99"))],
)
def test_fail_and_invalid_have_codes_of_their_own(served, spec, capsys, limits, expected):
    """1 for a candidate that is too slow, 3 for a client that was."""
    engine, options = served
    more = ["--arm", "candidate", "--rate", "20", "--duration", "500ms"]
    code, words = expected
    assert run(["loadtest", str(spec(**limits)), *options, *more]) == code
    assert words in capsys.readouterr().out
    assert engine.last["headers"]["x-linnet-arm"] == "candidate"


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        ("shadow: {{percent: 5}}", "gates"),
        ("gates: {{load: {{workload: none.jsonl}}}}", "the workload cannot be read"),
    ],
)
def test_a_spec_that_cannot_be_run_is_one_line(control, spec, capsys, gates, words):
    """Before anything is sent."""
    assert run(["loadtest", str(spec(gates=gates)), "--url", control.url]) == 2
    errors = capsys.readouterr().err
    assert words in errors
    assert errors.count("\n") == 1


def test_without_a_release_or_a_control_plane_nothing_is_sent(control, spec, capsys, monkeypatch):
    """Refused is 1, not reachable is 3."""
    monkeypatch.setattr("loadtest.cli._PUBLISHED_S", 0.1)
    other = control.split | {"release": "r-0"}
    for split, words in ((None, "no release is under way"), (other, "under way is r-0")):
        control.split = split
        assert run(["loadtest", str(spec()), "--url", control.url]) == 1
        assert words in capsys.readouterr().err
    assert run(["loadtest", str(spec()), "--url", "http://127.0.0.1:1"]) == 3
    assert "control plane" in capsys.readouterr().err


def test_a_gateway_that_does_not_answer_fails_the_candidate(control, spec, capsys):
    """Every request broke, and the report says how."""
    options = ["--url", control.url, "--gateway", "http://127.0.0.1:1", "--duration", "500ms", "--arm", "candidate"]
    assert run(["loadtest", str(spec()), *options]) == 1
    assert "requests failed" in capsys.readouterr().out
    (report,) = control.kept.values()
    assert "the connection broke" in str(report["arms"]["candidate"]["errors"])
