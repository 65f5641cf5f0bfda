"""Batches, followed from outside: their progress is told, and they are completed when the last item is final.

Who settles the last item can't know that it is the last: two may settle at once, and neither sees the other. So a
periodic task looks. It may run twice and in two places; each step is a compare-and-set.
"""

import time

import structlog
from sqlalchemy import Engine

from shared.clock import Clock
from shared.database import batches as rows
from shared.database.batches import Batch
from shared.database.engine import transaction

log = structlog.get_logger(__name__)

_STEP_PERCENT = 10
_AT_ONCE = 2_000
# Counting a batch of 100 000 keeps Postgres busy for a tenth of a second.
_COUNT_SECONDS = 10.0


class BatchFollower:
    """Tells of batches, and completes them."""

    def __init__(self, *, engine: Engine, clock: Clock) -> None:
        """Take its parts."""
        self._engine = engine
        self._clock = clock
        self._counted_at: dict[str, float] = {}

    def follow(self) -> int:
        """Look at every batch that is closed and not completed; how many were completed.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        with transaction(self._engine) as connection:
            running = rows.list_running(connection)
        self._counted_at = {batch.id: self._counted_at.get(batch.id, float("-inf")) for batch, _ in running}
        return sum(self._follow_one(batch, told) for batch, told in running)

    def _follow_one(self, batch: Batch, told_percent: int) -> bool:
        now = self._clock()
        if batch.canceled_at is not None:  # a cancellation may have been cut short
            with transaction(self._engine) as connection:
                rows.cancel_waiting(connection, batch.id, now, most=_AT_ONCE)
        with transaction(self._engine) as connection:
            rows.lock_batch(connection, batch.id)  # nobody puts items back in line meanwhile
            is_fresh = time.monotonic() - self._counted_at[batch.id] < _COUNT_SECONDS
            if is_fresh and rows.has_open_items(connection, batch.id):
                return False
            self._counted_at[batch.id] = time.monotonic()
            counts = rows.count_items(connection, batch.id)
            if counts.final == counts.total:
                completed = rows.complete(connection, batch, counts, now)
                if completed:
                    log.info("batch_completed", batch_id=batch.id, items=counts.total)
                return completed
            percent = 100 * counts.final // counts.total // _STEP_PERCENT * _STEP_PERCENT
            if percent > told_percent:
                rows.tell_progress(connection, batch, counts, percent, now)
        return False
