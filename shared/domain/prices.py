"""What calls cost: tiers by how many were billed in the month.

Baidu bills successful calls, by natural month and interface, in tiers that apply each to its own part
(https://ai.baidu.com/ai-doc/OCR/gk3h7xvar, read November 2026). The default is the table published there for iOCR; the
prices of the card interfaces could not be retrieved: set your own (KAZHENG_PRICES).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from shared.domain.quota import Billing

ANY_ENDPOINT = "*"


@dataclass(frozen=True)
class Tier:
    """A price in CNY a call, from so many calls of the month on."""

    calls_from: int
    price: Decimal


Tiers = Sequence[Tier]
Prices = Mapping[str, Tiers]

DEFAULT_PRICES: dict[str, list[tuple[int, float]]] = {
    ANY_ENDPOINT: [(0, 0.05), (20_000, 0.04), (50_000, 0.032), (100_000, 0.026), (200_000, 0.022), (300_000, 0.02)]
}


def make_prices(table: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, list[Tier]]:
    """Prices from the table of the setting.

    Raises:
        ValueError: an endpoint's tiers do not begin at 0 and rise.
    """
    prices = {}
    for endpoint, rows in table.items():
        starts = [calls_from for calls_from, _ in rows]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"the tiers of {endpoint} must begin at 0 calls and rise")
        if any(price < 0 for _, price in rows):
            raise ValueError(f"a price of {endpoint} is negative")
        prices[endpoint] = [Tier(calls_from, Decimal(str(price))) for calls_from, price in rows]
    return prices


def cost_of(billed_before: int, billed: int, tiers: Tiers) -> Decimal:
    """What so many billed calls cost, in CNY.

    Args:
        billed_before: calls billed earlier in the month, at the same account and endpoint.
    """
    cost, end = Decimal(0), billed_before + billed
    for number, tier in enumerate(tiers):
        next_from = tiers[number + 1].calls_from if number + 1 < len(tiers) else end
        in_tier = min(end, max(next_from, tier.calls_from)) - max(billed_before, tier.calls_from)
        cost += tier.price * max(0, in_tier)
    return cost


def tiers_of(prices: Prices, endpoint: str, billing: Billing) -> Tiers:
    """The tiers of an endpoint; none where a call is free, or was paid with its pack."""
    if billing is not Billing.POSTPAID:
        return []
    return prices.get(endpoint) or prices.get(ANY_ENDPOINT) or []
