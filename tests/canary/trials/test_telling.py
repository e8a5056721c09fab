"""What `linnet simulate` says of what it found."""

from __future__ import annotations

import pytest

from canary.trials import telling


@pytest.mark.parametrize(
    ("holds", "said"), [(True, "holds: 0 of 9"), (False, "is broken: 0 of 9"), (None, "--runs 368 would")]
)
def test_the_sentence_is_plain(holds, said):
    """It holds, it is broken, or so few runs cannot tell."""
    seen = {"scenario": "equal", "count": 0, "low95": 0.0, "high95": 0.336, "holds": holds, "runs_needed": 368}
    assert said in telling.sentence({"false_rollback": seen, "runs": 9, "alpha": 0.01})


def test_a_row_says_what_was_not_reached():
    """A median that was not is later than the story; one guardrail needs no count, several do."""
    row = {"name": "errors", "rolled_back": 6, "low95": 0.262, "high95": 0.878, "median_requests": 40}
    more = {"median_seconds": 20, "p90_seconds": None, "longest_requests": 900, "longest_seconds": 60}
    one = telling._cells({**row, **more, "by": {"error_rate": 6}})
    assert one == ["errors", "6", "26.2 to 87.8 %", "40", "20 s", "> 1 min 0 s", "error_rate"]
    assert telling._cells({**row, **more, "by": {"error_rate": 4, "empty": 2}})[-1] == "error_rate 4, empty 2"
