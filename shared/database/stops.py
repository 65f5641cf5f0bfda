"""Stops: endpoints of accounts that are not called for now, and the events that tell of them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.database.events import record_event
from shared.database.tables import accounts, stops
from shared.domain.quota import StopReason
from shared.domain.webhook import EventType

EVERY_ENDPOINT = ""


@dataclass(frozen=True)
class Stop:
    """Why an endpoint of an account (EVERY_ENDPOINT: all of them) is not called, and until when.

    Without `until` it is lifted when a call succeeds (one may try at `probe_at`) or when the account is changed.
    """

    account_id: str
    endpoint: str
    reason: StopReason
    upstream_code: str | None
    detail: str
    since: datetime
    until: datetime | None
    probe_at: datetime | None

    def concerns(self, endpoint: str) -> bool:
        """Whether it stops calls of this endpoint."""
        return self.endpoint in (endpoint, EVERY_ENDPOINT)


def list_stops(connection: Connection) -> list[Stop]:
    """All of them."""
    return [_to_stop(row) for row in connection.execute(select(stops).order_by(stops.c.since))]


def put_stop(connection: Connection, stop: Stop) -> bool:
    """Stop calling an endpoint of an account; False if it was stopped for this reason before.

    When quota is gone, the event `quota.exhausted` is recorded with it, once.
    """
    values = {name: getattr(stop, name) for name in Stop.__dataclass_fields__}
    inserted = connection.execute(upsert(stops).values(**values).on_conflict_do_nothing()).rowcount == 1
    where = and_(stops.c.account_id == stop.account_id, stops.c.endpoint == stop.endpoint)
    replaced = (
        not inserted
        and connection.execute(update(stops).where(where, stops.c.reason != stop.reason).values(**values)).rowcount == 1
    )
    is_new = inserted or replaced
    if not is_new:
        again = {name: values[name] for name in ("upstream_code", "detail", "until", "probe_at")}
        connection.execute(update(stops).where(where).values(**again))
    if is_new and stop.reason.is_quota:
        _record(connection, EventType.QUOTA_EXHAUSTED, stop, stop.since)
    return is_new


def take_probe(connection: Connection, stop: Stop, *, now: datetime, next_after: timedelta) -> bool:
    """Take the one call that may try whether a stop still holds; False: somebody else did."""
    where = and_(
        stops.c.account_id == stop.account_id, stops.c.endpoint == stop.endpoint, stops.c.probe_at == stop.probe_at
    )
    return connection.execute(update(stops).where(where).values(probe_at=now + next_after)).rowcount == 1


def lift_stops(connection: Connection, account_id: str, endpoint: str, now: datetime) -> list[Stop]:
    """A call of this account at this endpoint succeeded: whatever stopped it is over."""
    where = and_(stops.c.account_id == account_id, stops.c.endpoint.in_([endpoint, EVERY_ENDPOINT]))
    return _lift(connection, where, now)


def lift_due_stops(connection: Connection, now: datetime) -> list[Stop]:
    """Lift the stops whose time is over."""
    return _lift(connection, stops.c.until <= now, now)


def _lift(connection: Connection, where: Any, now: datetime) -> list[Stop]:
    lifted = [_to_stop(row) for row in connection.execute(delete(stops).where(where).returning(stops))]
    for stop in lifted:
        if stop.reason.is_quota:
            _record(connection, EventType.QUOTA_RESTORED, stop, now)
    return lifted


def _to_stop(row: Any) -> Stop:
    return Stop(**{**row._mapping, "reason": StopReason(row.reason)})


def _record(connection: Connection, event_type: EventType, stop: Stop, now: datetime) -> None:
    name = connection.execute(select(accounts.c.name).where(accounts.c.id == stop.account_id)).scalar_one_or_none()
    data = {
        "account": name,
        "endpoint": stop.endpoint or None,
        "quota": "day" if stop.reason is StopReason.DAILY_QUOTA else "total",
        "resumes_at": None if stop.until is None else stop.until.isoformat(),
    }
    record_event(connection, event_type, data, now)
