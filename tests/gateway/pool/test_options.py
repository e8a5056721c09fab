from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from gateway.pool.options import Balance, PoolOptions

READ = TypeAdapter(PoolOptions)


def test_nothing_said_is_the_usual():
    """Every option has a sensible value."""
    assert READ.validate_python({}) == PoolOptions()


def test_options_are_read_by_name():
    """As they stand in a file."""
    read = READ.validate_python({"balance": "affinity", "slots": 32, "queue_s": 2})
    assert (read.balance, read.slots, read.queue_s) == (Balance.AFFINITY, 32, 2.0)


@pytest.mark.parametrize(
    "given",
    [{"slot": 3}, {"slots": -1}, {"slots": 1.5}, {"balance": "random"}, {"load_bound": 1}, {"queue_s": float("nan")}],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any]):
    """An unknown name and a value out of range are errors."""
    with pytest.raises(ValidationError):
        READ.validate_python(given)
