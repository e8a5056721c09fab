"""The release machine: the laws on top of its table, and its dialogues."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from canary.core import events
from canary.core.events import NOBODY, Evidence, Heard
from canary.core.finding import OnBreach, Verdict
from canary.core.obstacles import obstacle
from canary.core.plan import PROVED_FROM, AtEnd, BakePlan, Limits, Plan, Step
from canary.core.rehearsal import passed
from canary.core.release import TABLE, NotAllowed, Opening, Phase, Release, _row, advance, begin
from canary.core.state import ACTIVE, ENDED
from tests.canary.core.releases import BASE, NEW, PLAN, cause, enough, finding, opened

LACKS = [
    {"missing": ("x",)},
    {"unready": ("y",)},
    {"spend_usd": 21.0},
    {"unmet": ("z",)},
    {"rps": 9.0, "baseline_rps": 8.0},
]
LINE = ["preflight", "shadow", "canary", "canary", "canary", "bake", "promoted"]


def look(release: Release, now: float, evidence: Evidence | None = None) -> Release:
    """One look of the controller with all it needs, unless told otherwise."""
    return advance(release, events.Look(cause(now, actor="controller"), evidence or enough()))[0]


def at(phase: Phase, percent: float | None = None, plan: Plan = PLAN) -> Release:
    """Drive a fresh release to a place; the clock of its last move is `entered`."""
    release, now = opened(plan), 0.0
    while not (release.phase is phase and (percent is None or release.percent == percent)):
        now += 100
        gate = release.phase is Phase.CANARY and release.plan.steps[release.step].manual
        event = events.Promote(cause(now), enough()) if gate else events.Look(cause(now), enough())
        release = advance(release, event)[0]
        assert now < 5000
    return release


def test_a_good_release_walks_the_line() -> None:
    """Draft to promoted with evidence at every step, and the roles are switched."""
    release, seen, now = opened(), [], 0.0
    while release.active:
        now += 100
        gate = release.percent == 50
        event = events.Promote(cause(now), enough()) if gate else events.Look(cause(now), enough())
        release, _ = advance(release, event)
        seen.append(release.phase.value)
    assert seen == LINE
    assert (release.baseline.engine, release.previous.engine) == ("new", "base")
    split = release.split()
    assert split.candidate is None
    assert split.baseline.engine == "new"


def test_preflight_waits_for_its_gates_and_says_the_command() -> None:
    """Without a report the overlay holds with the mend; with it the release moves and the overlay is gone."""
    lacking = enough(missing=("no load report: run `linnet loadtest SPEC`",))
    release = look(at(Phase.PREFLIGHT), 1000, lacking)
    assert release.phase is Phase.PREFLIGHT
    assert release.held == "no load report: run `linnet loadtest SPEC`"
    moved = look(release, 1001)
    assert (moved.phase, moved.held) == (Phase.SHADOW, "")


def test_preflight_shows_workers_the_candidate_without_a_share() -> None:
    """Forced testers reach it, users do not."""
    split = at(Phase.PREFLIGHT).split()
    assert split.candidate == NEW
    assert split.percent == split.shadow_percent == 0


def test_the_load_tests_prices_enter_the_split() -> None:
    """From preflight on, workers price requests by both arms' fits."""
    moved = look(at(Phase.PREFLIGHT), 1000, enough(prices={"baseline": (1, 2, 3), "candidate": (4, 5, 6)}))
    assert moved.split().baseline.price == (1, 2, 3)
    assert moved.split().candidate.price == (4, 5, 6)


@pytest.mark.parametrize(
    ("place", "evidence", "later", "word"),
    [
        ((Phase.SHADOW, 0), enough(pairs=4), 100, "4 of 5 shadow pairs"),
        ((Phase.SHADOW, 0), enough(), 5, "5 s to go"),
        ((Phase.CANARY, 1), enough(samples=4), 100, "4 of 5 samples"),
        ((Phase.CANARY, 1), enough(), 9, "1 s to go"),
        ((Phase.CANARY, 1), enough(Verdict.UNKNOWN), 100, "unknown: error_rate says"),
        ((Phase.CANARY, 50), enough(Verdict.INCONCLUSIVE), 100, "inconclusive"),
        ((Phase.CANARY, 50), enough(), 100, "manual gate"),
        ((Phase.CANARY, 1), enough(unready=("engine base is dead",)), 100, "base is dead"),
        ((Phase.BAKE, 95), enough(Verdict.INCONCLUSIVE), 100, "inconclusive"),
        ((Phase.BAKE, 95), enough(frozen="Christmas"), 100, "Christmas"),
    ],
)
def test_each_lack_of_evidence_stops_the_advance(place, evidence, later, word) -> None:
    """The release stays where it is, and the obstacle names its numbers."""
    release = at(*place)
    stayed = look(release, release.entered + later, evidence)
    assert (stayed.phase, stayed.percent) == (release.phase, release.percent)
    assert word in obstacle(stayed, evidence, release.entered + later).reason


