from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from canary.storage.store import Store
from tests.release.life import Fragile, Life
from tests.support.valkey import Valkey, running


@pytest.fixture(scope="session")
def valkey_session() -> Iterator[Valkey]:
    """A server that nobody kills, so it need not wait for the disk: these tests write a million times."""
    yield from running("no")


@pytest.fixture
async def fragile(valkey_url: str) -> AsyncIterator[Fragile]:
    """A store of the controller's own, on the same server as `store`."""
    fragile = Fragile.connect(valkey_url)
    assert isinstance(fragile, Fragile)
    yield fragile
    await fragile.close()


@pytest.fixture
async def life(store: Store, fragile: Fragile) -> Life:
    """A control plane without a release, whose controller may die at any command."""
    return Life(store, fragile)
