"""Claims are kept alive while their tasks run.

A lease is short, so that a dead worker's jobs run again soon; this thread renews those of a living one, so that a long
call is not stolen. A task that has run beyond all deadlines hangs: it is not kept alive any longer.

A worker that can't renew (it is cut off from Postgres) knows when its leases end, and ends its calls before they do
(`safe_until`): whoever claims the job next calls alone.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import Engine

from shared.clock import Clock
from shared.database.engine import transaction
from shared.database.recovery import renew_leases
from shared.domain.errors import DatabaseUnavailableError

log = structlog.get_logger(__name__)

# The others' idea of the time may be off by so much.
_MARGIN_SECONDS = 1.0


@dataclass
class _Held:
    """A claim: since when, and until when it is surely ours, both by `time.monotonic`."""

    since: float
    safe_until: float


class LeaseKeeper:
    """Renews the leases of this process. Safe to share between threads."""

    def __init__(self, *, engine: Engine, lease: timedelta, longest_task: timedelta, clock: Clock) -> None:
        """Take its parts; `longest_task`: whoever holds a claim for longer hangs."""
        self._engine = engine
        self._lease = lease
        self._safe_seconds = lease.total_seconds() - _MARGIN_SECONDS
        self._longest_task = longest_task.total_seconds()
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}

    @contextmanager
    def keeping(self, token: str, *, since: float) -> Iterator[None]:
        """Keep a claim alive for the length of a `with` block; `since`: `time.monotonic` before it was claimed."""
        with self._lock:
            self._held[token] = _Held(since, since + self._safe_seconds)
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(token, None)

    def safe_until(self, token: str) -> float:
        """Until when, by `time.monotonic`, nobody else will take the job."""
        with self._lock:
            held = self._held.get(token)
            return float("-inf") if held is None else held.safe_until

    def run(self, stopping: threading.Event) -> None:
        """Renew, four times in the life of a lease, until told to stop."""
        while not stopping.wait(self._lease.total_seconds() / 4):
            try:
                self.renew()
            except DatabaseUnavailableError:
                log.warning("leases_not_renewed")
            except Exception:
                # Without this thread every call longer than a lease would be made twice.
                log.exception("lease_renewal_failed")

    def renew(self) -> int:
        """Renew all leases held for a while; how many are still ours.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        began = time.monotonic()
        with self._lock:
            # A claim younger than this has most of its lease before it.
            aged = {token: held for token, held in self._held.items() if began - held.since > 1}
        overdue = [token for token, held in aged.items() if began - held.since > self._longest_task]
        if overdue:
            log.error("tasks_overdue", tasks=len(overdue))
        tokens = aged.keys() - overdue
        if not tokens:
            return 0
        with transaction(self._engine) as connection:
            renewed = renew_leases(connection, tokens, self._clock() + self._lease)
        with self._lock:
            for token in tokens:
                aged[token].safe_until = began + self._safe_seconds if token in renewed else began
        return len(renewed)
