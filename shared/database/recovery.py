"""What crashes leave in Postgres, and the statements that mend it. All may run twice and in two places."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.database.engine import commit_without_waiting
from shared.database.events import record_ends
from shared.database.history import JobEvent, remembering
from shared.database.jobs import UNCLAIMED, ended_with, visible
from shared.database.tables import chores, jobs
from shared.domain.job import JobErrorCode, JobStatus, Lane, WaitingOn

SWEEP = "sweep"
"""The chore that all others of this kind hang on; its age tells whether anything is recovered."""


@dataclass(frozen=True)
class Lost:
    """A job whose message is gone."""

    id: str
    lane: Lane


@dataclass(frozen=True)
class Abandoned:
    """A job whose worker let its lease run out. `crashes`: workers that died preparing it, before this one."""

    id: str
    document_type: str
    worker: str
    token: str
    crashes: int


def find_lost(connection: Connection, *, silent_since: datetime, most: int) -> list[Lost]:
    """Jobs that were sent before this moment and are not claimed, oldest first."""
    statement = (
        select(jobs.c.id, jobs.c.lane)
        .where(jobs.c.status == JobStatus.QUEUED, jobs.c.published_at < silent_since)
        .order_by(jobs.c.published_at, jobs.c.id)
        .limit(most)
    )
    return [Lost(job_id, Lane(lane)) for job_id, lane in connection.execute(statement)]


def mark_sent_again(connection: Connection, job_ids: Sequence[str], now: datetime) -> None:
    """Remember that lost messages were sent once more."""
    commit_without_waiting(connection)
    values = {"published_at": now, "history": remembering(JobEvent.MESSAGE_LOST, now)}
    where = jobs.c.id.in_(job_ids), jobs.c.status == JobStatus.QUEUED, jobs.c.published_at.is_not(None)
    connection.execute(update(jobs).where(*where).values(**values))


def renew_leases(connection: Connection, tokens: Collection[str], lease_until: datetime) -> set[str]:
    """Keep claims alive; the tokens of those that are still theirs."""
    commit_without_waiting(connection)
    statement = (
        update(jobs)
        .where(jobs.c.status == JobStatus.PROCESSING, jobs.c.claim_token.in_(list(tokens)))
        .values(lease_until=lease_until)
        .returning(jobs.c.claim_token)
    )
    return set(connection.execute(statement).scalars())


def find_abandoned(connection: Connection, now: datetime, *, most: int) -> list[Abandoned]:
    """Jobs whose lease has run out, longest first."""
    statement = (
        select(jobs.c.id, jobs.c.document_type, jobs.c.claimed_by, jobs.c.claim_token, jobs.c.crashes)
        .where(jobs.c.status == JobStatus.PROCESSING, jobs.c.lease_until < now)
        .order_by(jobs.c.lease_until)
        .limit(most)
    )
    return [Abandoned(*row) for row in connection.execute(statement)]


def take_back(connection: Connection, job: Abandoned, now: datetime, *, crashed: bool, poisons: bool) -> bool:
    """Put an abandoned job back in line, or end it as poisoned; False: its worker was quicker, or another sweeper.

    Args:
        crashed: its worker died while it prepared the image.
        poisons: that was once too often.
    """
    values = visible(
        **UNCLAIMED,
        crashes=jobs.c.crashes + int(crashed),
        published_at=None,
        history=remembering(JobEvent.WORKER_LOST, now, worker=job.worker, while_preparing=crashed),
    )
    if poisons:
        values |= ended_with(JobStatus.FAILED, JobErrorCode.POISONED, now)
    else:
        values |= {"status": JobStatus.QUEUED, "waiting_on": WaitingOn.WORKER, "not_before": None}
    where = jobs.c.id == job.id, jobs.c.claim_token == job.token, jobs.c.lease_until < now
    if connection.execute(update(jobs).where(*where).values(**values)).rowcount != 1:
        return False
    if poisons:
        record_ends(connection, [job.id], now)
    return True


def expire_due(connection: Connection, now: datetime, *, most: int) -> dict[str, str]:
    """End jobs that were not started in time; their document types by id."""
    due = (
        select(jobs.c.id)
        .where(jobs.c.status == JobStatus.QUEUED, jobs.c.expires_at <= now, jobs.c.calls == 0)
        .order_by(jobs.c.expires_at)
        .limit(most)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    values = visible(**ended_with(JobStatus.EXPIRED, JobErrorCode.EXPIRED, now))
    ended = update(jobs).where(jobs.c.id.in_(due)).values(values).returning(jobs.c.id, jobs.c.document_type)
    expired = {row.id: row.document_type for row in connection.execute(ended)}
    record_ends(connection, list(expired), now)
    return expired


def find_erasing(connection: Connection, *, most: int) -> list[tuple[str, str]]:
    """Erased jobs whose image is still in the store: id and the image's key."""
    statement = (
        select(jobs.c.id, jobs.c.image_key)
        .where(jobs.c.erased_at.is_not(None), jobs.c.image_key.is_not(None))
        .order_by(jobs.c.erased_at)
        .limit(most)
    )
    return [(job_id, str(key)) for job_id, key in connection.execute(statement)]


def without_row(connection: Connection, job_ids: Sequence[str]) -> set[str]:
    """Those of these ids that no job has."""
    return set(job_ids) - set(connection.execute(select(jobs.c.id).where(jobs.c.id.in_(job_ids))).scalars())


def note_chore(connection: Connection, name: str, at: datetime) -> None:
    """Remember when a chore was last done, or how far it has come."""
    statement = upsert(chores).values(name=name, ran_at=at)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"ran_at": at}))


def chore_noted(connection: Connection, name: str) -> datetime | None:
    """What `note_chore` remembered; None: nothing yet."""
    return connection.execute(select(chores.c.ran_at).where(chores.c.name == name)).scalar_one_or_none()
