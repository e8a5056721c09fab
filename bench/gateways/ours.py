"""Our gateway alone, in whatever shape a measurement needs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.gateways.linnet import MODEL, SECRET
from bench.gateways.peers import Peer, Places
from bench.gateways.running import Running, running
from bench.gateways.stage import Stage

_PLACES = Places(Path(__file__).parents[1], Path("/"))


@contextmanager
def gateway(
    scene: Stage, name: str, words: Sequence[str] = (), *, model: str = MODEL, replicas: int = 1
) -> Iterator[Running]:
    """Run it with more words on its launcher's command line; the first `replicas` engines are the baseline's."""
    baseline, candidate = scene.ports[:replicas], scene.ports[-1:]
    ends = ["--baseline", ",".join(map(str, baseline)), "--candidate", ",".join(map(str, candidate))]
    peer = Peer(
        name,
        command=("python", "-m", "bench.gateways.linnet", "--port", "@port@", "--folder", "@dir@", *ends, *words),
        headers={"authorization": f"Bearer {SECRET}"},
        cwd=".",
        ready="/readyz",
        beside="@dir@/store.pid",
        model=model,
    )
    with running(peer, _PLACES, scene) as target:
        yield target
