from dataclasses import replace

from bench.guardrails.cases import LATELY, WORSE, Case, noisy, steady
from bench.guardrails.telling import Batch, tell, tell_all
from canary.trials.simulate import Harm, Step

DEAR = next(case for case in WORSE if case.name == "cost x1.15" and case.share == 0.5)


def short(case: Case, **changes) -> Case:
    """A case of a minute and a half."""
    world = replace(case.scene.world, steps=(Step(case.share, 90),), **changes)
    return replace(case, scene=replace(case.scene, world=world))


def test_a_batch_is_the_same_whoever_tells_it():
    """One process or two, alone or among others."""
    case = short(DEAR)
    alone = tell(Batch(case, 1, 10))
    (_, one), (_, two) = (next(tell_all([(case, 20)], 10, processes, tell)) for processes in (1, 2))
    assert one == two
    assert one[10:] == alone
    assert any(told.failed for told in one)


def test_a_run_that_is_not_rolled_back_ends_with_its_requests():
    """The whole time, about half of twenty a second, nothing that failed."""
    told = tell(Batch(short(Case("equal", 0.5, steady(0.5))), 0, 3))
    assert {(one.seconds, one.failed) for one in told} == {(90, "")}
    assert all(750 < one.requests < 1050 for one in told)


def test_requests_count_from_when_the_harm_began():
    """After two quiet stages; a run without a rollback has all of the last one."""
    late = next(case for case in LATELY if case.name.startswith("error"))
    steps = Step(0.5, 40), Step(0.25, 40), Step(0.5, 40)
    case = replace(late, scene=replace(late.scene, world=replace(late.scene.world, steps=steps)))
    told = tell(Batch(case, 0, 5))
    assert {one.failed for one in told} <= {"error_rate", ""}
    assert all(200 < one.requests < 500 and one.seconds > 80 for one in told)


def test_a_reference_makes_latency_quick():
    """A TTFT twice as high is found within a minute where the reference was quiet, and not where it was noisy."""
    quiet = short(Case("slow", 0.5, steady(0.5), reference=True), harm=Harm(ttft=2.0))
    found = tell(Batch(quiet, 0, 5))
    assert {told.failed for told in found} == {"ttft_p95"}
    assert not any(told.failed for told in tell(Batch(replace(quiet, shown=noisy(600)), 0, 5)))
