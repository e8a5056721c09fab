"""Two engines and a worker between a client and them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from canary.core.arms import Split
from canary.storage.store import Store
from tests.gateway.rig import MODEL, House, Sim, gateway, publish, simulated, until


@pytest.fixture
async def base() -> AsyncIterator[Sim]:
    """The baseline's engine."""
    async with simulated("base") as sim:
        yield sim


@pytest.fixture
async def cand() -> AsyncIterator[Sim]:
    """The candidate's engine."""
    async with simulated("legal") as sim:
        yield sim


@pytest.fixture
def split(base: Sim, cand: Sim) -> Split:
    """A release at half."""
    return Split(
        MODEL,
        1,
        base.endpoint(price=(0.001, 0.0, 0.0001)),
        cand.endpoint(price=(0.001, 0.0, 0.0001)),
        release="r1",
        attempt=1,
        stage=3,
        phase="canary",
        percent=50,
        slices=("domain",),
    )


@pytest.fixture
async def alone(base: Sim, tmp_path: Path) -> AsyncIterator[House]:
    """A worker with a static baseline and no store."""
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint())) as house:
        yield house


@pytest.fixture
async def house(split: Split, base: Sim, store: Store, valkey_url: str, tmp_path: Path) -> AsyncIterator[House]:
    """A worker that follows the store, with a release at half under way."""
    await publish(store, split)
    async with gateway(tmp_path, Split(MODEL, 0, base.endpoint()), valkey_url) as house:
        await until(lambda: acknowledged(store, 1), "acknowledgement")
        yield house


async def acknowledged(store: Store, generation: int) -> bool:
    """Tell whether the worker routes by a generation."""
    return (await store.acks(MODEL)).get("w1", (-1, 0))[0] == generation
