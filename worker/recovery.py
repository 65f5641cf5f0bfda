"""What a crash left behind goes back in line.

A message may be lost (a worker killed between taking it and noting it down, Redis restarted empty), and a worker may
die with a claim. Neither shows but by time passing. Everything here may run twice and in two places: a message too
many finds nothing to claim.
"""

from datetime import timedelta

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from shared.clock import Clock
from shared.database.engine import transaction
from shared.database.idempotency import purge_keys
from shared.database.lines import find_lost, mark_published
from shared.metrics import SWEPT
from shared.queues import LANE_QUEUES, Publisher

log = structlog.get_logger(__name__)

# A job waits in the broker for a second or two (`worker.feeding`): a message as old as this was lost, or all workers
# are gone.
SILENCE = timedelta(seconds=30)
_MOST_AT_ONCE = 200


class RecoveryService:
    """Finds jobs whose message or worker is gone, and publishes them."""

    def __init__(self, *, engine: Engine, redis: Redis, publisher: Publisher, clock: Clock) -> None:
        """Take its parts."""
        self._engine = engine
        self._redis = redis
        self._publisher = publisher
        self._clock = clock

    def sweep(self) -> int:
        """Publish what was lost; how many.

        A queue that is long already gets nothing: nobody reads it, and another message would not help.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        now = self._clock()
        try:
            is_short = {lane: int(self._redis.llen(queue)) < _MOST_AT_ONCE for lane, queue in LANE_QUEUES.items()}
        except RedisError as error:
            log.warning("sweep_skipped", error=type(error).__name__)
            return 0
        with transaction(self._engine) as connection:
            lost = find_lost(connection, now, silent_since=now - SILENCE, most=_MOST_AT_ONCE)
        published = []
        for job in lost:
            if not is_short[job.lane]:
                continue
            if not self._publisher.publish_job(job.id, job.lane):
                break
            published.append(job.id)
            SWEPT.labels(job.reason).inc()
            log.warning("job_swept", job_id=job.id, reason=job.reason)
        if published:
            with transaction(self._engine) as connection:
                mark_published(connection, published, now)
        return len(published)

    def purge(self) -> int:
        """Forget idempotency keys past their time; how many."""
        with transaction(self._engine) as connection:
            return purge_keys(connection, self._clock())
