import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canary.core.arms import Arm
from canary.core.finding import Finding, OnBreach, Verdict
from canary.core.guardrails import Analysis, StageEvidence, look
from canary.core.ledger import Ledger
from canary.core.outcome import Outcome, Result
from canary.core.policy import Guard, GuardError, Policy
from canary.core.tally import Tally, merged, parse

ERRORS = Policy((Guard("error_rate", 0.05),), min_samples=50)
FAMILY = Policy(
    (
        Guard("error_rate", 0.05),
        Guard("ttft_p95", 1.5),
        Guard("tpot_p95", 1.5),
        Guard("cost_per_token", 1.2),
        Guard("shadow_quality", -0.1, slices=("", "legal")),
    ),
    min_samples=50,
)


def arm(done: int, **counts: int) -> Tally:
    """An arm with `done` completed requests and other counts."""
    return Tally({"done": done, "ok": done, **counts})


def stage(candidate: Tally, baseline: Tally, share: float = 0.5, number: int = 1) -> StageEvidence:
    """One stage of both arms."""
    return StageEvidence(number, share, {("candidate", ""): candidate, ("baseline", ""): baseline})


def once(policy: Policy, *stages: StageEvidence, analysis: Analysis | None = None) -> tuple[Analysis, Finding]:
    """Look once; return the first finding."""
    after, findings = look(analysis or Analysis.initial(), policy, stages, now=0.0)
    return after, findings[0]


GOOD = stage(arm(300), arm(300))
BAD = stage(arm(160, error=12), arm(164, error=1))
EMPTY = stage(Tally(), Tally())


def test_without_data_nothing_is_known() -> None:
    """No stage, or an arm without an answer, is unknown and never a pass."""
    for stages in ((), (EMPTY,), (stage(arm(100), Tally()),)):
        _, finding = once(ERRORS, *stages)
        assert (finding.verdict, finding.evidence) == (Verdict.UNKNOWN, None)
    assert finding.reason == "error_rate: no completed request of the baseline yet"


def test_harm_fails_with_its_numbers() -> None:
    """A proved breach says rates, margin and evidence in one line."""
    _, finding = once(Policy((Guard("error_rate", 0.005),)), stage(arm(160, error=24), arm(164, error=1)))
    assert finding.verdict is Verdict.FAIL
    assert finding.reason == (
        "error_rate 24/160 (15.0%) against 1/164 (0.6%), +14.4 pp > +0.5 pp allowed; evidence e^11.0 over e^4.8"
    )
    assert (finding.n, finding.margin) == (160, 0.005)


def test_six_errors_need_no_smallest_sample_to_fail() -> None:
    """A smallest sample protects a pass; harm may be proved sooner."""
    _, finding = once(ERRORS, stage(arm(9, error=9), arm(160), share=0.05))
    assert finding.verdict is Verdict.FAIL


def test_no_worse_passes_once_it_is_proved() -> None:
    """Enough quiet requests prove the margin."""
    _, finding = once(ERRORS, GOOD)
    assert finding.verdict is Verdict.PASS
    assert "within the margin by evidence" in finding.reason


def test_a_pass_waits_for_the_smallest_sample() -> None:
    """However strong the evidence, a sample below the minimum is inconclusive and says what is missing."""
    _, finding = once(replace(ERRORS, min_samples=301), GOOD)
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert finding.reason.endswith("; needs 301 completed requests an arm, has 300 and 300")


def test_what_is_not_proved_says_how_far_it_is() -> None:
    """Between pass and fail both evidences stand against their thresholds."""
    _, finding = once(ERRORS, stage(arm(60, error=2), arm(60, error=1)))
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "not yet proved: against it e^" in finding.reason


def test_worse_but_within_the_margin_does_not_fail() -> None:
    """A difference beyond doubt, but allowed, is no breach."""
    _, finding = once(Policy((Guard("error_rate", 0.2),)), stage(arm(10**4, error=500), arm(10**4, error=100)))
    assert finding.verdict is not Verdict.FAIL
    assert finding.evidence is not None
    assert finding.threshold is not None
    assert finding.evidence > finding.threshold