def test_small_steps_advance_while_nothing_fails() -> None:
    """Up to 25 % inconclusive is enough: so little traffic proves little."""
    release = at(Phase.CANARY, 5)
    assert look(release, release.entered + 100, enough(Verdict.INCONCLUSIVE)).percent == 50


def test_a_shadow_is_not_held_by_guards_that_need_live_traffic() -> None:
    """Only the shadow's own guards have evidence there."""
    release = at(Phase.SHADOW)
    assert look(release, release.entered + 100, enough(Verdict.UNKNOWN)).phase is Phase.CANARY
    unknown = enough(findings=(finding(Verdict.UNKNOWN, "shadow_quality"),))
    assert look(release, release.entered + 100, unknown).held.startswith("unknown: shadow_quality")


def test_a_hold_keeps_its_first_reason_and_publishes_nothing() -> None:
    """New numbers of the same obstacle are no new state."""
    release = at(Phase.CANARY, 50)
    held = look(release, release.entered + 100, enough(Verdict.INCONCLUSIVE))
    other = replace(finding(Verdict.INCONCLUSIVE), reason="4 of 9")
    again, effects = advance(held, events.Look(cause(release.entered + 101), enough(findings=(other,))))
    assert again == held
    assert effects == ()
    assert held.generation == release.generation


@pytest.mark.parametrize("phase", ACTIVE)
@pytest.mark.parametrize("overlay", [{}, {"paused": "p"}, {"frozen": "f"}, {"held": "h", "held_key": "k"}])
def test_a_failing_guard_rolls_back_from_everywhere(phase, overlay) -> None:
    """No overlay blocks it; all traffic returns, the digest is quarantined, the reason has its numbers."""
    release = replace(at(phase), **overlay)
    moved, effects = advance(release, events.Look(cause(9000), enough(Verdict.FAIL)))
    assert moved.phase is Phase.ROLLED_BACK
    assert moved.split().candidate is None
    assert "3 of 7" in moved.reason
    assert events.Quarantine("d-new", moved.reason) in effects
    assert events.Conclude("rolled_back") in effects
    assert moved.breach_ms == moved.decided_ms == 9_000_000


def test_guards_may_pause_once_or_only_warn() -> None:
    """A person who resumes has seen the breach: it does not pause again."""
    failing = enough(findings=(finding(Verdict.FAIL, "ttft_p95", OnBreach.PAUSE), finding(Verdict.PASS)))
    release = at(Phase.CANARY, 1)
    paused = look(release, release.entered + 100, failing)
    assert paused.percent == 1
    assert "ttft_p95" in paused.paused
    resumed = advance(paused, events.Resume(cause(9000)))[0]
    assert look(resumed, 9001, failing).percent == 5
    warned = enough(findings=(finding(Verdict.FAIL, "ttft_p95", OnBreach.WARN), finding(Verdict.PASS)))
    assert look(release, release.entered + 100, warned).percent == 5


def test_a_trip_of_this_attempt_rolls_back_and_no_other() -> None:
    """The breach is when the worker saw it, not when the controller heard."""
    release = at(Phase.CANARY, 5)
    other = events.Tripped(cause(9000), "r", 2, 8_999_900)
    assert advance(release, other) == (release, ())
    moved, _ = advance(release, replace(other, attempt=1))
    assert (moved.phase, moved.breach_ms, moved.decided_ms) == (Phase.ROLLED_BACK, 8_999_900, 9_000_000)


def test_the_stop_loss_ends_the_release() -> None:
    """Over the card's money nothing is judged: it is an abort."""
    moved = look(at(Phase.CANARY, 5), 9000, enough(spend_usd=20.5))
    assert moved.phase is Phase.ABORTED
    assert "20.50 USD" in moved.reason


