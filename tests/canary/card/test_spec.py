"""The release spec: what it means, and how it says what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from canary.card.spec import SpecError, load, parse
from canary.core.finding import OnBreach
from canary.core.plan import ShadowPlan, Step
from canary.core.policy import Guard
from tests.canary.specs import SPEC, changed

BOMB = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 6))


GATES = "gates:\n  load: {workload: prompts.jsonl, slo: {ttft_p95: 500ms}}\n"


def faults(text: str) -> tuple[str, ...]:
    """Return the lines of the error."""
    with pytest.raises(SpecError) as caught:
        parse(text, "r.yaml")
    return caught.value.lines


def test_a_good_spec_becomes_plan_and_policy() -> None:
    """Durations are seconds, points are differences, defaults are filled in."""
    spec = parse(SPEC, "/somewhere/r.yaml")
    assert spec.plan().steps == (Step(5, 2, 20), Step(50, 2, 50))
    assert spec.plan().shadow == ShadowPlan(20, 30, 4, 0)
    assert spec.plan().gates == ("load",)
    assert (spec.plan().bake.duration, spec.plan().bake.percent) == (2, 95)
    assert (spec.plan().money.stop_loss, spec.plan().money.spent_before) == (8, 1)
    assert spec.policy().guards == (Guard("error_rate", 0.05),)
    assert spec.policy().min_samples == 50
    assert spec.slices == ("domain",)
    assert spec.resolve("prompts.jsonl") == Path("/somewhere/prompts.jsonl")
    assert spec.text == SPEC


def test_guardrails_carry_slices_and_what_a_breach_does() -> None:
    """Each kind of margin reaches the statistics in its own unit."""
    text = SPEC + "  ttft_p95: {max_ratio: 1.1, on_breach: pause}\n"
    text += "  shadow_quality: {min_difference: -0.02, slices: [domain, law]}\n"
    guards = parse(text).policy().guards
    assert guards[1] == Guard("ttft_p95", 1.1, on_breach=OnBreach.PAUSE)
    assert guards[2] == Guard("shadow_quality", -0.02, ("domain", "law"))
    assert parse(text).slices == ("domain", "law")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("release: r1", "relaese: r1", "r.yaml:2: relaese is unknown; did you mean release?"),
        ("min_samples: 20}", "min_sample: 20}", "r.yaml:19: steps.0.min_sample is unknown; did you mean min_samples?"),
        ("min_pairs: 30", "pears: 30", "r.yaml:17: shadow.pears is unknown; take it out, or use one of percent"),
        ("  error_rate:", "  eror_rate:", "r.yaml:23: guardrails.eror_rate is unknown; did you mean error_rate?"),
        ("max_increase: 5pp", "max_incrase: 5pp", "guardrails.error_rate.max_incrase is unknown; did you mean"),
        ('  rollback: "to the general model"\n', "", "r.yaml:3: decision.rollback is missing; add it"),
        ("usd: 5,", "usd: five,", "r.yaml:7: decision.budget.usd: Input should be a valid number, not 'five'"),
        ("bake: {duration: 2s}", "bake: {duration: 2}", "bake.duration: 2 is no duration; write one such as 500ms"),
        ("5pp", "5%", "'5%' is no difference in percentage points; write one such as 0.5pp"),
        ("{percent: 5,", "{percent: 105,", "steps.0.percent: Input should be less than or equal to 100, not 105"),
        ("{percent: 5,", "{percent: 60,", "r.yaml:20: 50 % does not grow after 60 %; order the steps"),
        ("{percent: 50,", "{percent: 96,", "r.yaml:20: 96 % is more than the bake's 95 %"),
        ("engine: new", "engine: base", "r.yaml:14: both arms are engine base"),
        ("stop_loss_usd: 8", "stop_loss_usd: 4", "r.yaml:7: the stop loss 4 is below the budget 5"),
        ("spent_before_usd: 1", "spent_before_usd: 9", "9 USD were spent before"),
        (
            "usd_per_hour: 0.2",
            "usd_per_hour: 0.2, usd_per_million_tokens: {prompt: 1, completion: 2}",
            "the candidate would be paid twice",
        ),
        (
            "  error_rate: {max_increase: 5pp}",
            "  error_rate: {max_increase: 5pp, on_breach: warn}",
            "no guardrail rolls",
        ),
        ("model: m\n", "model: m\nmodel: n\n", "r.yaml:2: model is given twice; keep one"),
        ("model: m\n", "model: 'm|x'\n", "r.yaml:1: model: String should match pattern"),
    ],
)
def test_each_fault_is_one_line_with_place_and_mend(old, new, line) -> None:
    """File and line, what is wrong, what to do."""
    (found,) = faults(changed(old, new))
    assert found.startswith("r.yaml:")
    assert line in found
    assert ";" in found or "?" in found
    assert "\n" not in found


def test_all_faults_are_told_at_once() -> None:
    """Nobody mends a spec one error at a time."""
    text = changed("release: r1", "relaese: r1", changed("usd: 5,", "usd: five,"))
    assert len(faults(text)) == 2


@pytest.mark.parametrize("field", ["goal", "baseline", "data", "budget", "risks", "evaluation", "success", "rollback"])
def test_the_cards_eight_fields_are_required(field) -> None:
    """A card with a hole is no card."""
    lines = [line for line in SPEC.splitlines() if not line.startswith(f"  {field}: ") or "engine" in line]
    assert any(f"decision.{field} is missing" in fault for fault in faults("\n".join(lines)))


def test_no_release_without_a_load_gate() -> None:
    """What an answer costs is proved before anything goes live: a spec that leaves the gate out is refused."""
    assert "gates is missing" in faults(changed(GATES, ""))[0]
    assert "gates.load is missing" in faults(changed(GATES, "gates: {eval: {passages: 20}}\n"))[0]


def test_guards_need_what_feeds_them() -> None:
    """A quality without a shadow would be unknown for ever."""
    text = changed("shadow: {percent: 20, min_pairs: 30}\n", "")
    quality = faults(text + "  shadow_quality: {min_difference: -0.02}\n")
    assert "add shadow" in quality[0]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no mapping"),
        ("- a", "no mapping"),
        ("a: [1", "r.yaml:1: not YAML"),
        ("a: {b: 1\nc: 2", "not YAML"),
        ("[" * 5000, "flatten|not YAML"),
        (BOMB, "values"),
        ("x" * 300_000, "longer than"),
        ("a: !!python/name:os.system x", "not YAML"),
        ("a: \x1f", "not YAML"),
    ],
)
def test_what_is_no_spec_is_one_line_too(text, word) -> None:
    """Neither broken YAML nor a bomb gets further."""
    found = faults(text)
    assert any(part in found[0] for part in word.split("|"))
    assert len(found) == 1


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """The path stands in the message."""
    with pytest.raises(SpecError, match=r"absent\.yaml:1: cannot be read"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="not UTF-8"):
        load(tmp_path / "binary.yaml")


def test_freeze_windows_know_their_time_zone() -> None:
    """The same moment, whatever the zone; a window without one is refused."""
    text = SPEC + 'freeze:\n  - {from: 2026-12-24T00:00:00+01:00, to: 2026-12-24T02:00:00+01:00, reason: "Christmas"}\n'
    spec = parse(text)
    moment = 1_798_068_600  # 2026-12-23T23:30:00Z
    assert "Christmas" in spec.frozen_at(moment)
    assert spec.frozen_at(moment + 7200) == ""
    assert "timezone" in faults(text.replace("+01:00", ""))[0]


def test_saturation_has_defaults_and_limits() -> None:
    """Eight users for eight seconds unless said otherwise; nobody, or no time, measures nothing."""
    gate = parse(SPEC, "r.yaml").gates.load
    assert gate is not None
    assert (gate.saturation.in_flight, gate.saturation.duration) == (8, 8.0)
    for given in ("{in_flight: 0}", "{duration: 0s}", "{users: 8}", "8"):
        (fault,) = faults(changed("workload: prompts.jsonl", f"workload: prompts.jsonl, saturation: {given}"))
        assert "gates.load.saturation" in fault
