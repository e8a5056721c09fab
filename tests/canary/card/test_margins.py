"""The guardrails of a spec: every kind of margin, weights, strictness, and what is assumed of the machines."""

from __future__ import annotations

import pytest

from canary.card.margins import Guardrails
from canary.card.spec import SpecError, parse
from canary.core.finding import OnBreach
from canary.core.policy import Guard
from canary.core.signals import NOISE, SIGNALS
from tests.canary.specs import SPEC, changed


def policy(*lines: str, analysis: str = ""):
    """Return the policy of the test's spec with further guardrails."""
    return parse(f"{analysis}{SPEC}" + "".join(f"  {line}\n" for line in lines)).policy()


def fault(*lines: str, analysis: str = "") -> str:
    """Return the one line that is wrong."""
    with pytest.raises(SpecError) as caught:
        policy(*lines, analysis=analysis)
    (found,) = caught.value.lines
    return found


def test_every_signal_can_be_named_and_no_other() -> None:
    """The spec's keys are the table's."""
    assert set(Guardrails.model_fields) == set(SIGNALS)


@pytest.mark.parametrize(
    ("line", "guard"),
    [
        ("refusal: {max_increase: 1pp}", Guard("refusal", 0.01)),
        ("malformed: {max_increase: 1pp, slices: [domain]}", Guard("malformed", 0.01, ("domain",))),
        ("repetition: {max_increase: 2pp, weight: 0.2}", Guard("repetition", 0.02, weight=0.2)),
        ("stall_p99: {max_ratio: 1.5, strict: true}", Guard("stall_p99", 1.5, strict=True)),
        ("e2e_p95: {max_ratio: 1.2}", Guard("e2e_p95", 1.2, on_breach=OnBreach.WARN)),
        ("e2e_p95: {max_ratio: 1.2, on_breach: rollback, weight: 0.1}", Guard("e2e_p95", 1.2, weight=0.1)),
        ("output_length: {max_ratio: 1.25}", Guard("output_length", 1.25)),
        ("error_rate_limit: {max: 2%}", Guard("error_rate_limit", 0.02)),
        ("error_rate_limit: {max: 2pp}", Guard("error_rate_limit", 0.02)),
        ("ttft_p95_limit: {max: 800ms}", Guard("ttft_p95_limit", 0.8)),
        ("ttft_p99_limit: {max: 2s}", Guard("ttft_p99_limit", 2.0)),
        ("tpot_p95_limit: {max: 60ms, on_breach: pause}", Guard("tpot_p95_limit", 0.06, on_breach=OnBreach.PAUSE)),
    ],
)
def test_each_guardrail_reaches_the_statistics_in_its_unit(line: str, guard: Guard) -> None:
    """Rates as parts of one, times in seconds, ratios as they are."""
    assert policy(line).guards[1] == guard


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("e2e_p95: {max_ratio: 1.2, on_breach: rollback}", "cannot roll back without a weight; add weight: 0.05"),
        ("output_length: {max_ratio: 0.9}", "guardrails.output_length.max_ratio: Input should be greater than 1"),
        ("error_rate_limit: {max: 0.02}", "0.02 is no rate; write one such as 2%"),
        ("error_rate_limit: {max: 100%}", "guardrails.error_rate_limit.max: Input should be less than 1"),
        ("ttft_p95_limit: {max: 800}", "800 is no duration; write one such as 500ms"),
        ("ttft_p95_limit: {max: 0s}", "guardrails.ttft_p95_limit.max: Input should be greater than 0"),
        ("refusal: {max_increase: 1pp, weight: 0}", "guardrails.refusal.weight: Input should be greater than 0"),
        ("refusal: {max_increase: 1pp, strict: yes please}", "guardrails.refusal.strict"),
    ],
)
def test_what_cannot_be_held_is_one_line(line: str, said: str) -> None:
    """The line of the file, what is wrong, the mend."""
    found = fault(line)
    assert found.startswith("spec:24: ")
    assert said in found


def test_what_is_assumed_of_machines_can_be_said() -> None:
    """Own noise by latency, warm-up and load; the defaults are the statistics' own."""
    plain = parse(SPEC)
    assert (plain.policy().noise, plain.policy().max_load_ratio, plain.plan().warm_up) == (dict(NOISE), 4.0, 60.0)
    said = "analysis: {own_noise: {ttft: 0, tpot: 0.05}, warm_up: 5s, max_load_ratio: 2}\n"
    spec = parse(said + SPEC)
    assert (spec.policy().noise, spec.policy().max_load_ratio) == ({"ttft": 0.0, "tpot": 0.05}, 2.0)
    assert spec.plan().warm_up == 5.0
    assert parse("analysis: {own_noise: {ttft: 0.3}}\n" + SPEC).policy().noise["tpot"] == NOISE["tpot"]


@pytest.mark.parametrize(
    ("analysis", "said"),
    [
        ("{own_noise: {ttft: -1}}", "analysis.own_noise.ttft: Input should be greater than or equal to 0"),
        ("{own_noise: 0.1}", "analysis.own_noise"),
        ("{warm_up: 60}", "60 is no duration"),
        ("{max_load_ratio: 1}", "analysis.max_load_ratio: Input should be greater than 1"),
    ],
)
def test_an_impossible_assumption_is_one_line(analysis: str, said: str) -> None:
    """As every other fault of a spec."""
    assert said in fault(analysis=f"analysis: {analysis}\n")


def test_only_what_a_guardrail_asks_for_is_examined() -> None:
    """Answers are searched for a flaw where a guardrail holds it, and not otherwise."""
    assert parse(SPEC).plan().examined == ()
    text = SPEC + "  repetition: {max_increase: 1pp}\n  refusal: {max_increase: 1pp}\n"
    assert parse(text).plan().examined == ("refusal", "repetition")


CONTROL = "  candidate: {engine: new, served_model: new, usd_per_hour: 0.2}\n"


@pytest.mark.parametrize(
    ("control", "said"),
    [
        ("{}", "the control is nowhere; give it an engine, or replicas"),
        ("{engine: base}", "the control is the baseline's engine base; give it one of its own"),
        ("{engine: new}", "the control is the candidate's engine new; give it one of its own"),
        ("{replicas: [nowhere]}", "arms.control.replicas.0"),
        ("{engine: spare, price: 1}", "arms.control.price is unknown"),
    ],
)
def test_a_control_that_is_none_is_one_line(control: str, said: str) -> None:
    """It has replicas of its own, and is told so."""
    with pytest.raises(SpecError) as caught:
        parse(changed(CONTROL, f"{CONTROL}  control: {control}\n"))
    assert len(caught.value.lines) == 1
    assert said in str(caught.value)


def test_a_control_is_the_baselines_model_under_a_name_of_its_own() -> None:
    """Replicas alone suffice: what they serve is the baseline's."""
    spec = parse(changed(CONTROL, f'{CONTROL}  control: {{replicas: ["http://127.0.0.1:9"]}}\n'))
    arm = spec.arms.control_arm
    assert arm is not None
    assert (arm.engine, arm.served_model, arm.replicas) == ("base-control", "base", ("http://127.0.0.1:9",))
    assert parse(SPEC).arms.control_arm is None
