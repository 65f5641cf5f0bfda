"""Deliveries, as workers see them: claimed in portions, settled in groups; each move is a compare-and-set."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, distinct, func, or_, select, text, update

from shared.database.endpoints import ENDPOINT_COLUMNS, Endpoint, disable_endpoint, to_endpoint
from shared.database.events import EVENT_COLUMNS, Event, to_event
from shared.database.tables import deliveries, events, jobs, webhook_endpoints
from shared.domain.webhook import (
    DeliveryStatus,
    DisabledReason,
    EndpointKind,
    Health,
    Outcome,
    Verdict,
    next_attempt,
)

# An endpoint whose answers take longer gets one delivery at a time: it would hold the threads of others.
SLOW_MS = 2_000
# A call for a worker that nobody has followed by then is lost.
_CALL_LIFE = timedelta(seconds=5)


@dataclass(frozen=True)
class Claimed:
    """A delivery that is ours as long as the portion's token is in its row."""

    id: str
    url: str
    failures: int
    event: Event


@dataclass(frozen=True)
class Portion:
    """Some deliveries of one endpoint. `is_suspect`: it fails, or is slow."""

    endpoint: Endpoint
    token: str
    deliveries: tuple[Claimed, ...]
    is_suspect: bool


def find_due(connection: Connection, now: datetime, *, most: int) -> list[str]:
    """Endpoints with something to take now that no worker was called for; from now on one was."""
    values = {"now": now, "called_before": now - _CALL_LIFE, "most": most}
    found = list(connection.execute(_DUE, values).scalars())
    if found:
        connection.execute(update(webhook_endpoints).where(webhook_endpoints.c.id.in_(found)).values(called_at=now))
    return found


# Steps from endpoint to endpoint along the index: what waits for one of them may be a million deliveries.
_DUE = text("""
    WITH RECURSIVE waiting AS (
        (SELECT endpoint_id FROM deliveries WHERE status = 'pending' ORDER BY endpoint_id LIMIT 1)
        UNION ALL
        SELECT (SELECT later.endpoint_id FROM deliveries AS later
                WHERE later.status = 'pending' AND later.endpoint_id > waiting.endpoint_id
                ORDER BY later.endpoint_id LIMIT 1)
        FROM waiting WHERE waiting.endpoint_id IS NOT NULL)
    SELECT endpoint.id FROM waiting JOIN webhook_endpoints AS endpoint ON endpoint.id = waiting.endpoint_id
    WHERE endpoint.disabled_at IS NULL AND endpoint.deleted_at IS NULL
          AND (endpoint.paused_until IS NULL OR endpoint.paused_until <= :now)
          AND (endpoint.called_at IS NULL OR endpoint.called_at < :called_before)
          AND EXISTS (SELECT FROM deliveries AS due
                      WHERE due.endpoint_id = endpoint.id AND due.status = 'pending' AND due.next_attempt_at <= :now)
    LIMIT :most
""")


def take_back_lost(connection: Connection, now: datetime) -> int:
    """Let deliveries be sent again whose worker has died; how many."""
    lost = and_(deliveries.c.status == DeliveryStatus.SENDING, deliveries.c.lease_until < now)
    values = {"status": DeliveryStatus.PENDING, "claim_token": None, "lease_until": None}
    return connection.execute(update(deliveries).where(lost).values(values)).rowcount


