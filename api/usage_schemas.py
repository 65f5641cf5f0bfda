"""Query and answer of `/v1/usage`."""

from datetime import date
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from api.schemas import Contract

Dimension = Literal["day", "document_type", "account"]


def _split(value: object) -> object:
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _distinct(value: list[Dimension]) -> list[Dimension]:
    return list(dict.fromkeys(value))


class UsageQuery(Contract):
    """Which days, both included (the provider's, by its own zone), and what to tell apart."""

    from_: date | None = Field(None, alias="from", description="First day; by default 29 days before the last.")
    to: date | None = Field(None, description="Last day; by default today.")
    by: Annotated[list[Dimension], BeforeValidator(_split), AfterValidator(_distinct)] = Field(
        ["day"], description="What to tell apart, comma separated: day, document_type, account."
    )


class UsageCounts(Contract):
    """Counts and cost. `unfinished` calls are under way, or lost their worker; `saved` jobs needed no call."""

    calls: int
    succeeded: int
    failed: int
    unfinished: int
    billed: int
    saved: int
    cost: str = Field(description="CNY, by the operator's price tiers; of accounts paid by the call.")


class UsageView(UsageCounts):
    """One group; a dimension that was not asked for is null, and `account` is for jobs that needed no call."""

    day: date | None
    document_type: str | None
    account: str | None


class UsageReport(Contract):
    """What the client used."""

    object: Literal["usage"]
    from_: date = Field(alias="from")
    to: date
    by: list[Dimension]
    currency: Literal["CNY"]
    data: list[UsageView]
    total: UsageCounts
