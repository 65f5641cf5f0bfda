"""Deliveries: placed, called out, sent, settled.

A courier (one thread of each webhook worker; a lock lets one of them act at a time) gives new events their place and
calls workers, by a message, for endpoints that have something due. Who follows claims a portion of that endpoint's
deliveries in Postgres and sends it over one connection. A message lost, or one too many, costs nothing: the claim
decides.

Nobody slow holds up others: an endpoint that fails or is slow has one delivery under way at a time, all such endpoints
together have half of the threads, and one that failed five times in a row gets a pause that costs no attempt.
"""

import json
import random
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection, Engine

from shared.clock import Clock
from shared.database import deliveries as rows
from shared.database.deliveries import Claimed, Ended, Portion
from shared.database.endpoints import signing_secrets
from shared.database.engine import transaction
from shared.database.events import place_events
from shared.database.payloads import event_body, load_contents
from shared.domain.errors import DatabaseUnavailableError, SigningSecretUnreadableError
from shared.domain.webhook import Outcome, Payload, Verdict
from shared.metrics import DELIVERIES, DELIVERY_SECONDS
from shared.outbound import OutboundPolicy
from shared.queues import Publisher, QueueName, TaskName
from shared.sending import Sender
from shared.settings import Settings

log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.1
_LOST_EVERY_SECONDS = 5.0
_EVENTS_AT_ONCE = 500
_CALLS_AT_ONCE = 200
_PORTION = 20
_PORTION_SECONDS = 5.0
# Answers that came are written down after so long at the latest: a crash repeats what is not.
_SETTLE_SECONDS = 0.25
_SLOW_SECONDS = 1.0
# When to call again for an endpoint that found no free thread, or none among those for endpoints that do badly.
_NO_THREAD, _NO_SHARE = timedelta(seconds=0.5), timedelta(seconds=5)
# A worker stays with an endpoint so long, then others get their turn.
_STAY_SECONDS = 5.0


