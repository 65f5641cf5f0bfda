"""Held polls: a request waits until its job is final, without holding anything but its thread.

One thread of the process listens on a Redis channel where workers say which job became final; another asks Postgres
once a second, in one statement, about all jobs that somebody here waits for. The first is quick, the second is sure:
without Redis a poll ends at most a second late. A NOTIFY of Postgres would take a lock at every commit, and a Redis
connection for each waiting client would run out of them.

Only so many polls are held; the rest is answered at once and told when to ask again, so that a thread is always left
for whoever brings an image.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from shared.database.engine import transaction
from shared.database.jobs import final_ids
from shared.domain.errors import DatabaseUnavailableError
from shared.limits.keys import FINAL_CHANNEL

log = structlog.get_logger(__name__)

_CHECK_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0


class Watch:
    """One held poll, registered before the job is read, so that no word gets lost in between."""

    def __init__(self) -> None:
        """Not woken yet."""
        self._woken = threading.Event()

    def wake(self) -> None:
        """End the wait."""
        self._woken.set()

    def wait(self, seconds: float) -> None:
        """Wait until woken, but no longer than this."""
        self._woken.wait(max(0.0, seconds))


class FinalWatch:
    """Wakes held polls when their job is final. Safe to share between threads."""

    def __init__(self, engine: Engine, connect: Callable[[], Redis], *, capacity: int) -> None:
        """Take the database, a way to reach Redis, and how many polls may be held; its threads start when needed."""
        self._engine = engine
        self._connect = connect
        self._slots = threading.BoundedSemaphore(capacity)
        self._lock = threading.Lock()
        self._watches: dict[str, list[Watch]] = {}
        self._started = False
        self._stopping = threading.Event()

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Watch | None]:
        """Watch a job for the length of a `with` block; None when no more polls can be held."""
        if self._stopping.is_set() or not self._slots.acquire(blocking=False):
            yield None
            return
        watch = Watch()
        try:
            self._start()
            with self._lock:
                self._watches.setdefault(job_id, []).append(watch)
            if self._stopping.is_set():
                watch.wake()
            yield watch
        finally:
            with self._lock:
                remaining = [other for other in self._watches.get(job_id, ()) if other is not watch]
                if remaining:
                    self._watches[job_id] = remaining
                else:
                    self._watches.pop(job_id, None)
            self._slots.release()

    def stop(self) -> None:
        """End all waits soon: the process is about to end. Only sets a flag, so a signal handler may call it."""
        self._stopping.set()

    def close(self) -> None:
        """End all waits and the threads."""
        self._stopping.set()
        self._wake_all()

    def _start(self) -> None:
        with self._lock:
            if self._started:
                return
            self._started = True
        for target in (self._listen, self._check):
            threading.Thread(target=target, name=f"final{target.__name__}", daemon=True).start()

    def _wake(self, job_ids: set[str]) -> None:
        with self._lock:
            watches = [watch for job_id in job_ids for watch in self._watches.get(job_id, ())]
        for watch in watches:
            watch.wake()

    def _wake_all(self) -> None:
        with self._lock:
            job_ids = set(self._watches)
        self._wake(job_ids)

    def _check(self) -> None:
        while not self._stopping.wait(_CHECK_SECONDS):
            with self._lock:
                job_ids = list(self._watches)
            if not job_ids:
                continue
            try:
                with transaction(self._engine) as connection:
                    final = final_ids(connection, job_ids)
            except DatabaseUnavailableError:
                log.warning("final_check_failed")
                continue
            except Exception:  # a thread that ends here would let every poll without Redis run to its timeout
                log.exception("final_check_failed")
                continue
            self._wake(final)
        self._wake_all()

    def _listen(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            connected_at = time.monotonic()
            try:
                with closing(self._connect()) as redis, _subscription(redis) as pubsub:
                    while not self._stopping.is_set():
                        message = pubsub.get_message(timeout=1.0)
                        if message is not None:
                            self._wake({str(message["data"])})
            except (RedisError, OSError) as error:
                log.warning("final_channel_lost", error=type(error).__name__)
            if time.monotonic() - connected_at > _LONGEST_PAUSE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


@contextmanager
def _subscription(redis: Redis) -> Iterator[Any]:
    pubsub = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    try:
        pubsub.subscribe(FINAL_CHANNEL)
        yield pubsub
    finally:
        pubsub.close()
