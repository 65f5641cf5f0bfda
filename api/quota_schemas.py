"""Answer of `/v1/quotas`."""

from typing import Literal

from pydantic import Field

from api.schemas import Contract, Time


class StopView(Contract):
    """Why an endpoint of an account is not called, since when, and until when (null: until it is repaired)."""

    reason: Literal["daily_quota", "total_quota", "misconfigured", "unclaimed", "outage"]
    upstream_code: str | None
    detail: str
    since: Time
    until: Time | None


class QuotaView(Contract):
    """One endpoint of one account. A limit that is null is none."""

    account: str
    endpoint: str
    billing: Literal["free", "pack", "postpaid"]
    state: Literal["open", "slowed", "paused", "daily_quota", "total_quota", "misconfigured", "unclaimed", "outage"] = (
        Field(
            description="`slowed`: refusals for the rate taught a smaller share of the pace; `paused`: by the operator."
        )
    )
    qps_limit: float = Field(description="Calls a second that the account may make.")
    pace: float = Field(description="Calls a second made at most: the limit less the margin, times the learnt share.")
    learnt_share: float = Field(description="What refusals taught, 0 to 1.")
    calls_last_second: int
    in_flight: int
    in_flight_limit: int | None
    used_today: int
    day_limit: int | None
    left_today: int | None
    day_ends_at: Time
    used_in_all: int | None = Field(description="Counted only where there is a limit.")
    total_limit: int | None
    stop: StopView | None


class LineView(Contract):
    """The jobs that wait for one endpoint, all clients' together."""

    endpoint: str
    interactive: int
    bulk: int
    parked: int = Field(description="All of them while no account may call the endpoint, else 0.")


class Quotas(Contract):
    """What is left, and who waits for it."""

    object: Literal["quotas"]
    data: list[QuotaView]
    lines: list[LineView]
