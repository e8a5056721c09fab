"""What is told: the policy, equal arms in every way that has misled somebody, and candidates that are or get worse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.guardrails.sessions import Sessions
from bench.guardrails.streams import Late, Scene
from canary.core.policy import Guard, Policy
from canary.trials.simulate import Harm, OwnNoise, Step, Traffic, World

REQUESTS = 10_000  # of the candidate
RATE = 20.0  # requests a second
HALF, FEW = 0.5, 0.05
GUARDS = (
    Guard("error_rate", 0.005),
    Guard("empty", 0.01),
    Guard("truncated", 0.01),
    Guard("ttft_p95", 1.10),
    Guard("ttft_p99", 1.25),
    Guard("tpot_p95", 1.10),
    Guard("cost_per_token", 1.05),
    Guard("cost_per_request", 1.15),
    Guard("shadow_quality", -0.02),
)


def policy_of(scene: Scene) -> Policy:
    """Return the policy of a release with a scene's shares as its steps, and a bake (`Spec.policy`)."""
    return Policy(GUARDS, stages=len(scene.shares) + 1)


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a table at one share of the candidate.

    With a `reference` the baseline's replicas were compared for six hours, `shown` being their own noise. `claimed`:
    the bound of 1 % is claimed for it.
    """

    name: str
    share: float
    scene: Scene
    reference: bool = False
    shown: OwnNoise | None = None
    claimed: bool = True

    @property
    def title(self) -> str:
        """Its name in a table."""
        return f"{self.name}{', 6 h reference' if self.reference else ''}{'' if self.claimed else ' (*outside*)'}"

    @property
    def policy(self) -> Policy:
        """What its guardrails are held to."""
        return policy_of(self.scene)

    @property
    def key(self) -> str:
        """Its name among all."""
        told = ", 6 h reference" if self.reference else ""
        return f"{self.name}{told} | {self.share:.0%}"


def noisy(tau: float, *, both: bool = False, times: float = 1.0) -> OwnNoise:
    """Return a machine's own noise as it is assumed at most, or so many times that."""
    return OwnNoise(0.18 * times, 0.10 * times, tau, both)


def traffic(share: float, rate: float = RATE) -> Traffic:
    """Return traffic with as many scored pairs as requests of the candidate; a score is a mean over a text's tokens."""
    return Traffic(rate=rate, pairs_per_s=rate * share, pair_sd=0.15)


def steady(share: float, rate: float = RATE) -> Scene:
    """Return equal arms at one share, until the candidate has had its requests."""
    return Scene(World((Step(share, round(REQUESTS / (rate * share))),), traffic(share, rate)))


def _own(share: float, noise: OwnNoise, rate: float = RATE) -> Scene:
    scene = steady(share, rate)
    return replace(scene, world=replace(scene.world, noise=noise))


def _ramp(noise: OwnNoise) -> Scene:
    steps = (Step(FEW, 400), Step(0.25, 400, 1.65), Step(HALF, 400, 2.5))
    return Scene(World(steps, traffic(0.25), noise=noise))


def _equal(share: float) -> Sequence[Case]:
    half_hour = noisy(1800, both=True)
    return (
        Case("exchangeable arms", share, steady(share)),
        Case("own noise, 1 min", share, _own(share, noisy(60))),
        Case("own noise, 3 min", share, _own(share, noisy(180))),
        Case("own noise, 10 min", share, _own(share, noisy(600))),
        Case("both arms noisy, 10 min", share, _own(share, noisy(600, both=True))),
        Case("sticky sessions", share, replace(steady(share), sessions=Sessions())),
        Case("late reports", share, replace(steady(share), late=Late())),
        Case("exchangeable arms", share, steady(share), reference=True),
        Case("both arms noisy, 30 min", share, _own(share, half_hour), reference=True, shown=half_hour),
        Case("own noise, 30 min", share, _own(share, noisy(1800)), claimed=False),
        Case("own noise twice as large, 3 min", share, _own(share, noisy(180, times=2)), claimed=False),
    )


EQUAL: Sequence[Case] = (
    *_equal(HALF),
    Case("own noise, 1 min, 100 requests a second", HALF, _own(HALF, noisy(60), rate=100.0)),
    Case("a ramp 5-25-50 % with load x1.65 and x2.5", HALF, _ramp(OwnNoise())),
    Case("that ramp, own noise of 1 min", HALF, _ramp(noisy(60))),
    Case("that ramp, own noise of 3 min", HALF, _ramp(noisy(180))),
    Case("that ramp, sticky sessions", HALF, replace(_ramp(OwnNoise()), sessions=Sessions(pause=60.0))),
    *_equal(FEW),
)

LATENCY = {
    "TTFT x1.2": Harm(ttft=1.2),
    "TTFT x1.5": Harm(ttft=1.5),
    "TTFT x2": Harm(ttft=2.0),
    "TTFT x5 on 10 % of requests": Harm(stall=5.0, stalled=0.1),
    "TPOT x1.1": Harm(tpot=1.1),
    "TPOT x1.25": Harm(tpot=1.25),
    "TPOT x1.5": Harm(tpot=1.5),
}
OTHER = {
    "error 100 %": Harm(error=1.0),
    "error +5 pp": Harm(error=0.05),
    "error +1 pp": Harm(error=0.01),
    "cost x1.15": Harm(cost=1.15),
    "quality -0.03": Harm(quality=0.03),
    "quality -0.1": Harm(quality=0.1),
}


def _harmed(name: str, share: float, harm: Harm, *, reference: bool) -> Case:
    scene = steady(share)
    return Case(name, share, replace(scene, world=replace(scene.world, harm=harm)), reference=reference)


def _lately(name: str, harm: Harm, *, reference: bool) -> Case:
    """Return harm that begins with the last share of the ramp."""
    ramp = _ramp(OwnNoise())
    scene = replace(ramp, world=replace(ramp.world, harm=harm), since=len(ramp.shares) - 1)
    return Case(f"{name} from the last share on", HALF, scene, reference=reference)


LATELY: Sequence[Case] = tuple(
    _lately(name, {**LATENCY, **OTHER}[name], reference=reference)
    for name, reference in (
        ("error +5 pp", False),
        ("cost x1.15", False),
        ("TTFT x2", True),
        ("TTFT x2", False),
        ("TPOT x1.5", True),
        ("TPOT x1.5", False),
    )
)

_PEERS_EQUAL = ("exchangeable arms", "own noise, 3 min", "both arms noisy, 10 min")
_PEERS_WORSE = ("error +5 pp", "cost x1.15", "TTFT x1.5", "TPOT x1.25")
WORSE: Sequence[Case] = (
    *(_harmed(name, share, harm, reference=False) for name, harm in OTHER.items() for share in (FEW, HALF)),
    *(
        _harmed(name, share, harm, reference=reference)
        for reference in (True, False)
        for name, harm in LATENCY.items()
        for share in (FEW, HALF)
    ),
)
BESIDE: Sequence[Case] = tuple(
    case
    for names, cases in ((_PEERS_EQUAL, EQUAL), (_PEERS_WORSE, WORSE))
    for case in cases
    if case.name in names and not case.reference
)
