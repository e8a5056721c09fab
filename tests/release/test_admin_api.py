"""schemathesis against the admin API as it listens: whatever is asked, the answer is one that the schema tells."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from canary.api.authority import ROLES
from canary.commands import VERBS
from canary.storage.store import Store
from tests.canary.world import World

EXAMPLES = 25


@pytest.fixture
def released(valkey_url: str) -> None:
    """A release in the canary."""

    async def begin() -> None:
        store = Store.connect(valkey_url)
        await World(store).to_canary()
        await store.close()

    asyncio.run(begin())


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_schemathesis_finds_nothing(released: None, control_url: str, mode: GenerationMode) -> None:
    """No 5xx, no status code, type or body that the schema does not tell; every listed route is asked."""
    schema = schemathesis.openapi.from_url(f"{control_url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {(one.method.upper(), one.path) for one in operations} == set(ROLES)
    for operation in operations:
        with suppress(Unsatisfiable):  # where there is nothing to ask for, nothing can be asked for wrongly
            asking(operation.as_strategy(generation_mode=mode))()


def asking(cases: st.SearchStrategy[Case]) -> Callable[[], None]:
    """Return what asks for everything that is drawn, of any model and of the one with a release.

    What a schema allows may still be refused: it cannot tell what a release permits, or what is YAML.
    """

    @settings(max_examples=EXAMPLES, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=cases, here=st.booleans(), verb=st.sampled_from(list(VERBS)))
    def ask(case: Case, *, here: bool, verb: str) -> None:
        if here and "model" in (case.path_parameters or {}):
            case.path_parameters["model"] = "m"
        if here and isinstance(case.body, dict) and "verb" in case.body:
            case.body |= {"verb": verb, "reason": "because"}
        case.call_and_validate(excluded_checks=[positive_data_acceptance])

    return ask
