"""Deliveries, as their owners see them: what was sent and what was answered; send it again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.database.endpoints import Endpoint
from shared.database.events import new_delivery, wants
from shared.database.tables import deliveries, events, jobs, webhook_endpoints, webhook_secrets
from shared.domain.webhook import DeliveryStatus, EventType
from shared.ids import first_id


@dataclass(frozen=True)
class Delivery:
    """A row of `deliveries` and the type of its event."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: EventType
    job_id: str | None
    status: DeliveryStatus
    next_attempt_at: datetime
    created_at: datetime
    completed_at: datetime | None
    attempts: list[dict[str, Any]]


_COLUMNS = [deliveries.c[name] for name in Delivery.__dataclass_fields__ if name != "event_type"]
_SELECT = select(*_COLUMNS, events.c.type).join(events, events.c.id == deliveries.c.event_id)


def _to_delivery(row: Any) -> Delivery:
    values = dict(row._mapping)
    values["event_type"] = EventType(values.pop("type"))
    values["status"] = DeliveryStatus(values["status"])
    return Delivery(**values)


def list_deliveries(
    connection: Connection,
    endpoint_id: str,
    *,
    status: DeliveryStatus | None = None,
    event_type: EventType | None = None,
    job_id: str | None = None,
    limit: int,
    after: str | None = None,
) -> list[Delivery]:
    """Deliveries to an endpoint, newest first; `after`: id of the last one already seen."""
    statement = _SELECT.where(deliveries.c.endpoint_id == endpoint_id).order_by(deliveries.c.id.desc()).limit(limit)
    if status is not None:
        statement = statement.where(deliveries.c.status == status)
    if event_type is not None:
        statement = statement.where(events.c.type == event_type)
    if job_id is not None:
        statement = statement.where(deliveries.c.job_id == job_id)
    if after is not None:
        statement = statement.where(deliveries.c.id < after)
    return [_to_delivery(row) for row in connection.execute(statement)]


def deliveries_of_job(connection: Connection, job_id: str, *, most: int) -> list[Delivery]:
    """What was, or is to be, told of a job; oldest first."""
    statement = _SELECT.where(deliveries.c.job_id == job_id).order_by(deliveries.c.id).limit(most)
    return [_to_delivery(row) for row in connection.execute(statement)]


def get_delivery(connection: Connection, endpoint_id: str, delivery_id: str) -> Delivery | None:
    """One delivery to an endpoint."""
    is_it = and_(deliveries.c.id == delivery_id, deliveries.c.endpoint_id == endpoint_id)
    row = connection.execute(_SELECT.where(is_it)).one_or_none()
    return None if row is None else _to_delivery(row)


def _not_erased(job_id: ColumnElement[Any]) -> ColumnElement[bool]:
    """The condition that a job, if there is one, is not erased."""
    return ~select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.erased_at.is_not(None)).exists()


_ANEW = {"status": DeliveryStatus.PENDING, "failures": 0, "completed_at": None}


def send_again(connection: Connection, endpoint_id: str, delivery_id: str, now: datetime) -> bool:
    """Let a delivery be sent once more, with all its attempts; False: it is being sent, or its job was erased."""
    may = deliveries.c.status.in_([DeliveryStatus.PENDING, DeliveryStatus.SUCCEEDED, DeliveryStatus.FAILED])
    is_it = and_(deliveries.c.id == delivery_id, deliveries.c.endpoint_id == endpoint_id, may)
    is_it = and_(is_it, _not_erased(deliveries.c.job_id))
    return connection.execute(update(deliveries).where(is_it).values(**_ANEW, next_attempt_at=now)).rowcount == 1


@dataclass(frozen=True)
class Recovered:
    """One step of a recovery: deliveries that are sent again or for the first time, and the place reached."""

    sent_again: int
    last_position: int | None


def recover(
    connection: Connection,
    endpoint: Endpoint,
    *,
    since: datetime,
    until: datetime,
    now: datetime,
    after: int,
    most: int,
) -> Recovered:
    """Let an endpoint have every event of a time that it wants and has not taken, a portion of them.

    Args:
        after: the place reached by the portion before; 0 at first.
    """
    wanted = (
        select(events.c.id, events.c.position, events.c.job_id)
        .join(webhook_endpoints, and_(webhook_endpoints.c.id == endpoint.id, wants()))
        .where(
            events.c.position > after,
            events.c.id >= first_id("evt", since),
            events.c.id < first_id("evt", until),
            _not_erased(events.c.job_id),
        )
        .order_by(events.c.position)
        .limit(most)
    )
    found = list(connection.execute(wanted))
    if not found:
        return Recovered(0, None)
    rows = [new_delivery(row.id, endpoint.id, row.job_id, None, now) for row in found]
    made = upsert(deliveries).values(rows).on_conflict_do_nothing(index_elements=["event_id", "endpoint_id"])
    number = connection.execute(made).rowcount
    number += _recover_failed(connection, endpoint, [row.id for row in found], now)
    return Recovered(number, found[-1].position)


def recover_failed(
    connection: Connection, endpoint: Endpoint, *, since: datetime, until: datetime, now: datetime
) -> int:
    """Let failed deliveries of a time be sent again; how many."""
    where = and_(
        deliveries.c.endpoint_id == endpoint.id,
        deliveries.c.status == DeliveryStatus.FAILED,
        deliveries.c.event_id >= first_id("evt", since),
        deliveries.c.event_id < first_id("evt", until),
    )
    return connection.execute(update(deliveries).where(where).values(**_ANEW, next_attempt_at=now)).rowcount


def _recover_failed(connection: Connection, endpoint: Endpoint, event_ids: Sequence[str], now: datetime) -> int:
    where = and_(
        deliveries.c.endpoint_id == endpoint.id,
        deliveries.c.event_id.in_(event_ids),
        or_(
            deliveries.c.status == DeliveryStatus.FAILED,
            and_(deliveries.c.status == DeliveryStatus.PENDING, deliveries.c.next_attempt_at > now),
        ),
    )
    return connection.execute(update(deliveries).where(where).values(**_ANEW, next_attempt_at=now)).rowcount


def sweep_events(connection: Connection, before: datetime, *, most: int) -> int:
    """Forget old events and their deliveries; how many. What still waits by then waits for a disabled endpoint."""
    old = select(events.c.id).where(events.c.id < first_id("evt", before)).order_by(events.c.id).limit(most)
    event_ids = list(connection.execute(old).scalars())
    connection.execute(delete(deliveries).where(deliveries.c.event_id.in_(event_ids)))
    connection.execute(delete(events).where(events.c.id.in_(event_ids)))
    return len(event_ids)


def sweep_endpoints(connection: Connection, *, most: int) -> int:
    """Forget what is left of deleted endpoints; how many rows."""
    gone = select(webhook_endpoints.c.id).where(webhook_endpoints.c.deleted_at.is_not(None))
    theirs = select(deliveries.c.id).where(deliveries.c.endpoint_id.in_(gone)).limit(most).scalar_subquery()
    swept = connection.execute(delete(deliveries).where(deliveries.c.id.in_(theirs))).rowcount
    left = select(deliveries.c.id).where(deliveries.c.endpoint_id == webhook_endpoints.c.id)
    empty = list(connection.execute(gone.where(~left.exists()).limit(most)).scalars())
    connection.execute(delete(webhook_secrets).where(webhook_secrets.c.owner_id.in_(empty)))
    return swept + connection.execute(delete(webhook_endpoints).where(webhook_endpoints.c.id.in_(empty))).rowcount