class Courier:
    """Places events, and calls workers for endpoints that have something due."""

    def __init__(self, *, engine: Engine, publisher: Publisher, clock: Clock) -> None:
        """Take its parts."""
        self._engine = engine
        self._publisher = publisher
        self._clock = clock
        self._looked_for_lost_at = float("-inf")

    def run(self, stopping: threading.Event) -> None:
        """Go on until told to stop."""
        while not stopping.is_set():
            try:
                is_busy = self.round()
            except DatabaseUnavailableError:
                is_busy = False
                stopping.wait(1)
            except Exception:  # a thread that ends here would end all deliveries
                log.exception("courier_failed")
                is_busy = False
                stopping.wait(1)
            if not is_busy:
                stopping.wait(_TICK_SECONDS)

    def round(self) -> bool:
        """Place what is new and call for what is due; whether there is more to place at once.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        now = self._clock()
        with transaction(self._engine) as connection:
            placed = place_events(connection, now, most=_EVENTS_AT_ONCE)
            if placed is None:
                return False
            if time.monotonic() - self._looked_for_lost_at > _LOST_EVERY_SECONDS:
                self._looked_for_lost_at = time.monotonic()
                rows.take_back_lost(connection, now)
            due = rows.find_due(connection, now, most=_CALLS_AT_ONCE)
        for endpoint_id in due:
            if not self._publisher.publish(TaskName.DELIVER, QueueName.WEBHOOKS, endpoint_id=endpoint_id):
                break  # called for again in some seconds
        return placed == _EVENTS_AT_ONCE


class DeliveryService:
    """Sends what is due. Safe to share between threads."""

    def __init__(self, *, engine: Engine, settings: Settings, clock: Clock, stopping: threading.Event) -> None:
        """Take its parts."""
        self._engine = engine
        self._secret_key = settings.require_secret_key()
        self._policy = OutboundPolicy.of(settings)
        self._timeout = settings.webhook_timeout_seconds
        self._at_a_time = settings.webhook_at_a_time
        self._disable_after = timedelta(days=settings.webhook_disable_days)
        # The last delivery of a portion begins before its time is over; then it is settled.
        self._lease = timedelta(seconds=_PORTION_SECONDS + settings.webhook_timeout_seconds + 10)
        self._clock = clock
        self._stopping = stopping
        self._for_all = threading.BoundedSemaphore(settings.webhook_threads)
        self._for_suspects = threading.BoundedSemaphore(max(1, settings.webhook_threads // 2))

    def deliver(self, endpoint_id: str) -> int:
        """Send an endpoint what is due for it, for some seconds; how many deliveries were tried.

        Raises:
            DatabaseUnavailableError: Postgres is away; what was sent and not written down is sent again.
        """
        with _held(self._for_all) as is_free:
            if is_free:
                return self._stay(endpoint_id)
        with transaction(self._engine) as connection:
            rows.call_again(connection, endpoint_id, self._clock() + _NO_THREAD)
        return 0

    def _stay(self, endpoint_id: str) -> int:
        leave_at, tried = time.monotonic() + _STAY_SECONDS, 0
        with closing(Sender(self._policy, deadline_seconds=self._timeout)) as sender:
            while time.monotonic() < leave_at and not self._stopping.is_set():
                sent = self._send_portion(endpoint_id, sender)
                tried += sent
                if sent == 0:
                    break
        return tried

    def _send_portion(self, endpoint_id: str, sender: Sender) -> int:
        now, token = self._clock(), secrets.token_hex(8)
        with transaction(self._engine) as connection:
            portion = rows.claim_portion(
                connection,
                endpoint_id,
                token=token,
                now=now,
                lease_until=now + self._lease,
                most=_PORTION,
                at_a_time=self._at_a_time,
            )
            if portion is None:
                return 0
            keys = self._secrets_of(portion, connection, now)
        if not portion.is_suspect:
            return self._send_all(portion, keys, sender)
        with _held(self._for_suspects) as is_free:
            if is_free:
                return self._send_all(portion, keys, sender)
        with transaction(self._engine) as connection:
            rows.hand_back(connection, portion)
            rows.call_again(connection, endpoint_id, now + _NO_SHARE)
        return 0

    def _secrets_of(self, portion: Portion, connection: Connection, now: datetime) -> Sequence[str]:
        try:
            return signing_secrets(connection, portion.endpoint.secret_owner, self._secret_key, now)
        except SigningSecretUnreadableError:
            log.error("signing_secret_unreadable", endpoint_id=portion.endpoint.id)
            return ()

    def _send_all(self, portion: Portion, keys: Sequence[str], sender: Sender) -> int:
        ended: list[Ended] = []
        written_at = began = time.monotonic()
        tried = 0
        for claimed in portion.deliveries:
            now = self._clock()
            outcome = self._send(portion, claimed, keys, sender, now)
            tried += 1
            if outcome is None:
                continue
            ended.append(Ended(claimed, outcome, _attempt(outcome, now), random.uniform(-0.2, 0.2)))  # noqa: S311
            self._count(portion, claimed, outcome)
            goes_on = outcome.verdict is Verdict.DELIVERED and outcome.duration_ms < _SLOW_SECONDS * 1000
            if not goes_on or self._stopping.is_set() or time.monotonic() - began > _PORTION_SECONDS:
                break
            if time.monotonic() - written_at > _SETTLE_SECONDS:
                self._settle(portion, ended)
                ended, written_at = [], time.monotonic()
        self._settle(portion, ended, hands_back=tried < len(portion.deliveries))
        return tried

    def _send(
        self, portion: Portion, claimed: Claimed, keys: Sequence[str], sender: Sender, now: datetime
    ) -> Outcome | None:
        """Send one; None: its job was erased meanwhile."""
        if not keys:
            return Outcome(None, 0, "The signing secret can't be read any more. Rotate it.")
        contents: dict[str, dict[str, Any]] = {}
        if portion.endpoint.payload is Payload.FULL and claimed.event.job_id is not None:
            with transaction(self._engine) as connection:
                if not rows.still_held(connection, portion, claimed.id):
                    return None
                contents = load_contents(connection, [claimed.event.job_id])
        return sender.send(claimed.url, keys, claimed.event.id, event_body(claimed.event, contents), now)

    def _settle(self, portion: Portion, ended: list[Ended], *, hands_back: bool = False) -> None:
        with transaction(self._engine) as connection:
            if ended:
                rows.settle(connection, portion, ended, self._clock(), disable_after=self._disable_after)
            if hands_back:
                rows.hand_back(connection, portion)

    def _count(self, portion: Portion, claimed: Claimed, outcome: Outcome) -> None:
        DELIVERIES.labels(outcome.verdict).inc()
        DELIVERY_SECONDS.observe(outcome.duration_ms / 1000)
        if outcome.verdict is not Verdict.DELIVERED:
            log.info(
                "delivery_failed",
                delivery_id=claimed.id,
                endpoint_id=portion.endpoint.id,
                event_id=claimed.event.id,
                verdict=outcome.verdict,
                status_code=outcome.status_code,
                error=outcome.error,
            )


def _attempt(outcome: Outcome, at: datetime) -> str:
    said = {
        "at": at.isoformat(),
        "duration_ms": outcome.duration_ms,
        "status_code": outcome.status_code,
        "error": outcome.error,
        "excerpt": outcome.excerpt,
    }
    return json.dumps(said, ensure_ascii=False)


@contextmanager
def _held(semaphore: threading.BoundedSemaphore) -> Iterator[bool]:
    """Hold a semaphore if it is free; whether it was."""
    is_free = semaphore.acquire(blocking=False)
    try:
        yield is_free
    finally:
        if is_free:
            semaphore.release()
