"""The table of an adaptation is held to its own limits."""

import pytest

from serving.recipe import DEMO
from serving.verdict import complaint, table_of


def row(slice_: str, model: str, ratio: float) -> dict:
    """A row of the table."""
    return {
        "slice": slice_,
        "model": model,
        "perplexity": 30.0 * ratio,
        "ratio": ratio,
        "ratio_interval": [ratio - 0.1, ratio + 0.1],
        "accuracy": 0.25,
        "gain": 0.01,
        "gain_interval": [0.0, 0.02],
    }


def table(domain: float, general: float) -> list[dict]:
    """A baseline and a candidate on both slices."""
    ratios = {"domain": domain, "general": general}
    return [row(s, m, ratios[s] if m == "candidate" else 1.0) for s in ratios for m in ("baseline", "candidate")]


def test_better_in_the_domain_and_no_worse_in_general_is_well():
    """No complaint within the margins."""
    assert complaint(table(0.5, 1.01), DEMO) is None


@pytest.mark.parametrize(
    ("domain", "general", "said"),
    [
        (0.95, 1.0, "candidate has 0.950 times the baseline's domain perplexity, at most 0.9 is allowed"),
        (0.5, 1.03, "candidate has 1.030 times the baseline's general perplexity, at most 1.02 is allowed"),
        (float("nan"), 1.0, "candidate has nan times the baseline's domain perplexity"),
    ],
)
def test_no_gain_or_forgetting_is_one_line_with_its_numbers(domain, general, said):
    """What is not a number is not good either."""
    assert said in (complaint(table(domain, general), DEMO) or "")


def test_the_table_has_a_line_for_each_model_and_slice():
    """Figures with their intervals, one line each, under a heading."""
    lines = table_of(table(0.5, 1.01)).splitlines()
    assert len(lines) == 5
    assert "x0.50 [0.40, 0.60]" in lines[2]
