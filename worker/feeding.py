"""Feeding: ready jobs go from Postgres to the broker, in turns, in a window that follows the pace of each endpoint.

The broker holds about as many messages as the next second or two will use, however many jobs wait: its memory does not
grow with the backlog, a client that comes late waits for that window and not for the backlog, and the messages that a
crash of Redis can lose are few. An endpoint that nobody may call is not fed; its jobs stay in line, and go on from
there when it is called again, oldest first, at its pace.

Every worker process feeds; a lock in Redis lets one at a time. Two at once would only send a message twice.
"""

import math
import threading
import time

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from shared.clock import Clock
from shared.database.engine import transaction
from shared.database.lines import Ready, count_outstanding, find_ready, mark_published, take_turns, unpark_due
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import DatabaseUnavailableError
from shared.domain.job import Lane
from shared.limits import keys
from shared.queues import Publisher
from worker.accounts import AccountPool

log = structlog.get_logger(__name__)

FEED_SECONDS = 0.25
_MOST_UNPARKED = 500
# A worker process that has not been heard of for so long is dead.
_ALIVE_SECONDS = 10
# How many seconds of calls wait in the broker, and how many more at least. People's jobs are sent when they come; what
# is fed of theirs was put back in line.
_WINDOWS = {Lane.INTERACTIVE: (0.5, 2), Lane.BULK: (1.5, 4)}
_TURNS_LIFE_SECONDS = 86_400
_ENDPOINTS = sorted({document.endpoint for document in DOCUMENT_TYPES.values()})


class Feeder:
    """Sends what is ready. Safe to run in many processes."""

    def __init__(
        self, *, engine: Engine, redis: Redis, publisher: Publisher, accounts: AccountPool, worker: str, clock: Clock
    ) -> None:
        """Take its parts; `worker` is the name under which this process claims jobs."""
        self._engine = engine
        self._redis = redis
        self._publisher = publisher
        self._accounts = accounts
        self._worker = worker
        self._clock = clock

    def run(self, stopping: threading.Event) -> None:
        """Feed, a few times a second, until told to stop."""
        told_at = float("-inf")
        while not stopping.wait(FEED_SECONDS):
            try:
                if time.monotonic() - told_at > _ALIVE_SECONDS / 5:
                    told_at = time.monotonic()
                    self.tell_alive()
                if self._redis.set(keys.FEEDING, "1", nx=True, px=int(FEED_SECONDS * 900)):
                    self.feed()
            except (RedisError, DatabaseUnavailableError) as error:
                log.warning("feeding_skipped", error=type(error).__name__)
                stopping.wait(1.0)
            except Exception:
                # A thread that ends here would stop the lines for good.
                log.exception("feeding_failed")
                stopping.wait(5.0)

    def tell_alive(self) -> None:
        """Let the others know that this process lives, and so do its claims.

        Raises:
            RedisError: Redis is away.
        """
        self._redis.zadd(keys.WORKERS, {self._worker: self._redis.time()[0]})

    def feed(self) -> int:
        """Send what may be sent now; how many.

        Raises:
            DatabaseUnavailableError: Postgres is away.
            RedisError: Redis is away.
        """
        now = self._clock()
        self._accounts.lift_due()
        with transaction(self._engine) as connection:
            unpark_due(connection, now, most=_MOST_UNPARKED)
            ready = find_ready(connection, _ENDPOINTS)
            if not ready:
                return 0
            outstanding = count_outstanding(connection, self._live_workers())
        fed = 0
        for endpoint, lane in ready:
            room = self._room(endpoint, lane, outstanding.get((endpoint, lane), 0))
            if room > 0:
                fed += self._send(endpoint, lane, room)
        return fed

    def _live_workers(self) -> list[str]:
        since = self._redis.time()[0] - _ALIVE_SECONDS
        self._redis.zremrangebyscore(keys.WORKERS, "-inf", f"({since - 3600}")
        return [str(worker) for worker in self._redis.zrangebyscore(keys.WORKERS, since, "+inf")]

    def _room(self, endpoint: str, lane: Lane, outstanding: int) -> int:
        """How many more jobs of an endpoint may wait for a permit in the broker and the workers."""
        accounts = self._accounts.usable(endpoint)
        if not accounts:
            # One job may find out whether the endpoint can be called again.
            return 1 - outstanding if self._accounts.has_probe(endpoint) else 0
        pipeline = self._redis.pipeline(transaction=False)
        for account in accounts:
            pipeline.zcard(keys.in_flight(account.id, endpoint))
        flying: list[int] = pipeline.execute()
        waiting = outstanding - sum(flying)
        seconds, more = _WINDOWS[lane]
        window = math.ceil(seconds * sum(account.quota(endpoint).qps for account in accounts)) + more
        return min(window, window - waiting)

    def _send(self, endpoint: str, lane: Lane, most: int) -> int:
        now = self._clock()
        turns = {str(whose): str(last) for whose, last in self._redis.hgetall(keys.feed_turns(lane, endpoint)).items()}
        with transaction(self._engine) as connection:
            taken = take_turns(connection, lane, endpoint, most=most, last_turns=turns)
        sent: list[Ready] = []
        for job in taken:
            if not self._publisher.publish_job(job.id, lane):
                break
            sent.append(job)
        if sent:
            with transaction(self._engine) as connection:
                mark_published(connection, [job.id for job in sent], now)
            pipeline = self._redis.pipeline(transaction=False)
            for whose, last in [*((job.client_id, job.batch_id) for job in sent), ("", sent[-1].client_id)]:
                pipeline.hset(keys.feed_turns(lane, endpoint), whose, last)
            pipeline.expire(keys.feed_turns(lane, endpoint), _TURNS_LIFE_SECONDS)
            pipeline.execute()
        return len(sent)
