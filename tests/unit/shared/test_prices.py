"""What calls cost: each tier applies to its own part of the month."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.prices import DEFAULT_PRICES, cost_of, make_prices, tiers_of
from shared.domain.quota import Billing

TIERS = make_prices({"idcard": [(0, 0.05), (100, 0.04), (200, 0.01)]})["idcard"]
CALLS = st.integers(0, 500)


@pytest.mark.parametrize(
    ("before", "billed", "cost"),
    [
        (0, 0, "0"),
        (0, 100, "5.00"),  # all in the first tier
        (0, 150, "7.00"),  # 100 at 0.05, 50 at 0.04
        (50, 100, "4.50"),  # 50 left of the first tier
        (100, 1, "0.04"),
        (0, 300, "10.00"),  # all three
        (1000, 10, "0.10"),
    ],
)
def test_each_call_has_the_price_of_its_tier(before: int, billed: int, cost: str) -> None:
    assert cost_of(before, billed, TIERS) == Decimal(cost)


@given(before=CALLS, first=CALLS, second=CALLS)
def test_a_bill_in_two_parts_is_the_same_bill(before: int, first: int, second: int) -> None:
    in_parts = cost_of(before, first, TIERS) + cost_of(before + first, second, TIERS)

    assert in_parts == cost_of(before, first + second, TIERS)


@pytest.mark.parametrize("billing", [Billing.FREE, Billing.PACK])
def test_a_call_that_is_free_or_paid_before_costs_nothing(billing: Billing) -> None:
    assert cost_of(0, 100, tiers_of(make_prices(DEFAULT_PRICES), "idcard", billing)) == 0


def test_an_endpoint_without_prices_of_its_own_has_those_of_all_others() -> None:
    prices = make_prices({"*": [(0, 0.1)], "idcard": [(0, 0.2)]})

    assert cost_of(0, 1, tiers_of(prices, "bankcard", Billing.POSTPAID)) == Decimal("0.1")
    assert cost_of(0, 1, tiers_of(prices, "idcard", Billing.POSTPAID)) == Decimal("0.2")


@pytest.mark.parametrize("rows", [[], [(1, 0.1)], [(0, 0.1), (0, 0.2)], [(0, 0.2), (100, 0.1), (50, 0.1)], [(0, -1.0)]])
def test_a_table_without_sense_is_refused(rows: list[tuple[int, float]]) -> None:
    with pytest.raises(ValueError, match="idcard"):
        make_prices({"idcard": rows})
