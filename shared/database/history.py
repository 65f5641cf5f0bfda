"""What happened to a job, kept in its row: written by the statement that makes it happen, at no further cost.

Calls are not here; `attempts` has a row for each.
"""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, case, func, literal
from sqlalchemy.dialects.postgresql import JSONB

from shared.database.tables import jobs

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
    REQUEUED = "requeued"
    """An operator made it ready at once."""


def remembering(event: JobEvent, at: datetime, **details: str | bool | None) -> ColumnElement[object]:
    """The value of `jobs.history` with one more event; details that are None are left out."""
    said = {name: value for name, value in details.items() if value is not None}
    entry = literal([{"event": event.value, "at": at.isoformat(), **said}], JSONB)
    return case(
        (func.jsonb_array_length(jobs.c.history) < _MOST_EVENTS, jobs.c.history.concat(entry)), else_=jobs.c.history
    )
