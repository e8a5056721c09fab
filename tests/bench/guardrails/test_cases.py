from bench.guardrails.cases import EQUAL, LATELY, WORSE, policy_of, steady
from canary.trials.simulate import Harm


def test_a_plan_has_as_many_shares_as_the_case_and_the_bake():
    """As a spec of that many steps would."""
    assert policy_of(steady(0.5)).stages == 2
    assert {len(case.scene.shares) + 1 for case in LATELY} == {case.policy.stages for case in LATELY} == {4}


def test_every_case_has_a_name_of_its_own():
    """What was counted is kept by it."""
    cases = (*EQUAL, *WORSE, *LATELY)
    assert len({case.key for case in cases}) == len(cases)


def test_harm_begins_with_the_last_share():
    """Of equal arms before."""
    for case in LATELY:
        harms = [case.scene.harm(stage) for stage in range(len(case.scene.shares))]
        assert harms == [Harm(), Harm(), case.scene.world.harm]
        assert case.scene.world.harm != Harm()