def test_a_failure_absorbs() -> None:
    """Once proved, harm stays proved, whatever comes: the same finding, word for word."""
    failed, first = once(ERRORS, stage(arm(160, error=40), arm(164, error=1)))
    for later in (stage(arm(10**6, error=40), arm(10**6, error=40)), EMPTY):
        failed, finding = once(ERRORS, later, analysis=failed)
        assert finding == first


def test_a_pass_stays_until_a_failure() -> None:
    """A pass does not flap when the evidence weakens, yields to a proved breach, and to sums gone wrong."""
    passed, first = once(ERRORS, GOOD)
    weaker, finding = once(ERRORS, stage(arm(320, error=12), arm(320, error=9)), analysis=passed)
    assert (first.verdict, finding.verdict) == (Verdict.PASS, Verdict.PASS)
    assert "passed at n = 300" in finding.reason
    _, unknown = once(ERRORS, stage(arm(320, error=-1), arm(320)), analysis=weaker)
    assert unknown.verdict is Verdict.UNKNOWN
    _, finding = once(ERRORS, stage(arm(400, error=80), arm(400, error=9)), analysis=weaker)
    assert finding.verdict is Verdict.FAIL


def two(error: int) -> Tally:
    """As many errors as empty answers, of 150."""
    return arm(150, error=error, empty=error)


def test_the_family_fails_where_each_alone_falls_short() -> None:
    """Two guardrails just below their own thresholds prove harm together; the larger is named."""
    guards = (Guard("error_rate", 0.005), Guard("empty", 0.005))
    errors = next(
        n for n in range(1, 60) if look_once(Policy(guards), stage(two(n), arm(150)))[0].verdict is Verdict.FAIL
    )
    findings = look_once(Policy(guards), stage(two(errors), arm(150)))
    assert [finding.verdict for finding in findings[:2]] == [Verdict.FAIL, Verdict.INCONCLUSIVE]
    assert "evidence of all guardrails e^" in findings[0].reason
    assert findings[0].threshold is not None
    assert findings[0].evidence is not None
    assert findings[0].evidence < findings[0].threshold


def look_once(policy: Policy, *stages: StageEvidence) -> tuple[Finding, ...]:
    """Look for the first time."""
    return look(Analysis.initial(), policy, stages, now=0.0)[1]


def test_a_guardrail_that_only_warns_rolls_nothing_back() -> None:
    """The family's rule sums what may roll back; a warning stands alone."""
    guards = (Guard("error_rate", 0.005, on_breach=OnBreach.WARN), Guard("empty", 0.005, on_breach=OnBreach.WARN))
    findings = look_once(Policy(guards), stage(two(10), arm(150)))
    assert all("all guardrails" not in finding.reason for finding in findings)
    assert OnBreach.WARN is findings[0].on_breach


def test_weights_of_those_left_out_go_to_the_rest_in_proportion() -> None:
    """The weights of a family sum to one; slices share their guardrail's."""
    weights = FAMILY.weights()
    assert math.fsum(weights.values()) == pytest.approx(1.0)
    assert weights["shadow_quality", ""] == weights["shadow_quality", "legal"]
    assert weights["error_rate", ""] == pytest.approx(2 * weights["shadow_quality", ""])


def test_all_traffic_is_the_sum_of_its_slices() -> None:
    """The slice "" adds up what every slice has; a named one stands alone."""
    tallies = {("candidate", "legal"): arm(100), ("candidate", ""): arm(50), ("baseline", "legal"): arm(70)}
    policy = Policy((Guard("error_rate", 0.05, slices=("", "legal")),), min_samples=10)
    whole, legal, _ = look_once(policy, StageEvidence(1, 0.5, tallies))
    assert (whole.n, legal.n) == (150, 100)
    assert legal.reason.startswith("error_rate of slice legal 0/100")


