"""serving/cost.py."""

import pytest

from serving.cost import CostError, Price, bill_usd_per_million_tokens


def test_the_bill_cost_is_rent_over_tokens():
    """3.6 USD/h for 1000 s is 1 USD; over 500,000 tokens that is 2 USD a million."""
    assert bill_usd_per_million_tokens(3.6, 500_000, 1000.0) == pytest.approx(2.0)
    with pytest.raises(CostError, match="no cost per token"):
        bill_usd_per_million_tokens(3.6, 0, 1000.0)


def test_a_price_survives_json():
    """Lists come back as prices; anything else is refused."""
    price = Price(0.1, 0.2, 0.3)
    assert Price.from_tuple(list(price.to_tuple())) == price
    with pytest.raises(ValueError, match="unpack"):
        Price.from_tuple([1.0])
