"""What happened to a job, kept in its row: written by the statement that makes it happen, at no further cost.

Calls are not here; `attempts` has a row for each.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, case, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB

from shared.database.tables import accounts, attempts, jobs

# A job parked for weeks comes and goes; what is kept of it must not grow without end.
_MOST_EVENTS = 200


class JobEvent(StrEnum):
    """What can happen to a job between its acceptance and its end."""

    PUBLISHED = "published"
    """A message was sent for it."""
    CLAIMED = "claimed"
    """A worker took it."""
    PUT_BACK = "put_back"
    """It went back in line: `waiting_on`, `not_before`."""
    MESSAGE_LOST = "message_lost"
    """Nobody claimed it long after its message was sent; another was sent."""
    WORKER_LOST = "worker_lost"
    """Its worker was not heard of any more; `while_preparing` if it died with the image in hand."""
    CACHE_HIT = "cache_hit"
    """An earlier, equal job had the answer: `source`."""
    RETRIED = "retried"
    """It had failed, and its client wanted it tried again."""
    REQUEUED = "requeued"
    """An operator made it ready at once."""


def remembering(event: JobEvent, at: datetime, **details: str | bool | None) -> ColumnElement[object]:
    """The value of `jobs.history` with one more event; details that are None are left out."""
    said = {name: value for name, value in details.items() if value is not None}
    entry = literal([{"event": event.value, "at": at.isoformat(), **said}], JSONB)
    return case(
        (func.jsonb_array_length(jobs.c.history) < _MOST_EVENTS, jobs.c.history.concat(entry)), else_=jobs.c.history
    )


def read_history(connection: Connection, job_id: str) -> list[dict[str, Any]]:
    """What was remembered of a job, oldest first: `event`, `at` (RFC 3339) and details."""
    return list(connection.execute(select(jobs.c.history).where(jobs.c.id == job_id)).scalar_one())


def read_attempts(connection: Connection, job_id: str) -> list[Row[Any]]:
    """A job's calls in order: the columns of `attempts`, and the account's name as `account`."""
    statement = (
        select(attempts, accounts.c.name.label("account"))
        .join(accounts, accounts.c.id == attempts.c.account_id)
        .where(attempts.c.job_id == job_id)
        .order_by(attempts.c.number)
    )
    return list(connection.execute(statement))