def test_shadow_pairs_with_impossible_scores_are_unknown() -> None:
    """A difference of more than one is no score: unknown, never pass."""
    _, finding = once(Policy((Guard("shadow_quality", -0.1),)), stage(Tally({"pair.5000": 100}), Tally()))
    assert (Verdict.UNKNOWN, "contradict" in finding.reason) == (finding.verdict, True)


@pytest.mark.parametrize(
    ("name", "margin", "slices"),
    [
        ("vibes", 0.1, ("",)),
        ("error_rate", 0.0, ("",)),
        ("error_rate", math.nan, ("",)),
        ("ttft_p95", -1.1, ("",)),
        ("ttft_p95", math.inf, ("",)),
        ("shadow_quality", -1.0, ("",)),
        ("error_rate", 0.1, ()),
        ("error_rate", 0.1, ("a", "a")),
    ],
)
def test_an_impossible_guard_is_refused_in_one_line(name: str, margin: float, slices: tuple[str, ...]) -> None:
    """A guardrail nobody could hold is said at once."""
    with pytest.raises(GuardError) as caught:
        Guard(name, margin, slices)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"alpha": 0.0}, {"beta": 1.0}, {"guards": ERRORS.guards * 2}])
def test_an_impossible_policy_is_refused(change) -> None:
    """Probabilities are probabilities, and each guardrail is named once."""
    with pytest.raises(GuardError):
        replace(ERRORS, **change)


def test_no_guardrail_finds_nothing() -> None:
    """An empty policy has no finding."""
    assert look_once(Policy(()), GOOD) == ()


def test_an_analysis_written_down_is_the_same() -> None:
    """A restart changes nothing: proofs and memories come back equal."""
    after, _ = look(Analysis.initial(), FAMILY, traffic(3, 400), now=5.0)
    after, _ = look(after, FAMILY, [*traffic(3, 800), BAD], now=9.0)
    assert after == Analysis.from_json(after.to_json())
    assert after.proofs
    assert after.memories


