"""What a crash left behind goes back in line.

A message may be lost (a worker killed between taking it and noting it down, Redis restarted empty), a worker may die
with a claim, an erasure or an intake may be cut short. None of it shows but by time passing. Everything here may run
twice and in two places: each step is a compare-and-set, and a message too many finds nothing to claim.

A worker that dies while it prepares an image (`kz:…:preparing`) counts against that job. After three it is poisoned:
the fourth worker would die too. Jobs that waited for a permit or an answer in the same process are not blamed.
"""

from contextlib import suppress
from datetime import datetime, timedelta

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from shared.clock import Clock
from shared.database import recovery as rows
from shared.database.delivery_log import sweep_endpoints, sweep_events
from shared.database.engine import transaction
from shared.database.idempotency import purge_keys
from shared.database.jobs import forget_image
from shared.database.recovery import Abandoned
from shared.domain.errors import DatabaseUnavailableError, StorageUnavailableError
from shared.domain.job import JobStatus
from shared.limits import keys
from shared.metrics import JOBS_SETTLED, POISONED, SWEPT
from shared.queues import LANE_QUEUES, Publisher
from shared.storage import ImageStore

log = structlog.get_logger(__name__)

# A job waits in the broker for a second or two (`worker.feeding`): a message as old as this was lost, or all workers
# are gone.
SILENCE = timedelta(seconds=20)
MOST_CRASHES = 3
_MOST_AT_ONCE = 200
_MOST_EVENTS_AT_ONCE = 1_000
_ORPHANS = "orphans"
# An intake that takes longer has lost its client long ago.
_ORPHAN_AGE = timedelta(days=1)


class RecoveryService:
    """Finds what was lost, and mends it."""

    def __init__(
        self,
        *,
        engine: Engine,
        redis: Redis,
        publisher: Publisher,
        store: ImageStore,
        clock: Clock,
        event_life: timedelta = timedelta(days=30),
    ) -> None:
        """Take its parts; `event_life`: how long events and deliveries are kept."""
        self._engine = engine
        self._event_life = event_life
        self._redis = redis
        self._publisher = publisher
        self._store = store
        self._clock = clock
        self._was_away = False
        self._forgot_at: datetime | None = None

    def sweep(self) -> int:
        """Look once for lost messages, dead workers and jobs past their time; how many were found.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        now = self._clock()
        try:
            with transaction(self._engine) as connection:
                expired = rows.expire_due(connection, now, most=_MOST_AT_ONCE)
                rows.note_chore(connection, rows.SWEEP, now)
        except DatabaseUnavailableError:
            self._was_away = True
            raise
        for job_id, document_type in expired.items():
            self._announce(job_id, document_type, JobStatus.EXPIRED)
        if self._was_away:
            # Nobody could renew a lease meanwhile: the living shall have the time to.
            self._was_away = False
            return len(expired)
        try:
            return len(expired) + self._take_back(now) + self._send_again(now)
        except RedisError as error:
            log.warning("sweep_cut_short", error=type(error).__name__)
            return len(expired)

    def _take_back(self, now: datetime) -> int:
        with transaction(self._engine) as connection:
            abandoned = rows.find_abandoned(connection, now, most=_MOST_AT_ONCE)
        return sum(self._take_back_one(job, now) for job in abandoned)

    def _take_back_one(self, job: Abandoned, now: datetime) -> bool:
        crashed = bool(self._redis.sismember(keys.preparing(job.worker), job.id))
        poisons = crashed and job.crashes + 1 >= MOST_CRASHES
        with transaction(self._engine) as connection:
            if not rows.take_back(connection, job, now, crashed=crashed, poisons=poisons):
                return False
        self._redis.srem(keys.preparing(job.worker), job.id)
        SWEPT.labels("abandoned").inc()
        log.warning("job_swept", job_id=job.id, reason="abandoned", worker=job.worker, while_preparing=crashed)
        if poisons:
            POISONED.inc()
            log.error("job_poisoned", job_id=job.id, crashes=job.crashes + 1)
            self._announce(job.id, job.document_type, JobStatus.FAILED)
        return True

    def _announce(self, job_id: str, document_type: str, status: JobStatus) -> None:
        """Wake held polls; best effort, for they look for themselves every second."""
        JOBS_SETTLED.labels(document_type, status).inc()
        log.info("job_settled", job_id=job_id, status=status)
        with suppress(RedisError):
            self._redis.publish(keys.FINAL_CHANNEL, job_id)

    def _send_again(self, now: datetime) -> int:
        # A queue that is long already gets nothing: nobody reads it, and another message would not help.
        is_short = {lane: int(self._redis.llen(queue)) < _MOST_AT_ONCE for lane, queue in LANE_QUEUES.items()}
        with transaction(self._engine) as connection:
            lost = rows.find_lost(connection, silent_since=self._lost_before(now), most=_MOST_AT_ONCE)
        published = []
        for job in lost:
            if not is_short[job.lane]:
                continue
            if not self._publisher.publish_job(job.id, job.lane):
                break
            published.append(job.id)
            SWEPT.labels("lost").inc()
            log.warning("job_swept", job_id=job.id, reason="lost")
        if published:
            with transaction(self._engine) as connection:
                rows.mark_sent_again(connection, published, now)
        return len(published)

    def _lost_before(self, now: datetime) -> datetime:
        """A message sent before this and not taken is lost. When Redis has forgotten everything, all of them are."""
        if self._redis.set(keys.MEMORY, "1", nx=True):
            self._forgot_at = now
            log.warning("broker_forgot")
        silent_since = now - SILENCE
        return silent_since if self._forgot_at is None else max(silent_since, self._forgot_at)

    def purge(self) -> int:
        """Forget what is past its time: keys, events, endpoints, images of erased jobs, images without a job; how much.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        with transaction(self._engine) as connection:
            purged = purge_keys(connection, self._clock())
        purged += self._sweep_events()
        try:
            return purged + self._finish_erasures() + self._erase_orphans()
        except StorageUnavailableError:
            log.warning("purge_cut_short")
            return purged

    def _sweep_events(self) -> int:
        before, swept = self._clock() - self._event_life, 0
        while True:
            with transaction(self._engine) as connection:
                portion = sweep_events(connection, before, most=_MOST_EVENTS_AT_ONCE)
                portion += sweep_endpoints(connection, most=_MOST_EVENTS_AT_ONCE)
            swept += portion
            if portion < _MOST_EVENTS_AT_ONCE:
                return swept

    def _finish_erasures(self) -> int:
        with transaction(self._engine) as connection:
            erasing = rows.find_erasing(connection, most=_MOST_AT_ONCE)
        for job_id, key in erasing:
            self._store.delete(key)
            with transaction(self._engine) as connection:
                forget_image(connection, job_id)
            log.info("erasure_finished", job_id=job_id)
        return len(erasing)

    def _erase_orphans(self) -> int:
        """Go through the folder of each day once, when every intake of that day has ended one way or the other."""
        with transaction(self._engine) as connection:
            done = rows.chore_noted(connection, _ORPHANS)
        last = (self._clock() - _ORPHAN_AGE).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
        erased = 0
        for day in self._store.days():
            if day > last or (done is not None and day <= done):
                continue
            for names in self._store.images_of(day):
                with transaction(self._engine) as connection:
                    orphans = rows.without_row(connection, list(names))
                for job_id in orphans:
                    self._store.delete(names[job_id])
                    log.warning("orphan_image_erased", job_id=job_id)
                erased += len(orphans)
            with transaction(self._engine) as connection:
                rows.note_chore(connection, _ORPHANS, day)
        return erased
