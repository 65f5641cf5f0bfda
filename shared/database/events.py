"""Events: written in the transaction that makes them true, placed and handed to endpoints a little later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, any_, func, literal, or_, select, text, union_all
from sqlalchemy.dialects.postgresql import ARRAY, TEXT
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.database.tables import batches, deliveries, event_positions, events, jobs, webhook_endpoints
from shared.domain.webhook import (
    BY_DEFAULT,
    OF_A_BATCHS_URL,
    OF_A_JOBS_URL,
    DeliveryStatus,
    EndpointKind,
    EventType,
)
from shared.ids import new_id

# One at a time places events, over all processes: the order would not be one otherwise.
_PLACING = 0x6B7A_0001
_BY_DEFAULT = [kind.value for kind in BY_DEFAULT]


@dataclass(frozen=True)
class Event:
    """A row of `events`; the columns say what each field means."""

    id: str
    type: EventType
    data: dict[str, Any]
    job_id: str | None
    created_at: datetime
    position: int | None = None


EVENT_COLUMNS = [events.c[name] for name in ("id", "type", "data", "job_id", "created_at", "position")]


def to_event(row: Any) -> Event:
    """A row of EVENT_COLUMNS as an event."""
    values = {column.name: getattr(row, column.name) for column in EVENT_COLUMNS}
    return Event(**{**values, "type": EventType(row.type)})


def record_event(
    connection: Connection,
    event_type: EventType,
    data: Mapping[str, Any],
    now: datetime,
    *,
    client_id: str | None = None,
    batch_id: str | None = None,
    job_id: str | None = None,
    once: str | None = None,
) -> str:
    """Write down that something happened; the event's id.

    Args:
        client_id: whom it concerns; None: all clients.
        once: a name under which it is told a single time.
    """
    event_id = new_id("evt")
    values = {"id": event_id, "client_id": client_id, "type": event_type, "data": dict(data), "created_at": now}
    values |= {"batch_id": batch_id, "job_id": job_id, "once": once}
    connection.execute(upsert(events).values(**values).on_conflict_do_nothing(index_elements=["once"]))
    return event_id


_RECORD_JOBS = text("""
    INSERT INTO events (id, client_id, type, data, job_id, batch_id, document_type, created_at)
    SELECT told.event_id, jobs.client_id, coalesce(CAST(:type AS text), 'job.' || jobs.status),
           jsonb_strip_nulls(jsonb_build_object(
               'job_id', jobs.id,
               'status', jobs.status,
               'document_type', jobs.document_type,
               'batch_id', nullif(jobs.batch_id, '-'),
               'error_code', jobs.error_code,
               'waiting_on', jobs.waiting_on,
               'not_before', jobs.not_before)),
           jobs.id, nullif(jobs.batch_id, '-'), jobs.document_type, :now
    FROM jobs JOIN unnest(CAST(:event_ids AS text[]), CAST(:job_ids AS text[])) AS told (event_id, job_id)
         ON told.job_id = jobs.id
    WHERE CAST(:type AS text) IS NULL OR EXISTS (
        SELECT FROM webhook_endpoints AS wanting
        WHERE wanting.client_id = jobs.client_id AND :type = ANY (wanting.event_types)
              AND wanting.disabled_at IS NULL AND wanting.deleted_at IS NULL)
""")


def record_ends(connection: Connection, job_ids: Sequence[str], now: datetime) -> None:
    """Write down that jobs are final, in the transaction that has just made them so."""
    _record_jobs(connection, job_ids, None, now)


def record_step(connection: Connection, job_id: str, step: EventType, now: datetime) -> None:
    """Write down what happened to a job before its end, if an endpoint of its client asks for that."""
    _record_jobs(connection, [job_id], step, now)


def _record_jobs(connection: Connection, job_ids: Sequence[str], event_type: EventType | None, now: datetime) -> None:
    if not job_ids:
        return
    event_ids = [new_id("evt") for _ in job_ids]
    connection.execute(_RECORD_JOBS, {"type": event_type, "event_ids": event_ids, "job_ids": list(job_ids), "now": now})


_PLACE = text("""
    UPDATE events SET position = placed.place
    FROM unnest(CAST(:event_ids AS text[]), CAST(:places AS bigint[])) AS placed (event_id, place)
    WHERE events.id = placed.event_id