def test_rollback_after_promotion_returns_the_old_baseline() -> None:
    """One step back, and the promoted digest is quarantined; a second time changes nothing."""
    release = at(Phase.PROMOTED)
    moved, effects = advance(release, events.Rollback(cause(9000, "bad answers")))
    assert moved.split().baseline == BASE
    assert moved.percent == 0
    assert events.Quarantine("d-new", "bad answers") in effects
    assert advance(moved, events.Rollback(cause(9001))) == (moved, ())


def test_rollback_without_an_earlier_baseline_is_refused() -> None:
    """There is nothing to return to."""
    with pytest.raises(NotAllowed, match="no earlier baseline"):
        advance(replace(at(Phase.PROMOTED), previous=None), events.Rollback(cause()))


def test_a_weight_by_hand_pauses_and_says_so() -> None:
    """The overlay names the hand; on resume automation goes on above that share."""
    release = at(Phase.CANARY, 1)
    moved, effects = advance(release, events.SetWeight(cause(9000), 20))
    assert moved.percent == 20
    assert "set by hand to 20 %" in moved.paused
    assert moved.stage == release.stage + 1
    assert any(isinstance(effect, events.Publish) for effect in effects)
    assert look(moved, 9999).percent == 20
    resumed = advance(moved, events.Resume(cause(9100)))[0]
    assert look(resumed, 9999).percent == 50


def test_frozen_lets_a_weight_shrink_but_not_grow() -> None:
    """Freeze blocks advance, never retreat."""
    frozen = advance(at(Phase.CANARY, 5), events.Freeze(cause(9000, "holidays")))[0]
    assert advance(frozen, events.SetWeight(cause(9001), 1))[0].percent == 1
    for event in (events.SetWeight(cause(9001), 6), events.Promote(cause(9001), enough())):
        with pytest.raises(NotAllowed, match="unfreeze"):
            advance(frozen, event)
    assert look(frozen, 9999).percent == 5
    assert look(advance(frozen, events.Unfreeze(cause()))[0], 9999).percent == 50


def test_promote_takes_time_and_gate_on_itself_but_not_evidence() -> None:
    """A person may hurry, not guess; --skip-analysis says that they do."""
    release = at(Phase.CANARY, 50)
    with pytest.raises(NotAllowed, match="not yet: 4 of 5 samples"):
        advance(release, events.Promote(cause(release.entered), enough(samples=4)))
    with pytest.raises(NotAllowed, match="no fresh look"):
        advance(release, events.Promote(cause(release.entered)))
    assert advance(release, events.Promote(cause(release.entered), enough()))[0].phase is Phase.BAKE
    skipped = advance(release, events.Promote(cause(release.entered), None, skip_analysis=True))[0]
    assert skipped.phase is Phase.PROMOTED
    assert advance(skipped, events.Promote(cause())) == (skipped, ())


@pytest.mark.parametrize("phase", [Phase.DRAFT, Phase.PREFLIGHT])
@pytest.mark.parametrize("event", [events.Promote(cause(), enough(), True), events.SetWeight(cause(), 5)])
def test_nobody_is_exposed_before_the_gates(phase, event) -> None:
    """Neither promote nor a weight by hand gets past preflight."""
    with pytest.raises(NotAllowed, match="not possible in"):
        advance(at(phase), event)


def test_retry_needs_a_reason_and_starts_a_clean_attempt() -> None:
    """The digest is absolved, users are drawn anew, stages count from zero."""
    ended = advance(at(Phase.CANARY, 5), events.Rollback(cause(9000)))[0]
    with pytest.raises(NotAllowed, match="--reason"):
        advance(ended, events.Retry(cause(9001, "")))
    retried, effects = advance(ended, events.Retry(cause(9001, "engine flags mended")))
    assert (retried.phase, retried.attempt, retried.shares) == (Phase.DRAFT, 2, (0.0,))
    assert events.Absolve("d-new") in effects
    assert events.Count("r", 2) in effects
    with pytest.raises(NotAllowed, match="abort or roll back first"):
        advance(retried, events.Retry(cause(9002)))


def test_a_second_release_waits_its_turn_and_names_the_baseline() -> None:
    """Only after the first has ended, and only from the model's present baseline."""
    with pytest.raises(NotAllowed, match="--supersede"):
        opened(prior=at(Phase.CANARY, 5))
    superseded = advance(at(Phase.CANARY, 5), events.Supersede(cause(9000)))[0]
    assert superseded.phase is Phase.SUPERSEDED
    assert opened(prior=superseded).generation > superseded.generation
    with pytest.raises(NotAllowed, match="engine: new"):
        opened(prior=at(Phase.PROMOTED))


