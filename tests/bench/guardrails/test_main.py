import json

import pytest

from bench.guardrails import __main__ as bench


@pytest.fixture(autouse=True)
def fixture_results(tmp_path, monkeypatch):
    """Results of this test's own."""
    monkeypatch.setattr(bench, "_JSON", tmp_path / "guardrails.json")
    monkeypatch.setattr(bench, "_PAGE", tmp_path / "guardrails.md")
    return tmp_path


def run(*words):
    """The bench in this process."""
    return bench.main([*words, "--processes", "1"])


def test_a_case_is_written_beside_what_is_there(fixture_results, capsys):
    """Counts as JSON, tables as a page; another case leaves the first as it was."""
    run("--part", "detection", "--worse", "5", "--only", "error 100 % | 50")
    run("--part", "detection", "--worse", "4", "--only", "quality -0.1 | 50")
    kept = json.loads((fixture_results / "guardrails.json").read_text())["detection"]
    assert {key: (case["runs"], case["by"]) for key, case in kept.items()} == {
        "error 100 % | 50%": (5, {"tripwire": 5}),
        "quality -0.1 | 50%": (4, {"shadow_quality": 4}),
    }
    page = (fixture_results / "guardrails.md").read_text()
    assert "| error 100 % |  | 6 | 5 | tripwire 5 |" in page
    assert capsys.readouterr().out.endswith(page + "\n")


def test_a_quick_run_is_only_shown(fixture_results, capsys):
    """Nothing is written; cases at 5 % take too long for it."""
    run("--quick", "--only", "error 100 %")
    assert not list(fixture_results.iterdir())
    assert "| error 100 % |  | 6 | 20 | tripwire 20 |" in capsys.readouterr().out


def test_methods_are_counted_each(fixture_results):
    """One line a method, ours among them."""
    run("--part", "peers", "--beside", "2", "--only", "error +5 pp | 50")
    kept = json.loads((fixture_results / "guardrails.json").read_text())["peers"]
    assert len(kept) == 9
    assert kept["error +5 pp | 50% | Linnet"]["by"] == {"error_rate": 2}
