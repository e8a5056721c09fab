import math

import pytest

from canary.core.signals import SIGNALS, Reading, Sight, StageView
from canary.core.tails import Memory
from canary.core.tally import Tally


def arm(done: int, **counts: int) -> Tally:
    """An arm with `done` completed requests and other counts."""
    return Tally({"done": done, "ok": done, **counts})


def priced(n: int, usd: float, tokens: int = 100) -> Tally:
    """An arm of n requests at one price."""
    sums = {
        "sum.cost": n * usd,
        "sum.cost2": n * usd * usd * 1.01,
        "sum.tokens": float(n * tokens),
        "sum.tokens2": float(n * tokens * tokens),
        "sum.cost_tokens": n * usd * tokens,
    }
    return Tally({"done": n, "ok": n, "priced": n}, sums)


def histogram(name: str, cells: dict[int, int]) -> Tally:
    """An arm with one histogram."""
    n = sum(cells.values())
    return Tally({"done": n, "ok": n, **{f"{name}.{bucket}": k for bucket, k in cells.items()}})


def read(name: str, *views: StageView, margin: float, memory: Memory | None = None, **sight: int) -> Reading:
    """Read one signal."""
    return SIGNALS[name].read(Sight(views, margin, memory or Memory(), **sight))


def test_the_error_rate_says_its_numbers() -> None:
    """Errors and timeouts over completed requests, in both arms, against the margin."""
    got = read("error_rate", StageView(1, 0.5, arm(160, error=10, timeout=2), arm(164, error=1)), margin=0.005)
    assert got.facts == "12/160 (7.5%) against 1/164 (0.6%), +6.9 pp > +0.5 pp allowed"
    assert (got.n, got.beyond, got.missing) == (160, True, "")
    assert got.low is not None
    assert got.high is not None
    assert got.low < 0.069 < got.high
    assert got.fail > 4
    assert got.passing < 0


def test_rates_are_never_pooled_over_stages() -> None:
    """Errors that rose for both arms while the share grew show no difference."""
    before = StageView(1, 0.1, arm(100, error=1), arm(900, error=9))
    after = StageView(2, 0.9, arm(900, error=90), arm(100, error=10))
    got = read("error_rate", before, after, margin=0.05)
    assert got.estimate == pytest.approx(0.0, abs=1e-12)
    assert got.fail < 1


def test_stages_without_chance_are_no_comparison() -> None:
    """A share of nothing or of everything leaves a randomised test nothing to read."""
    views = [StageView(0, 0.0, arm(9), arm(900)), StageView(1, 1.0, arm(900), arm(9))]
    assert read("error_rate", *views, margin=0.05).unknown == "no completed request of the candidate yet"


def test_a_stage_with_one_silent_arm_adds_nothing_to_the_difference() -> None:
    """A difference needs both arms in the same stage."""
    views = [StageView(1, 0.5, arm(10, error=1), Tally()), StageView(2, 0.5, Tally(), arm(10))]
    assert read("error_rate", *views, margin=0.05).estimate == 0.0


@pytest.mark.parametrize("name", ["error_rate", "empty", "ttft_p95", "cost_per_token"])
@pytest.mark.parametrize(
    ("candidate", "baseline", "words"),
    [
        (Tally(), arm(100), "no completed request of the candidate yet"),
        (arm(100), Tally(), "no completed request of the baseline yet"),
        (arm(100, unusable=2), arm(100), "2 measurements of the candidate are not numbers"),
        (arm(100, error=-1), arm(100), "the candidate's sums contradict themselves"),
        (arm(100), Tally({"done": 100}, {"sum.cost": math.nan}), "the baseline's sums contradict themselves"),
    ],
)
def test_sums_that_cannot_be_trusted_are_unknown(name: str, candidate: Tally, baseline: Tally, words: str) -> None:
    """Missing, contradictory or non-finite sums are said in words, for every signal."""
    assert words == read(name, StageView(1, 0.5, candidate, baseline), margin=0.5).unknown


def test_a_tail_says_its_quantiles_and_counts_its_events() -> None:
    """Quantiles in milliseconds against the whole-bucket margin; the evidence is the memory's events."""
    view = StageView(1, 0.5, histogram("ttft", {370: 100}), histogram("ttft", {349: 100}))
    memory = Memory(events={1: (60, 5)}, unexplained={1: (60, 5)})
    got = read("ttft_p95", view, margin=1.1, memory=memory)
    assert got.facts == "152 ms against 100 ms, x1.52 > x1.10 allowed"
    assert got.beyond
    assert got.fail > 20
    assert got.passing < 0
    quiet = read("ttft_p95", view, margin=2.0, memory=Memory(events={1: (0, 12)}))
    assert not quiet.beyond
    assert quiet.passing > 3


