"""What an account may do at one endpoint, when its day turns, and how its pace is learnt.

Baidu settles by Beijing time (https://ai.baidu.com/ai-doc/OCR/Jk3h7xtsd). China keeps UTC+8
all year: a fixed offset, no zone database needed.
"""

import math
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from enum import StrEnum

from shared.domain.job import WaitingOn

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")

LEARNT_GROWTH_PER_MINUTE = 0.01
"""By which share of the limit the pace creeps back after refusals."""


class Billing(StrEnum):
    """Who pays for a call of an account, and when. The order is the one in which accounts are used by default."""

    FREE = "free"
    """A free allowance: failed calls may use it up too."""
    PACK = "pack"
    """Calls bought beforehand."""
    POSTPAID = "postpaid"
    """Paid by the call, at the month's tiers."""

    @property
    def counts_failures(self) -> bool:
        """Whether a call that the provider made and failed uses up quota.

        Baidu bills successful calls only; a sister product counts failures against the free allowance
        (https://ai.baidu.com/ai-doc/ANTIPORN/s/akp5jtduq), so we assume it here.
        """
        return self is Billing.FREE


class StopReason(StrEnum):
    """Why an endpoint of an account is not called."""

    DAILY_QUOTA = "daily_quota"
    """The day's calls are used up: lifted when the provider's day turns."""
    TOTAL_QUOTA = "total_quota"
    """All calls are used up: the operator has to buy more."""
    MISCONFIGURED = "misconfigured"
    """The provider refuses the account's keys, its permissions or its address: the operator has to repair it."""
    UNCLAIMED = "unclaimed"
    """Error 18 at the slowest pace: the free quota is probably not claimed in the provider's console."""
    OUTAGE = "outage"
    """The provider does not answer: lifted as soon as it does."""

    @property
    def waiting_on(self) -> WaitingOn:
        """What a job waits for that only this holds up."""
        return {
            StopReason.DAILY_QUOTA: WaitingOn.UPSTREAM_DAILY_QUOTA,
            StopReason.TOTAL_QUOTA: WaitingOn.UPSTREAM_TOTAL_QUOTA,
        }.get(self, WaitingOn.PROVIDER_OUTAGE)

    @property
    def is_quota(self) -> bool:
        """Whether quota is gone, rather than something broken."""
        return self in (StopReason.DAILY_QUOTA, StopReason.TOTAL_QUOTA)


@dataclass(frozen=True)
class Quota:
    """Limits of one account at one endpoint; None means no limit.

    `in_flight_limit` is for a provider that counts calls at a time rather than calls a second.
    """

    qps: float
    day_limit: int | None = None
    total_limit: int | None = None
    in_flight_limit: int | None = None


def quota_day(moment: datetime, zone: timezone = SHANGHAI) -> date:
    """The provider's day in which a moment falls."""
    return moment.astimezone(zone).date()


def end_of_day(day: date, zone: timezone = SHANGHAI) -> datetime:
    """When a provider's day is over."""
    return datetime.combine(day + timedelta(days=1), time.min, zone)


def paced_interval(qps: float, spread_seconds: float) -> timedelta:
    """Time between two calls so that no window of one second sees more than the limit.

    With a spread of J seconds between permit and arrival, calls that arrive within one second were granted within
    1+J seconds; (1+J)/Q between grants keeps any such second at Q or fewer (at the next whole number, if Q is none).
    Rounded up to a microsecond: rounded down, Q intervals would fall short of the window.
    """
    return timedelta(microseconds=math.ceil((1 + spread_seconds) * 1e6 / qps))