def test_engines_that_moved_are_followed() -> None:
    """A restarted engine on another port keeps its arm."""
    release = at(Phase.CANARY, 5)
    moved, effects = advance(release, events.Relocated(cause(), {"base": ("http://127.0.0.1:9",)}))
    assert moved.split().baseline.replicas == ("http://127.0.0.1:9",)
    assert moved.split().candidate == NEW
    assert moved.generation == release.generation + 1
    assert isinstance(effects[0], events.Publish)


def test_the_table_is_total() -> None:
    """Every event has a rule in every phase, and a row with a hole is refused when it is made."""
    for row in TABLE.values():
        assert set(row) == set(Phase)
    with pytest.raises(ValueError, match="the table lacks"):
        _row((ACTIVE, lambda release, _: release))


def test_what_is_not_on_cannot_be_taken_off() -> None:
    """Resume and unfreeze without their overlay change nothing."""
    release = at(Phase.CANARY, 5)
    assert advance(release, events.Resume(cause())) == (release, ())
    assert advance(release, events.Unfreeze(cause())) == (release, ())


def test_an_advance_says_what_it_rests_on() -> None:
    """The audit's reason has the numbers of the moment."""
    release = at(Phase.CANARY, 5)
    moved, effects = advance(release, events.Look(cause(release.entered + 100), enough()))
    assert moved.reason == "100 samples; pass: error_rate: canary 5 % -> canary 50 %"
    assert events.Note("step", "ann", moved.reason, int((release.entered + 100) * 1000)) in effects
    assert at(Phase.SHADOW).reason.startswith("gates passed (load); a rollback rehearsed in 34 ms: ")


def test_a_look_from_before_a_move_decides_nothing() -> None:
    """A person was faster: what was seen at one share says nothing about another."""
    release = at(Phase.CANARY, 5)
    late = events.Look(cause(9000), enough(Verdict.FAIL), at=at(Phase.CANARY, 1).at)
    assert advance(release, late) == (release, ())
    assert advance(release, replace(late, at=release.at))[0].phase is Phase.ROLLED_BACK


FULL = replace(
    PLAN,
    steps=(
        Step(1, 10, 5),
        Step(5, 10, 5, max_duration=90, on_inconclusive=AtEnd.ROLLBACK),
        Step(50, 10, 5, True, ramp=8),
    ),
    bake=BakePlan(10, 95, 5, max_duration=200, ramp=3),
    limits=Limits(2000, AtEnd.ABORT, AtEnd.HOLD),
)
DEAF = [NOBODY, Heard(2, 0, "w1", 0)]  # no worker lives; one has not heard of anything yet