def traffic(seed: int, n: int, slow: float = 1.0) -> list[StageEvidence]:
    """Two stages of seeded traffic: the candidate's tokens take `slow` times as long."""
    chance, ledger = random.Random(seed), Ledger()
    for i in range(n):
        number = 1 + (i >= n // 2)
        candidate = chance.random() < (0.2, 0.5)[number - 1]
        ledger.record(answer(chance, candidate=candidate, stage_number=number, slow=slow))
        ledger.pair(number, chance.choice(["", "legal"]), chance.uniform(-0.1, 0.1))
    return evidence(parse({name: str(amount) for name, amount in ledger.drain().items()}))


def answer(chance: random.Random, *, candidate: bool, stage_number: int, slow: float) -> Outcome:
    """One seeded request."""
    tokens = chance.randint(5, 40)
    return Outcome(
        Arm.CANDIDATE if candidate else Arm.BASELINE,
        Result.ERROR if chance.random() < 0.02 else Result.OK,
        slice=chance.choice(["", "legal"]),
        stage=stage_number,
        ttft=0.1 * chance.lognormvariate(0, 0.3),
        tpot=0.02 * chance.lognormvariate(0, 0.2) * (slow if candidate else 1),
        prompt_tokens=50,
        completion_tokens=tokens,
        cost_usd=1e-6 * tokens + 1e-5,
    )


def evidence(tallies: dict[tuple[int, str, str], Tally]) -> list[StageEvidence]:
    """Both stages' tallies with their shares."""
    return [
        StageEvidence(
            number, share, {(arm_, slice_): tally for (s, arm_, slice_), tally in tallies.items() if s == number}
        )
        for number, share in ((1, 0.2), (2, 0.5))
    ]


@given(seed=st.integers(0, 50), n=st.integers(0, 300), order=st.randoms(use_true_random=False), later=st.floats(0, 1e6))
def test_order_repetition_and_restart_change_no_decision(seed: int, n: int, order: random.Random, later: float) -> None:
    """Stages and slices in any order, the same evidence again, and a restart in between give equal bits."""
    first, second = traffic(seed, n), traffic(seed, n + 50)
    memory, _ = look(Analysis.initial(), FAMILY, first, now=1.0)
    memory, findings = look(memory, FAMILY, second, now=2.0)

    mixed = []
    for stages in (first, second):
        shuffled = [StageEvidence(s.stage, s.share, dict(shuffle(order, s.tallies.items()))) for s in stages]
        mixed.append(shuffle(order, shuffled))
    other, _ = look(Analysis.initial(), FAMILY, mixed[0], now=1.0)
    other = Analysis.from_json(other.to_json())
    assert (memory, findings) == look(other, FAMILY, mixed[1], now=2.0)
    assert (memory, findings) == look(memory, FAMILY, second, now=later)


def shuffle(order: random.Random, things) -> list:
    """The same things in another order."""
    return order.sample(list(things), len(list(things)))


@given(st.lists(st.tuples(*[st.integers(0, 60)] * 4), max_size=12))
def test_no_verdict_is_ever_taken_back(increments: list[tuple[int, ...]]) -> None:
    """Whatever comes, a failure stays a failure, and a pass becomes nothing but a failure."""
    memory, sums, verdict = Analysis.initial(), (Tally(), Tally()), Verdict.UNKNOWN
    allowed = {Verdict.FAIL: {Verdict.FAIL}, Verdict.PASS: {Verdict.PASS, Verdict.FAIL}}
    for quiet_c, bad_c, quiet_b, bad_b in increments:
        sums = (sums[0] + arm(quiet_c + bad_c, error=bad_c), sums[1] + arm(quiet_b + bad_b, error=bad_b))
        memory, finding = once(replace(ERRORS, min_samples=1), stage(*sums), analysis=memory)
        assert finding.verdict in allowed.get(verdict, set(Verdict))
        verdict = finding.verdict


def watched(seconds: int, drawn, rate: int = 20) -> list[Finding]:
    """Look every ten seconds at a latency that `drawn` draws for (candidate?, second); return the findings."""
    chance, ledger, analysis, found = random.Random(7), Ledger(), Analysis.initial(), []
    sums: dict[tuple[str, str], Tally] = {}
    policy = Policy((Guard("ttft_p95", 1.1),))
    for second in range(seconds):
        for _ in range(rate):
            candidate = chance.random() < 0.5
            side = Arm.CANDIDATE if candidate else Arm.BASELINE
            ttft = drawn(chance, candidate, second)
            ledger.record(Outcome(side, Result.OK, stage=1, e2e=2.0, ttft=ttft, completion_tokens=9, at=1e9 + second))
        if second % 10 == 9:
            for (_, side, slice_), tally in parse({k: str(v) for k, v in ledger.drain().items()}).items():
                sums[side, slice_] = merged([sums.get((side, slice_), Tally()), tally])
            analysis, (finding, _) = look(analysis, policy, [StageEvidence(1, 0.5, dict(sums))], 1e9 + second)
            found.append(finding)
    return found


def test_a_latency_that_is_slower_as_a_whole_fails_though_its_quantile_holds() -> None:
    """Nearly all answers begin twice as late, and none later than the baseline's latest."""

    def drawn(chance: random.Random, candidate: bool, _: int) -> float:
        return 0.2 * chance.lognormvariate(0, 0.04) if candidate else 0.1 * chance.lognormvariate(0, 0.5)

    last = watched(900, drawn)[-1]
    assert last.verdict is Verdict.FAIL
    assert last.estimate is not None
    assert last.estimate < 1.1
    assert "as a whole x2.0" in last.reason


def test_a_machine_that_is_slow_for_minutes_is_no_slower_candidate() -> None:
    """Half an hour in which the candidate's replica drifts by a fifth, up and down."""

    def drawn(chance: random.Random, candidate: bool, second: int) -> float:
        drift = 1.2 ** math.sin(second / 60) if candidate else 1.0
        return 0.1 * drift * chance.lognormvariate(0, 0.5)

    found = watched(1800, drawn)
    assert Verdict.FAIL not in {finding.verdict for finding in found}
    assert all("as a whole" in finding.reason for finding in found[-30:])