def claim_portion(
    connection: Connection,
    endpoint_id: str,
    *,
    token: str,
    now: datetime,
    lease_until: datetime,
    most: int,
    at_a_time: int,
) -> Portion | None:
    """Take what is due for an endpoint, oldest first. None: nothing is, or enough workers are at it.

    Args:
        token: random; whoever settles must show it.
        at_a_time: portions an endpoint in good health may have under way.
    """
    usable = and_(
        webhook_endpoints.c.id == endpoint_id,
        webhook_endpoints.c.disabled_at.is_(None),
        webhook_endpoints.c.deleted_at.is_(None),
        or_(webhook_endpoints.c.paused_until.is_(None), webhook_endpoints.c.paused_until <= now),
    )
    row = connection.execute(select(*ENDPOINT_COLUMNS).where(usable).with_for_update(key_share=True)).one_or_none()
    if row is None:
        return None
    endpoint = to_endpoint(row)
    is_suspect = endpoint.health.failures > 0 or endpoint.health.mean_ms > SLOW_MS
    under_way = select(func.count(distinct(deliveries.c.claim_token))).where(
        deliveries.c.endpoint_id == endpoint_id,
        deliveries.c.status == DeliveryStatus.SENDING,
        deliveries.c.lease_until >= now,
    )
    # Whoever has never answered has not shown that it does.
    allowed = 1 if is_suspect or endpoint.succeeded_at is None else at_a_time
    if connection.execute(under_way).scalar_one() >= allowed:
        return None
    due = (
        select(deliveries.c.id)
        .where(
            deliveries.c.endpoint_id == endpoint_id,
            deliveries.c.status == DeliveryStatus.PENDING,
            deliveries.c.next_attempt_at <= now,
        )
        .order_by(deliveries.c.next_attempt_at, deliveries.c.id)
        .limit(1 if is_suspect else most)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    values = {"status": DeliveryStatus.SENDING, "claim_token": token, "lease_until": lease_until}
    taken = (
        update(deliveries)
        .where(deliveries.c.id.in_(due), events.c.id == deliveries.c.event_id)
        .values(values)
        .returning(deliveries.c.id.label("delivery_id"), deliveries.c.url, deliveries.c.failures, *EVENT_COLUMNS)
    )
    found = [
        Claimed(
            id=row.delivery_id,
            url=row.url or endpoint.url,
            failures=row.failures,
            event=to_event(row),
        )
        for row in connection.execute(taken)
    ]
    if endpoint.called_at is not None:
        is_it = webhook_endpoints.c.id == endpoint_id
        connection.execute(update(webhook_endpoints).where(is_it).values(called_at=None))
    if not found:
        return None
    found.sort(key=lambda delivery: delivery.event.position or 0)
    return Portion(endpoint, token, tuple(found), is_suspect)


def hand_back(connection: Connection, portion: Portion) -> None:
    """Put back what is left of a portion."""
    values = {"status": DeliveryStatus.PENDING, "claim_token": None, "lease_until": None}
    connection.execute(update(deliveries).where(*_is_of(portion)).values(values))


def still_held(connection: Connection, portion: Portion, delivery_id: str) -> bool:
    """Whether a delivery is still to be sent: its job may have been erased since the portion was claimed."""
    statement = select(deliveries.c.id).where(deliveries.c.id == delivery_id, *_is_of(portion))
    return connection.execute(statement).one_or_none() is not None


def _is_of(portion: Portion) -> tuple[ColumnElement[bool], ...]:
    return (
        deliveries.c.endpoint_id == portion.endpoint.id,
        deliveries.c.status == DeliveryStatus.SENDING,
        deliveries.c.claim_token == portion.token,
    )


def call_again(connection: Connection, endpoint_id: str, at: datetime) -> None:
    """Call a worker for an endpoint no earlier than this."""
    is_it = webhook_endpoints.c.id == endpoint_id
    connection.execute(update(webhook_endpoints).where(is_it).values(called_at=at - _CALL_LIFE))


_SETTLE = text("""
    UPDATE deliveries
    SET status = ended.status, failures = ended.failures, next_attempt_at = ended.next_attempt_at,
        completed_at = ended.completed_at, claim_token = NULL, lease_until = NULL,
        attempts = CASE WHEN jsonb_array_length(attempts) < 50 THEN attempts || ended.attempt ELSE attempts END
    FROM unnest(CAST(:ids AS text[]), CAST(:statuses AS text[]), CAST(:failures AS smallint[]),
                CAST(:next_attempts AS timestamptz[]), CAST(:completed AS timestamptz[]), CAST(:attempts AS jsonb[]))
         AS ended (id, status, failures, next_attempt_at, completed_at, attempt)
    WHERE deliveries.id = ended.id AND deliveries.claim_token = :token
""")


@dataclass(frozen=True)
class Ended:
    """What became of a delivery. `attempt` is JSON: {at, duration_ms, status_code, error, excerpt}."""

    claimed: Claimed
    outcome: Outcome
    attempt: str
    jitter: float


def settle(
    connection: Connection, portion: Portion, ended: Sequence[Ended], now: datetime, *, disable_after: timedelta
) -> None:
    """Write down how attempts ended, and what that says of the endpoint."""
    rows = [_row(portion.endpoint, one, now) for one in ended]
    values = {name: [row[name] for row in rows] for name in rows[0]}
    connection.execute(_SETTLE, {**values, "token": portion.token})
    outcomes = [one.outcome for one in ended]
    if all(outcome.verdict is Verdict.DELIVERED for outcome in outcomes):
        _note_success(connection, portion.endpoint, outcomes, now)
    else:
        _note_trouble(connection, portion.endpoint, outcomes, now, disable_after=disable_after)


def _row(endpoint: Endpoint, ended: Ended, now: datetime) -> dict[str, Any]:
    verdict, failures = ended.outcome.verdict, ended.claimed.failures
    again: datetime | None = now
    if verdict is Verdict.DELIVERED:
        status = DeliveryStatus.SUCCEEDED
    elif verdict is Verdict.GONE:
        # A registered endpoint is disabled: the delivery waits until it is wanted again. A job's URL is just gone.
        status = DeliveryStatus.FAILED if endpoint.kind is EndpointKind.JOB_URLS else DeliveryStatus.PENDING
    else:
        failures += verdict is Verdict.FAILED
        again = next_attempt(ended.outcome, failures, now, jitter=ended.jitter)
        status = DeliveryStatus.FAILED if again is None else DeliveryStatus.PENDING
    return {
        "ids": ended.claimed.id,
        "statuses": status.value,
        "failures": failures,
        "next_attempts": again or now,
        "completed": None if status is DeliveryStatus.PENDING else now,
        "attempts": ended.attempt,
    }


def _note_success(connection: Connection, endpoint: Endpoint, outcomes: Sequence[Outcome], now: datetime) -> None:
    health = endpoint.health
    for outcome in outcomes:
        health = health.after(outcome, now)
    # A pause it asked for itself stays.
    pause = case((webhook_endpoints.c.openings > 0, None), else_=webhook_endpoints.c.paused_until)
    values = {"failures": 0, "failing_since": None, "openings": 0, "paused_until": pause, "mean_ms": health.mean_ms}
    is_it = webhook_endpoints.c.id == endpoint.id
    connection.execute(update(webhook_endpoints).where(is_it).values(**values, succeeded_at=now))


def _note_trouble(
    connection: Connection,
    endpoint: Endpoint,
    outcomes: Sequence[Outcome],
    now: datetime,
    *,
    disable_after: timedelta,
) -> None:
    is_it = webhook_endpoints.c.id == endpoint.id
    locked = select(*ENDPOINT_COLUMNS).where(is_it).with_for_update(key_share=True)
    health = to_endpoint(connection.execute(locked).one()).health
    succeeded = {}
    for outcome in outcomes:
        health = health.after(outcome, now)
        if outcome.verdict is Verdict.DELIVERED:
            succeeded = {"succeeded_at": now}
    values = {name: getattr(health, name) for name in Health.__dataclass_fields__}
    connection.execute(update(webhook_endpoints).where(is_it).values(**values, **succeeded))
    if endpoint.kind is EndpointKind.JOB_URLS:
        return
    if any(outcome.verdict is Verdict.GONE for outcome in outcomes):
        disable_endpoint(connection, endpoint.id, DisabledReason.GONE, now)
    elif health.failing_since is not None and now - health.failing_since >= disable_after:
        disable_endpoint(connection, endpoint.id, DisabledReason.FAILING, now)


# Receivers may answer with what they were sent.
_WITHOUT_EXCERPTS = text(
    "(SELECT coalesce(jsonb_agg(attempt - 'excerpt'), '[]') FROM jsonb_array_elements(attempts) AS attempt)"
)


def forget_deliveries(connection: Connection, job_id: str, *, client_id: str, now: datetime) -> None:
    """Nothing more is told of a job that is erased, and what receivers answered is forgotten: it may echo the job."""
    owned = deliveries.c.job_id.in_(select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.client_id == client_id))
    untaken = deliveries.c.status.in_([DeliveryStatus.PENDING, DeliveryStatus.SENDING, DeliveryStatus.FAILED])
    stopped = {"status": DeliveryStatus.CANCELED, "claim_token": None, "lease_until": None, "completed_at": now}
    connection.execute(update(deliveries).where(owned, untaken).values(stopped))
    connection.execute(update(deliveries).where(owned).values(attempts=_WITHOUT_EXCERPTS, url=None))
