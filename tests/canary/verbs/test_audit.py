"""`linnet audit`, over HTTP and straight to the store: what is listed, exported and verified."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from redis import Redis

from canary.console import cli
from canary.console.client import connect
from canary.storage import keys
from tests.canary.specs import changed

PLACED = changed("engine: base,", "engine: base, replicas: ['http://127.0.0.1:8101'], digest: 'sha256:aa',")
PLACED = changed("engine: new,", "engine: new, replicas: ['http://127.0.0.1:8102'], digest: 'sha256:bb',", PLACED)


@pytest.fixture(params=["control plane", "store"])
def way(request, control_url, valkey_url) -> tuple[str, str]:
    """Both ways: every verb must work on each."""
    return ("--url", control_url) if request.param == "control plane" else ("--store", valkey_url)


@pytest.fixture
def run(capsys, monkeypatch):
    """Run a verb: exit code, standard output, standard error."""
    monkeypatch.delenv("LINNET_ADMIN_KEY", raising=False)

    def call(*words: str) -> tuple[int, str, str]:
        code = cli.run(words)
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def told(run, way, tmp_path) -> tuple[str, str]:
    """An audit of four entries; the way to it."""
    (tmp_path / "r.yaml").write_text(PLACED)
    assert run("start", str(tmp_path / "r.yaml"), "--reason", "november", *way)[0] == 0
    for verb in ("pause", "resume", "abort"):
        assert run(verb, "--reason", f"to {verb}", *way)[0] == 0
    return way


@pytest.fixture
def redis(valkey_url) -> Redis:
    """The forger's own way to the store."""
    with Redis.from_url(valkey_url, decode_responses=True) as client:
        yield client


def test_the_list_names_number_model_and_way(run, told) -> None:
    """A glance, with the way a change went."""
    code, out, _ = run("audit", *told)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["seq", "1", "2", "3", "4"]
    assert "start: draft 0 %" in out
    assert "abort: draft 0 % → aborted 0 %" in out


def test_json_has_the_chain_beside_what_it_had(run, told) -> None:
    """The shape is as it was."""
    entries = json.loads(run("audit", "--json", "--count", "2", *told)[1])
    assert [entry["seq"] for entry in entries] == ["3", "4"]
    assert entries[0].keys() >= {"id", "who", "what", "why", "before", "after", "generation", "evidence", "unix_ms"}
    assert [len(entry["chain"]) for entry in entries] == [64, 64]


def test_a_whole_audit_is_one_line(run, told) -> None:
    """What was checked, and the head to keep elsewhere."""
    code, out, err = run("audit", "--verify", *told)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert out.startswith("whole: seq 1 to 4, head ")
    found = json.loads(run("audit", "--verify", "--json", *told)[1])
    assert (found["whole"], found["first"], found["last"]) == (True, 1, 4)


def test_a_gates_report_is_in_the_chain_of_an_older_audit(run, told, tmp_path, redis) -> None:
    """Whichever way it was put there, by whom and of what; an altered verdict shows, and an earlier export holds."""
    file = str(tmp_path / "audit.jsonl")
    assert run("audit", "--export", file, *told)[0] == 0
    client = connect(*((told[1], None) if told[0] == "--url" else ("", told[1])))
    client.put_report("m", "eval", "sha256:bb", {"verdict": "fail"}, "ci@host")
    assert run("audit", "--verify", *told)[1].startswith("whole: seq 1 to 5, head ")
    assert run("audit", "--verify", file, *told)[0] == 0
    entry = json.loads(run("audit", "--json", *told)[1])[-1]
    assert (entry["who"], entry["what"], entry["model"]) == ("ci@host", "eval report: fail", "m")
    assert json.loads(entry["evidence"])["digest"] == "sha256:bb"
    assert "eval report: fail" in run("audit", *told)[1]
    assert "eval report" not in run("history", *told)[1]
    key, fields = redis.xrange(keys.AUDIT)[-1]
    redis.xdel(keys.AUDIT, key)
    redis.xadd(keys.AUDIT, {**fields, "what": "eval report: pass"})
    assert "not whole: altered at seq 5" in run("audit", "--verify", *told)[2]


def test_an_empty_audit_is_whole(run, way) -> None:
    """Nothing is said of what was never written."""
    assert run("audit", "--verify", *way)[:2] == (0, "no entry is chained yet\n")
    assert run("audit", "--export", "-", *way)[:2] == (0, "")