@pytest.mark.parametrize(
    ("candidate", "baseline", "words"),
    [
        (histogram("tpot", {300: 5}), histogram("ttft", {300: 5}), "no ttft measured on the candidate"),
        (histogram("ttft", {300: 5}), arm(5), "no ttft measured on the baseline"),
    ],
)
def test_a_latency_nobody_measured_is_unknown(candidate: Tally, baseline: Tally, words: str) -> None:
    """Without streamed answers there is no TTFT to judge."""
    assert words == read("ttft_p95", StageView(1, 0.5, candidate, baseline), margin=1.1).unknown


def test_latencies_of_two_stages_do_not_compare() -> None:
    """A candidate measured in one stage and a baseline in another are two loads."""
    views = [
        StageView(1, 0.5, histogram("ttft", {300: 5}), arm(5)),
        StageView(2, 0.5, arm(5), histogram("ttft", {300: 5})),
    ]
    assert read("ttft_p95", *views, margin=1.1).unknown == "no stage in which both arms have a ttft"


def test_cost_per_token_and_per_request() -> None:
    """Calibrated cost by tokens, and by requests, where longer answers show."""
    views = StageView(1, 0.5, priced(200, 3e-5, tokens=150), priced(200, 2e-5, tokens=100))
    token, request = read("cost_per_token", views, margin=1.1), read("cost_per_request", views, margin=1.1)
    assert token.facts == "0.2 USD a million tokens against 0.2 USD a million tokens, x1.000 <= x1.1 allowed"
    assert request.facts == "0.03 USD a thousand requests against 0.02 USD a thousand requests, x1.500 > x1.1 allowed"
    assert token.passing > 3
    assert token.fail < 0
    assert request.fail > 10
    assert request.passing < 0


def test_a_cost_of_few_requests_waits() -> None:
    """Below 50 priced requests an arm there is no mean, and it says how many are missing."""
    got = read("cost_per_token", StageView(1, 0.5, priced(20, 1e-5), priced(70, 1e-5)), margin=1.1)
    assert got.missing == "needs 50 priced requests an arm, has 20 and 70"


def test_answers_without_a_price_are_unknown() -> None:
    """An arm that no load test priced has no cost, and the mend is said."""
    got = read("cost_per_token", StageView(1, 0.5, arm(100), priced(100, 1e-5)), margin=1.1)
    assert got.unknown == "the candidate's answers have no price; run the load test first"


def test_shadow_pairs_are_read_in_every_stage() -> None:
    """Pairs need no share: they count in the shadow phase too."""
    views = [StageView(0, 0.0, Tally({"pair.-200": 150}), Tally()), StageView(1, 0.5, Tally({"pair.-40": 50}), Tally())]
    got = read("shadow_quality", *views, margin=-0.02, min_pairs=30)
    assert got.facts == "-0.160 over 200 pairs < -0.020 allowed"
    assert (got.beyond, got.missing, got.n) == (True, "", 200)
    assert got.fail > 10


@pytest.mark.parametrize(
    ("counts", "unknown", "missing"),
    [
        ({}, "no shadow pair yet", ""),
        ({"pairs_failed": 3}, "no shadow pair was scored, 3 failed", ""),
        ({"pair.0": 10}, "", "needs 30 shadow pairs, has 10"),
        ({"pair.0": 70, "pairs_failed": 30}, "", "30 of 100 shadow pairs failed"),
    ],
)
def test_too_few_or_too_many_failed_pairs_never_pass(counts: dict[str, int], unknown: str, missing: str) -> None:
    """What could not be compared is not a random part of the traffic."""
    got = read("shadow_quality", StageView(0, 0.0, Tally(counts), Tally()), margin=-0.02, min_pairs=30)
    assert (unknown, missing) == (got.unknown, got.missing)


def test_the_smallest_sample_is_asked_of_both_arms() -> None:
    """A baseline of few requests is as little evidence as a candidate of few."""
    got = read("error_rate", StageView(1, 0.5, arm(500), arm(20)), margin=0.05, min_samples=200)
    assert got.missing == "needs 200 completed requests an arm, has 500 and 20"
