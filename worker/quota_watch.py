"""Tells clients before a quota is used up: `quota.warning`, once for each quota and day."""

from collections.abc import Iterator
from datetime import date, timezone

from sqlalchemy import Connection, Engine

from shared.clock import Clock
from shared.database.accounts import Account, list_accounts
from shared.database.attempts import count_calls
from shared.database.engine import transaction
from shared.database.events import record_event
from shared.domain.quota import quota_day
from shared.domain.webhook import EventType

_WARN_PERCENT = 80


class QuotaWatch:
    """Looks at what is left of quotas. It may look twice, and in two places."""

    def __init__(self, *, engine: Engine, clock: Clock, zone: timezone) -> None:
        """Take its parts; `zone`: where the provider's day turns."""
        self._engine = engine
        self._clock = clock
        self._zone = zone

    def look(self) -> int:
        """Record a warning for each quota of which four fifths are used; how many quotas those are.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        now = self._clock()
        today, warned = quota_day(now, self._zone), 0
        with transaction(self._engine) as connection:
            for account in list_accounts(connection):
                for endpoint, period, limit, day in _limits(account, today):
                    warned += self._look_at(connection, account, endpoint, period, limit, day)
        return warned

    def _look_at(
        self, connection: Connection, account: Account, endpoint: str, period: str, limit: int, day: date | None
    ) -> bool:
        used = count_calls(connection, account.id, endpoint, day)
        if limit == 0 or used * 100 < limit * _WARN_PERCENT:
            return False
        data = {"account": account.name, "endpoint": endpoint, "quota": period, "used": used, "limit": limit}
        once = f"{EventType.QUOTA_WARNING}/{account.id}/{endpoint}/{day or period}/{limit}"
        record_event(connection, EventType.QUOTA_WARNING, data, self._clock(), once=once)
        return True


def _limits(account: Account, today: date) -> Iterator[tuple[str, str, int, date | None]]:
    for endpoint, quota in account.quotas.items():
        if quota.day_limit is not None:
            yield endpoint, "day", quota.day_limit, today
        if quota.total_limit is not None:
            yield endpoint, "total", quota.total_limit, None
