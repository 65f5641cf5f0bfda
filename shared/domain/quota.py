"""What an account may do at one endpoint, and when its day turns.

Baidu settles by Beijing time (https://ai.baidu.com/ai-doc/OCR/Jk3h7xtsd). China keeps UTC+8
all year: a fixed offset, no zone database needed.
"""

import math
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone

SHANGHAI = timezone(timedelta(hours=8), "Asia/Shanghai")


@dataclass(frozen=True)
class Quota:
    """Limits of one account at one endpoint; None means no limit."""

    qps: float
    day_limit: int | None = None
    total_limit: int | None = None


def quota_day(moment: datetime) -> date:
    """The provider's day in which a moment falls."""
    return moment.astimezone(SHANGHAI).date()


def next_day(moment: datetime) -> datetime:
    """When the provider's next day begins."""
    return datetime.combine(quota_day(moment) + timedelta(days=1), time.min, SHANGHAI)


def paced_interval(qps: float, jitter_seconds: float) -> timedelta:
    """Time between two calls so that no window of one second sees more than the limit.

    With a spread of J seconds between permit and arrival, calls that arrive within one second were granted within
    1+J seconds; (1+J)/Q between grants keeps any such second at Q or fewer (at the next whole number, if Q is none).
    Rounded up to a microsecond: rounded down, Q intervals would fall short of the window.
    """
    return timedelta(microseconds=math.ceil((1 + jitter_seconds) * 1e6 / qps))
