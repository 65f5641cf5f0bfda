"""One time for all machines: that of the database.

Leases, waits and expiries are compared between processes. A machine whose clock is wrong, or jumps, would take the
jobs of the living, or keep its own for ever; so nobody's own time of day is written down.
"""

import threading
import time
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Engine, func, select

from shared.clock import utc_now
from shared.database.engine import transaction
from shared.domain.errors import DatabaseUnavailableError

log = structlog.get_logger(__name__)

_FRESH_SECONDS = 30.0
_TELL_SECONDS = 2.0


class DatabaseClock:
    """Tells the database server's time, carried on between two questions by a clock that does not jump.

    Safe to share between threads. Before the database has answered for the first time it tells this machine's.
    """

    def __init__(self, engine: Engine) -> None:
        """Asks nothing before the first use."""
        self._engine = engine
        self._asking = threading.Lock()
        self._asked_at = float("-inf")
        self._known: tuple[datetime, float] | None = None

    def __call__(self) -> datetime:
        """The present moment, aware, UTC."""
        if time.monotonic() - self._asked_at > _FRESH_SECONDS and self._asking.acquire(blocking=False):
            try:
                self._ask()
            finally:
                self._asking.release()
        if self._known is None:
            return utc_now()
        moment, at = self._known
        return moment + timedelta(seconds=time.monotonic() - at)

    def _ask(self) -> None:
        self._asked_at = began = time.monotonic()
        try:
            with transaction(self._engine) as connection:
                moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
                ended = time.monotonic()
        except DatabaseUnavailableError:
            return
        self._known = (moment.astimezone(UTC), (began + ended) / 2)
        off = (utc_now() - self()).total_seconds()
        if abs(off) > _TELL_SECONDS:
            log.warning("clock_off", seconds=round(off, 1))