class Laws(RuleBasedStateMachine):
    """Any dialogue of people, controller and workers keeps the laws."""

    @initialize(plan=st.sampled_from([PLAN, FULL]))
    def start(self, plan) -> None:
        """A fresh release in draft."""
        self.now, self.jumped = 1e6, 0.0
        self.first = self.release = replace(opened(plan, rehearsed=False), started=self.now, entered=self.now)
        self.unjumped = self.release
        self.told: list[events.Event] = []

    @rule(
        verdicts=st.lists(st.sampled_from(Verdict), max_size=2),
        on_breach=st.sampled_from(OnBreach),
        samples=st.integers(0, 8),
        later=st.sampled_from([1, 11]),
        lack=st.sampled_from([{}, {}, {}, *LACKS]),
    )
    def controller_looks(self, verdicts, on_breach, samples, later, lack) -> None:
        """A look with any evidence."""
        self.now += later
        findings = tuple(finding(verdict, f"g{index}", on_breach) for index, verdict in enumerate(verdicts))
        self.tell(events.Look(cause(self.now), enough(findings=findings, samples=samples, pairs=samples, **lack)))

    @rule(heard=st.sampled_from(DEAF), later=st.sampled_from([1, 6, 70]))
    def workers_are_deaf(self, heard, later) -> None:
        """A look that finds all it needs but the workers' acknowledgement."""
        self.now += later
        self.tell(events.Look(cause(self.now), enough(heard=heard)))

    @rule(later=st.sampled_from([11, 11, 1]))
    def controller_likes_it(self, later) -> None:
        """A look that finds all it needs."""
        self.now += later
        self.tell(events.Look(cause(self.now), enough()))

    @rule(looks=st.integers(1, 25), to=st.sampled_from(LINE), lack=st.sampled_from([{}, *LACKS]))
    def all_goes_well(self, looks, to, lack) -> None:
        """Looks that find all they need, and a person at the manual gate, up to a phase; then one thing lacks."""
        for _ in range(looks):
            if self.release.phase == to:
                self.now += 11
                self.tell(events.Look(cause(self.now), enough(**lack)))
                return
            self.now += 11
            self.tell(events.Look(cause(self.now), enough()))
            if self.release.phase is Phase.CANARY and self.release.percent == 50:
                self.tell(events.Promote(cause(self.now), enough()))

    @rule(attempt=st.integers(1, 2))
    def worker_trips(self, attempt) -> None:
        """A trip of this attempt, or of another."""
        self.tell(events.Tripped(cause(self.now), "r", attempt, int(self.now * 1000)))

    @rule(kind=st.sampled_from([events.Pause, events.Resume, events.Freeze, events.Unfreeze]))
    def person_overlays(self, kind) -> None:
        """The overlays, on and off."""
        self.tell(kind(cause(self.now)))

    @rule(percent=st.sampled_from([0, 0.5, 1, 5, 25, 50, 95, 100, 101]), ramp=st.sampled_from([0, 0, 5, 30, -1]))
    def person_weighs(self, percent, ramp) -> None:
        """Any weight, sensible or not, at once or by a ramp."""
        self.tell(events.SetWeight(cause(self.now), percent, ramp))

    @rule(evidence=st.sampled_from([None, enough(), enough(Verdict.UNKNOWN)]), skip=st.booleans())
    def person_promotes(self, evidence, skip) -> None:
        """With or without evidence."""
        self.tell(events.Promote(cause(self.now), evidence, skip))

    @rule(kind=st.sampled_from([events.Abort, events.Rollback, events.Supersede, events.Retry]))
    def person_ends_or_retries(self, kind) -> None:
        """The ends, and the way back."""
        self.tell(kind(cause(self.now)))

    @rule(by=st.sampled_from([3600.5, -3600.5]))
    def clock_jumps(self, by) -> None:
        """The controller's clock is set forward or back, and it notices."""
        self.now += by
        self.jumped += by
        self.tell(events.ClockJumped(cause(self.now), by, self.now))

    @rule()
    def person_starts(self) -> None:
        """The next release of the model."""
        opening = Opening("m", "r", self.release.attempt + 1, PLAN, "", BASE, NEW)
        try:
            release, _ = begin(self.release, opening, cause(self.now))
        except NotAllowed:
            return
        assert not self.release.active
        assert release.generation == self.release.generation + 1
        self.unjumped = begin(self.unjumped, opening, cause(self.now - self.jumped))[0]
        self.first = self.release = release
        self.told = []

    def tell(self, event: events.Event) -> None:
        """Tell the machine, and hold every law about one move."""
        before = self.release
        try:
            after, effects = advance(before, event)
        except NotAllowed:
            assert not isinstance(event, events.Abort | events.Look | events.Tripped)
            assert not (isinstance(event, events.Rollback) and before.active)
            return
        self.release = after
        self.told.append(event)
        self._hold_time(event)
        assert (effects == ()) == (after == before)
        same_attempt = after.attempt == before.attempt
        if before.phase in ENDED and same_attempt:
            assert after.percent == 0
        if isinstance(event, events.Abort):
            assert not after.active
            assert (after == before) == (not before.active)
        if isinstance(event, events.Rollback) and before.active:
            assert after.phase is Phase.ROLLED_BACK
        if isinstance(event, events.Look) and before.active:
            self._hold_look(before, after, event)
        if same_attempt:
            assert (after.stage == before.stage + 1) == (after.percent != before.percent)
        else:
            assert isinstance(event, events.Retry)
            assert after.attempt == before.attempt + 1
        routed = replace(before.split(), generation=0) != replace(after.split(), generation=0)
        assert after.generation == before.generation + (1 if routed else 0)
        assert routed == any(isinstance(effect, events.Publish) for effect in effects)
        if after.phase is Phase.ROLLED_BACK and before.phase is not Phase.ROLLED_BACK:
            assert any(isinstance(effect, events.Quarantine) for effect in effects)
        if isinstance(event, events.SetWeight):
            assert "by hand" in after.paused
        if isinstance(event, events.Rollback) and before.phase is Phase.PROMOTED:
            assert after.split().baseline == before.previous

    def _hold_time(self, event: events.Event) -> None:
        """Law 10: where no clock had jumped, the release would stand at the same place for the same reasons."""
        if not isinstance(event, events.ClockJumped):
            steady = replace(event.cause, now=event.cause.now - self.jumped)
            self.unjumped = advance(self.unjumped, replace(event, cause=steady))[0]
        one, other = self.release, self.unjumped
        assert (one.at, one.shares, one.reason) == (other.at, other.shares, other.reason)
        assert (one.held, one.paused, one.frozen) == (other.held, other.paused, other.frozen)

    def _hold_look(self, before: Release, after: Release, event: events.Look) -> None:
        """No advance without evidence, and no way around a breach."""
        evidence = event.evidence
        failed = [one for one in evidence.findings if one.verdict is Verdict.FAIL]
        if any(one.on_breach is OnBreach.ROLLBACK for one in failed):
            assert after.phase is Phase.ROLLED_BACK
            return
        if evidence.spend_usd > PLAN.money.stop_loss:
            assert after.phase is Phase.ABORTED
            return
        if before.rehearsing:
            assert (after.phase, after.percent) == (before.phase, before.percent)
            assert not passed(after) or (evidence.heard.workers and evidence.heard.generation >= before.generation)
            return
        if after.phase in ENDED:
            assert "over the" in after.reason
            return
        if before.ramp is not None and after.percent != before.percent:
            self._hold_ramp(before, after, evidence)
            return
        advanced = after.phase is not before.phase or after.percent > before.percent
        if advanced:
            assert not before.paused
            assert not before.frozen
            assert self.now >= before.entered + before.min_duration
            assert not (before.phase is Phase.PREFLIGHT and (evidence.missing or not passed(before)))
            assert not (before.phase is Phase.BAKE and evidence.unmet)
            if before.phase in (Phase.CANARY, Phase.BAKE):
                assert evidence.samples >= before.min_samples
                if before.percent >= PROVED_FROM:
                    mine = [one for one in evidence.findings if one.on_breach is OnBreach.ROLLBACK]
                    assert all(one.verdict is Verdict.PASS for one in mine)
        else:
            assert after.percent == before.percent

    def _hold_ramp(self, before: Release, after: Release, evidence: Evidence) -> None:
        """It goes one way and never past its end; what rises is a person's own, or nothing speaks against it."""
        low, high = sorted((before.percent, before.ramp.to))
        assert low <= after.percent <= high
        assert self.now >= before.ramp.due
        if after.percent > before.percent:
            assert not before.frozen
            if not before.ramp.by_hand:
                assert not before.paused
                assert not evidence.unready

    def teardown(self) -> None:
        """Replaying the log gives the state."""
        replayed = self.first
        for event in self.told:
            replayed, _ = advance(replayed, event)
        assert replayed == self.release

    @invariant()
    def nobody_is_exposed_before_a_rehearsal(self) -> None:
        """Law 9: the way back was seen to work in this attempt."""
        assert passed(self.release) or self.release.percent in (0, 100)
        assert passed(self.release) or self.release.split().shadow_percent == 0

    @invariant()
    def state_survives_the_store(self) -> None:
        """JSON and back is the same value."""
        assert Release.from_json(self.release.to_json()) == self.release

    @invariant()
    def users_meet_the_candidate_only_in_canary_and_bake(self) -> None:
        """Law 9."""
        split = self.release.split()
        if split.percent > 0:
            assert self.release.phase in (Phase.CANARY, Phase.BAKE)
        if self.release.phase not in ACTIVE or self.release.phase is Phase.DRAFT:
            assert split.candidate is None


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_bake_at_a_small_share_still_needs_proof() -> None:
    """What follows it is all the traffic: that nothing failed yet is not enough, whatever share a person set."""
    lowered = advance(at(Phase.BAKE), events.SetWeight(cause(5000), 10))[0]
    resumed = advance(lowered, events.Resume(cause(5001)))[0]
    held = look(resumed, 6000, enough(Verdict.INCONCLUSIVE))
    assert (held.phase, held.held[:12]) == (Phase.BAKE, "inconclusive")
    assert look(resumed, 6000).phase is Phase.PROMOTED
