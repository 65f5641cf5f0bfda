"""What an operator may do to jobs by hand. Terminal states never change: only jobs that are not final are concerned."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, select, update

from shared.database.events import record_ends
from shared.database.history import JobEvent, remembering
from shared.database.jobs import ended_with, visible
from shared.database.tables import clients, jobs
from shared.domain.job import JobErrorCode, JobStatus, WaitingOn


@dataclass(frozen=True)
class Selection:
    """Which waiting jobs; None and () mean any. `before`: accepted earlier than this."""

    ids: Sequence[str] = ()
    client: str | None = None
    document_type: str | None = None
    waiting_on: WaitingOn | None = None
    before: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Of queued jobs, these."""
        found = [jobs.c.status == JobStatus.QUEUED]
        if self.ids:
            found.append(jobs.c.id.in_(self.ids))
        if self.client is not None:
            found.append(jobs.c.client_id.in_(select(clients.c.id).where(clients.c.name == self.client)))
        if self.document_type is not None:
            found.append(jobs.c.document_type == self.document_type)
        if self.waiting_on is not None:
            found.append(jobs.c.waiting_on == self.waiting_on)
        if self.before is not None:
            found.append(jobs.c.created_at < self.before)
        return found


def select_waiting(connection: Connection, wanted: Selection, *, most: int) -> list[str]:
    """Ids of waiting jobs, oldest first."""
    statement = select(jobs.c.id).where(*wanted.conditions()).order_by(jobs.c.id).limit(most)
    return list(connection.execute(statement).scalars())


def requeue_jobs(connection: Connection, wanted: Selection, now: datetime) -> int:
    """Make waiting jobs ready at once, whatever they wait for; how many. They are called within the quota as ever."""
    values = visible(
        not_before=None,
        published_at=None,
        waiting_on=WaitingOn.WORKER,
        history=remembering(JobEvent.REQUEUED, now),
    )
    return connection.execute(update(jobs).where(*wanted.conditions()).values(values)).rowcount


def fail_jobs(connection: Connection, wanted: Selection, now: datetime) -> int:
    """End waiting jobs as failed by the operator; how many."""
    values = visible(**ended_with(JobStatus.FAILED, JobErrorCode.FAILED_BY_OPERATOR, now))
    statement = update(jobs).where(*wanted.conditions()).values(values).returning(jobs.c.id)
    ended = list(connection.execute(statement).scalars())
    record_ends(connection, ended, now)
    return len(ended)