def test_a_missing_entry_shows(run, told, redis) -> None:
    """Exit code 1, one line, and the place."""
    redis.xdel(keys.AUDIT, redis.xrange(keys.AUDIT)[1][0])
    code, out, err = run("audit", "--verify", *told)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "not whole: seq 2 is missing" in err
    assert json.loads(run("audit", "--verify", "--json", *told)[1])["whole"] is False


def test_an_altered_entry_shows(run, told, redis) -> None:
    """The whole stream written anew with one word changed."""
    entries = redis.xrange(keys.AUDIT)
    redis.delete(keys.AUDIT)
    for key, fields in entries:
        redis.xadd(keys.AUDIT, {**fields, "who": "eve"} if fields["seq"] == "3" else fields, id=key)
    assert "not whole: altered at seq 3 (eve resume)" in run("audit", "--verify", *told)[2]


def test_an_export_is_json_lines_that_verify(run, told, tmp_path) -> None:
    """In a file or on standard output; by itself and against the store."""
    file = str(tmp_path / "audit.jsonl")
    code, out, _ = run("audit", "--export", file, *told)
    assert (code, out.startswith(f"{file}: 4 entries; whole: seq 1 to 4")) == (0, True)
    assert run("audit", "--export", "-", *told)[1] == Path(file).read_text()
    run("retry", "--reason", "again", *told)
    assert run("audit", "--verify", file, *told)[1].startswith("whole: seq 1 to 5, head ")
    assert run("audit", "--verify", file, "--offline")[1].startswith(f"{file}: whole: seq 1 to 4, head ")


def test_a_trimmed_audit_needs_the_export_that_has_the_rest(run, told, redis, tmp_path) -> None:
    """Its last line is enough."""
    file = tmp_path / "audit.jsonl"
    run("audit", "--export", str(file), *told)
    redis.xtrim(keys.AUDIT, maxlen=1, approximate=False)
    assert "give the export that has them" in run("audit", "--verify", *told)[2]
    file.write_text(file.read_text().splitlines()[2] + "\n")
    assert run("audit", "--verify", str(file), *told)[1].startswith("whole: seq 3 to 4, head ")
    assert run("audit", *told)[0] == 0


def test_a_changed_export_shows(run, told, tmp_path) -> None:
    """With the store and without."""
    file = tmp_path / "audit.jsonl"
    run("audit", "--export", str(file), *told)
    file.write_text(file.read_text().replace("to pause", "to paus3"))
    assert "altered at seq 2" in run("audit", "--verify", str(file), "--offline")[2]
    assert "the export: altered at seq 2" in run("audit", "--verify", str(file), *told)[2]


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
def test_anybody_can_follow_the_chain_with_plain_tools(run, told, tmp_path) -> None:
    """As the reference shows: jq and sha256sum."""
    file = tmp_path / "audit.jsonl"
    run("audit", "--export", str(file), *told)
    reference = Path("docs/reference.md").read_text()
    script = reference.split("```sh\n# follow the chain\n")[1].split("```")[0]
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "2", "3", "4"]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--export", "x", "--verify"), "two things"),
        (("x.jsonl",), "add --verify"),
        (("--offline",), "add --verify"),
        (("--verify", "--offline"), "name it"),
        (("--verify", "/nowhere/x.jsonl"), "cannot be read"),
        (("--export", "/nowhere/x.jsonl"), "cannot be written"),
    ],
)
def test_wrong_usage_is_one_line(run, way, words, said) -> None:
    """Exit code 2 and the mend."""
    code, out, err = run("audit", *words, *(() if "--offline" in words else way))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_what_is_no_export_is_named_with_its_line(run, way, tmp_path) -> None:
    """Before anything is asked of the store."""
    (tmp_path / "x.jsonl").write_text("{}\nnonsense\n")
    assert "line 2 is not JSON" in run("audit", "--verify", str(tmp_path / "x.jsonl"), *way)[2]


@pytest.mark.parametrize("offline", [(), ("--offline",)])
def test_an_empty_export_proves_nothing(run, way, tmp_path, offline) -> None:
    """A file that was cut to nothing is not taken for a whole one."""
    (tmp_path / "x.jsonl").touch()
    code, out, err = run("audit", "--verify", *offline, str(tmp_path / "x.jsonl"), *(() if offline else way))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "proves nothing" in err
