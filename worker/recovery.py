"""What got lost goes back in line: the sweeper. Safe to run twice and in two places; a doubled message is harmless."""

from datetime import timedelta

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from shared.clock import Clock
from shared.database.engine import transaction
from shared.database.idempotency import purge_keys
from shared.database.jobs import mark_published, unpublished_jobs
from shared.domain.job import Lane
from shared.metrics import SWEPT
from shared.queues import LANE_QUEUES, Publisher

log = structlog.get_logger(__name__)

# A message this old that no worker has acted on, while the queue is empty, is lost.
SILENCE = timedelta(seconds=30)


class RecoveryService:
    """Finds jobs that wait without a message and publishes them, in a bounded window."""

    def __init__(self, *, engine: Engine, redis: Redis, publisher: Publisher, window: int, clock: Clock) -> None:
        """Take its parts; `window` is how many messages a queue may hold before it gets no more from here."""
        self._engine = engine
        self._redis = redis
        self._publisher = publisher
        self._window = window
        self._clock = clock

    def sweep(self) -> int:
        """Publish what should be published; how many.

        This also feeds the bulk lane, whose jobs intake leaves in Postgres: however many wait, the broker holds no
        more than the window.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        try:
            room = {lane: self._window - self._redis.llen(queue) for lane, queue in LANE_QUEUES.items()}
        except RedisError as error:
            log.warning("sweep_skipped", error=type(error).__name__)
            return 0
        swept = 0
        for lane in Lane:
            if room[lane] > 0:
                swept += self._sweep_lane(lane, room[lane])
        return swept

    def _sweep_lane(self, lane: Lane, room: int) -> int:
        now = self._clock()
        queue_is_empty = room == self._window
        with transaction(self._engine) as connection:
            waiting = unpublished_jobs(
                connection,
                lane=lane,
                now=now,
                silent_since=now - SILENCE,
                include_lost=queue_is_empty,
                limit=room,
            )
        published = []
        for row in waiting:
            if not self._publisher.publish_job(row.id, lane):
                break
            published.append(row.id)
            SWEPT.labels(row.reason).inc()
            if row.reason != "due":
                log.warning("job_swept", job_id=row.id, reason=row.reason)
        if published:
            with transaction(self._engine) as connection:
                mark_published(connection, published, now)
        return len(published)

    def purge(self) -> int:
        """Forget idempotency keys past their time; how many."""
        with transaction(self._engine) as connection:
            return purge_keys(connection, self._clock())
