from __future__ import annotations

import json

import pytest

from bench.gateways.scenarios import SCENARIOS, USER, USUAL, body


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_body_has_its_prompt_and_the_place_of_its_user(name):
    """The generators write the number where the zeros are, without reading JSON."""
    scenario = SCENARIOS[name]
    raw = body(scenario, "m")
    asked = json.loads(raw)
    assert raw.count(USER.encode()) == 1
    assert len(asked["messages"][1]["content"]) == scenario.prompt
    assert asked.get("stream", False) is scenario.streamed


def test_the_usual_scenarios_exist():
    """A default that names none would measure nothing."""
    assert set(USUAL) <= set(SCENARIOS)