""")


def place_events(connection: Connection, now: datetime, *, most: int) -> int | None:
    """Give new events their place, oldest first, and make a delivery for each endpoint that wants one; how many events.

    None: another process is at it.
    """
    if not connection.execute(select(func.pg_try_advisory_xact_lock(_PLACING))).scalar_one():
        return None
    found = select(events.c.id).where(events.c.position.is_(None)).order_by(events.c.id).limit(most)
    event_ids = list(connection.execute(found).scalars())
    if not event_ids:
        return 0
    numbers = select(event_positions.next_value()).select_from(func.generate_series(1, len(event_ids)))
    places = sorted(connection.execute(numbers).scalars())
    connection.execute(_PLACE, {"event_ids": event_ids, "places": places})
    _deliver_to_all(connection, event_ids, now)
    return len(event_ids)


def _deliver_to_all(connection: Connection, event_ids: Sequence[str], now: datetime) -> None:
    """Make deliveries of these events for whoever wants them. Twice makes no more."""
    registered = (
        select(events.c.id, webhook_endpoints.c.id.label("endpoint_id"), events.c.job_id, literal(None).label("url"))
        .join(webhook_endpoints, wants())
        .where(events.c.id == any_(_array(event_ids)), webhook_endpoints.c.disabled_at.is_(None))
    )
    found = list(connection.execute(union_all(registered, *_by_url(event_ids))))
    if found:
        statement = upsert(deliveries).on_conflict_do_nothing(index_elements=["event_id", "endpoint_id"])
        connection.execute(
            statement, [new_delivery(row.id, row.endpoint_id, row.job_id, row.url, now) for row in found]
        )


def new_delivery(event_id: str, endpoint_id: str, job_id: str | None, url: str | None, now: datetime) -> dict[str, Any]:
    """The row of a delivery that is due at once; `url` None: the endpoint's."""
    return {
        "id": new_id("dlv"),
        "endpoint_id": endpoint_id,
        "event_id": event_id,
        "job_id": job_id,
        "url": url,
        "status": DeliveryStatus.PENDING,
        "next_attempt_at": now,
        "created_at": now,
    }


def wants() -> Any:
    """The condition that an endpoint wants an event."""
    return and_(
        or_(events.c.client_id == webhook_endpoints.c.client_id, events.c.client_id.is_(None)),
        webhook_endpoints.c.kind == EndpointKind.REGISTERED,
        webhook_endpoints.c.deleted_at.is_(None),
        or_(
            events.c.type == any_(webhook_endpoints.c.event_types),
            and_(webhook_endpoints.c.event_types.is_(None), events.c.type.in_(_BY_DEFAULT)),
        ),
        or_(
            webhook_endpoints.c.document_types.is_(None),
            events.c.document_type.is_(None),
            events.c.document_type == any_(webhook_endpoints.c.document_types),
        ),
        or_(webhook_endpoints.c.batch_id.is_(None), webhook_endpoints.c.batch_id == events.c.batch_id),
    )


def _by_url(event_ids: Sequence[str]) -> list[Any]:
    """Events whose job, or whose batch, names an address of its own."""
    found = []
    for table, key, told in ((jobs, events.c.job_id, OF_A_JOBS_URL), (batches, events.c.batch_id, OF_A_BATCHS_URL)):
        statement = (
            select(events.c.id, webhook_endpoints.c.id, events.c.job_id, table.c.webhook_url)
            .join(table, table.c.id == key)
            .join(webhook_endpoints, webhook_endpoints.c.id == table.c.webhook_endpoint_id)
            .where(
                events.c.id == any_(_array(event_ids)),
                events.c.type.in_(list(told)),
                table.c.webhook_url.is_not(None),
                webhook_endpoints.c.deleted_at.is_(None),
            )
        )
        found.append(statement)
    return found


def _array(values: Sequence[str]) -> Any:
    return literal(list(values), ARRAY(TEXT))


def list_events(
    connection: Connection, client_id: str, *, after: int, limit: int, types: Sequence[str] = ()
) -> list[Event]:
    """What concerns a client, in the order of its places; `after`: the place of the last event already seen."""
    parts = []
    for whose in (events.c.client_id == client_id, events.c.client_id.is_(None)):
        part = select(*EVENT_COLUMNS).where(whose, events.c.position > after)
        if types:
            part = part.where(events.c.type.in_(types))
        parts.append(part.order_by(events.c.position).limit(limit).subquery().select())
    both = union_all(*parts).subquery()
    rows = connection.execute(select(both).order_by(both.c.position).limit(limit))
    return [to_event(row) for row in rows]


def last_position(connection: Connection, client_id: str) -> int:
    """The place of the last event that concerns a client; 0: there is none."""
    found = [
        connection.execute(select(func.max(events.c.position)).where(whose)).scalar_one()
        for whose in (events.c.client_id == client_id, events.c.client_id.is_(None))
    ]
    return max(position or 0 for position in found)
