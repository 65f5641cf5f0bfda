"""What an account may call: a sliding window of QPS and a count of the day, per account and endpoint.

A refused call does not enter the window, and an admitted one counts for the day even if it then fails: Baidu says that
failures are not billed, and is silent about the free quota; counting them is the stricter reading.
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import date, timedelta, timezone

from sandbox.accounts import Account
from sandbox.clock import Clock
from sandbox.faults import Fault, FaultError

# No daylight saving time there, so that no time zone database is needed.
SHANGHAI = timezone(timedelta(hours=8))


@dataclass
class _Usage:
    admitted_at: deque[float] = field(default_factory=deque)
    day: date | None = None
    day_count: int = 0


class QuotaBook:
    """Admits or refuses calls; safe to use from many threads."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._usage: dict[tuple[str, str], _Usage] = {}
        self._lock = threading.Lock()

    def admit(self, account: Account, endpoint: str) -> None:
        """Count one call.

        Raises:
            FaultError: the day's calls are used up (17), or the last second is full (18).
        """
        limit = max(1, int(account.qps))
        window_seconds = 1.0 if account.qps >= 1 else 1.0 / account.qps
        with self._lock:
            # Inside the lock, so that the moments in the window never go backwards.
            now = self._clock()
            moment, day = now.timestamp(), now.astimezone(SHANGHAI).date()
            usage = self._usage.setdefault((account.api_key, endpoint), _Usage())
            if usage.day != day:
                usage.day, usage.day_count = day, 0
            if account.day_limit is not None and usage.day_count >= account.day_limit:
                raise FaultError(Fault.DAY_LIMIT)
            while usage.admitted_at and usage.admitted_at[0] <= moment - window_seconds:
                usage.admitted_at.popleft()
            if len(usage.admitted_at) >= limit:
                raise FaultError(Fault.QPS_LIMIT)
            usage.admitted_at.append(moment)
            usage.day_count += 1
