"""What an operator should know of the lines: what stands still, for how long, and what to do about it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, func, select, text

from shared.database.deliveries import SLOW_MS
from shared.database.recovery import SWEEP, chore_noted
from shared.database.tables import events, jobs
from shared.domain.job import JobErrorCode, JobStatus

# The sweeper runs every 5 s, a lost message is sent again after 30 s, and a lost worker is noticed as soon.
_SWEEPER_LATE = timedelta(seconds=60)
_STUCK = timedelta(minutes=2)
_LATELY = timedelta(days=1)


@dataclass(frozen=True)
class Ages:
    """Seconds; None: there is none. `sweep`: since the sweeper last ran."""

    oldest_sent: float | None
    oldest_overdue: float | None
    oldest_event: float | None
    oldest_delivery: float | None
    sweep: float | None


@dataclass(frozen=True)
class Trouble:
    """Something that stands still, and the remedy."""

    what: str
    seen: str
    remedy: str


def read_ages(connection: Connection, now: datetime) -> Ages:
    """How long the oldest message has been on its way, the oldest lease over, the oldest event and delivery due."""
    sent = select(func.min(jobs.c.published_at)).where(
        jobs.c.status == JobStatus.QUEUED, jobs.c.published_at.is_not(None)
    )
    overdue = select(func.min(jobs.c.lease_until)).where(
        jobs.c.status == JobStatus.PROCESSING, jobs.c.lease_until < now
    )
    told = select(func.min(events.c.created_at)).where(events.c.position.is_(None))
    times = [connection.execute(statement).scalar_one() for statement in (sent, overdue, told)]
    times.append(connection.execute(_OLDEST_DELIVERY, {"now": now, "slow_ms": SLOW_MS}).scalar_one())
    return Ages(
        *(None if at is None else (now - at).total_seconds() for at in (*times, chore_noted(connection, SWEEP)))
    )


# Of endpoints in good health: those that fail or are slow keep themselves waiting.
_OLDEST_DELIVERY = text("""
    SELECT min(due.next_attempt_at)
    FROM webhook_endpoints AS endpoint
    CROSS JOIN LATERAL (SELECT next_attempt_at FROM deliveries
                        WHERE endpoint_id = endpoint.id AND status = 'pending' AND next_attempt_at <= :now
                        ORDER BY next_attempt_at LIMIT 1) AS due
    WHERE endpoint.disabled_at IS NULL AND endpoint.deleted_at IS NULL
          AND endpoint.failures = 0 AND endpoint.mean_ms <= :slow_ms
          AND (endpoint.paused_until IS NULL OR endpoint.paused_until <= :now)
""")


def find_troubles(connection: Connection, now: datetime) -> list[Trouble]:
    """Everything of this kind that needs somebody, worst first."""
    ages, found = read_ages(connection, now), []
    if ages.sweep is None or ages.sweep > _SWEEPER_LATE.total_seconds():
        seen = "has never run" if ages.sweep is None else f"last ran {ages.sweep:.0f} s ago"
        remedy = "Start beat and the maintenance worker: until then nothing lost is found again."
        found.append(Trouble("sweeper", seen, remedy))
    if ages.oldest_sent is not None and ages.oldest_sent > _STUCK.total_seconds():
        seen = f"the oldest was sent {ages.oldest_sent:.0f} s ago and nobody took it"
        found.append(Trouble("messages", seen, "Start workers, or more of them; see `kazheng status`."))
    if ages.oldest_overdue is not None and ages.oldest_overdue > _STUCK.total_seconds():
        seen = f"a job's worker was lost {ages.oldest_overdue:.0f} s ago and it was not taken back"
        found.append(Trouble("claims", seen, "Look into the maintenance worker's log: its sweep fails."))
    stuck = max(ages.oldest_event or 0, ages.oldest_delivery or 0)
    if stuck > _STUCK.total_seconds():
        remedy = "Start the worker that reads the queue webhooks, or more of them; its log says why if it runs."
        found.append(Trouble("webhooks", f"the oldest should have been sent {stuck:.0f} s ago", remedy))
    poisoned = count_poisoned(connection, now - _LATELY)
    if poisoned:
        remedy = "Their timelines name the workers that died; look into those logs, and keep the images for a test."
        found.append(Trouble("poisoned jobs", f"{poisoned} since yesterday", remedy))
    return found


def count_poisoned(connection: Connection, since: datetime) -> int:
    """Jobs given up since then because workers died preparing them."""
    statement = select(func.count()).where(
        jobs.c.error_code == JobErrorCode.POISONED, jobs.c.status == JobStatus.FAILED, jobs.c.completed_at >= since
    )
    return connection.execute(statement).scalar_one()
