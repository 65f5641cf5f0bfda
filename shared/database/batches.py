"""Batches: jobs submitted and followed together. Their items are rows of `jobs`, numbered from 1.

What a batch has done is counted from its items when somebody asks: counts kept on the side would make all workers wait
for one row, and might not add up.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.database.events import record_ends, record_event
from shared.database.history import JobEvent, remembering
from shared.database.jobs import JOB_COLUMNS, Job, NewJob, ended_with, queued, to_job, visible
from shared.database.tables import NO_BATCH, batches, jobs
from shared.domain.job import JOB_ERRORS, JobErrorCode, JobStatus, Lane, WaitingOn
from shared.domain.webhook import EventType

RETRYABLE = tuple(code.value for code, (_, is_retryable) in JOB_ERRORS.items() if is_retryable)


class BatchStatus(StrEnum):
    """The phase a batch is in."""

    OPEN = "open"
    """It takes items; those it has are being read."""
    RUNNING = "running"
    """It is closed; some of its items are not final."""
    COMPLETED = "completed"
    """Every item is final, however it ended."""
    CANCELED = "canceled"
    """It was called off, and nothing of it runs any more."""


@dataclass(frozen=True)
class Batch:
    """A row of `batches`; the columns say what each field means."""

    id: str
    client_id: str
    name: str | None
    document_type: str | None
    options: dict[str, str | bool]
    lane: Lane
    cache: bool
    item_count: int
    created_at: datetime
    webhook_url: str | None = None
    webhook_endpoint_id: str | None = None
    closed_at: datetime | None = None
    canceled_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def status(self) -> BatchStatus:
        """Its phase."""
        if self.completed_at is not None:
            return BatchStatus.COMPLETED if self.canceled_at is None else BatchStatus.CANCELED
        return BatchStatus.OPEN if self.closed_at is None else BatchStatus.RUNNING


@dataclass(frozen=True)
class Counts:
    """Items by status, which add up to `total`; `cached` are among them. By endpoint: those queued, calls billed."""

    by_status: dict[JobStatus, int]
    cached: int
    calls: int
    queued: dict[str, int]
    billed: dict[str, int]

    @property
    def total(self) -> int:
        """All items."""
        return sum(self.by_status.values())

    @property
    def final(self) -> int:
        """Those that never change again."""
        return sum(count for status, count in self.by_status.items() if status.is_final)


@dataclass(frozen=True)
class BadItem:
    """An item that is no image, or of which something wrong was said: it ends as failed at once."""

    job: NewJob
    error: JobErrorCode
    detail: str


_BATCH_COLUMNS = [batches.c[field.name] for field in fields(Batch)]


def _to_batch(row: Any) -> Batch:
    return Batch(**{**row._mapping, "lane": Lane(row.lane)})


def insert_batch(connection: Connection, new: Batch) -> Batch:
    """Record an open batch."""
    values = {field.name: getattr(new, field.name) for field in fields(Batch)}
    return _to_batch(connection.execute(insert(batches).values(**values).returning(*_BATCH_COLUMNS)).one())


def get_batch(connection: Connection, batch_id: str, *, client_id: str) -> Batch | None:
    """The client's batch, or None: another client's is not told from one that does not exist."""
    where = and_(batches.c.id == batch_id, batches.c.client_id == client_id)
    row = connection.execute(select(*_BATCH_COLUMNS).where(where)).one_or_none()
    return None if row is None else _to_batch(row)


def lock_batch(connection: Connection, batch_id: str) -> None:
    """Let nobody else close, reopen or complete it before this transaction ends."""
    connection.execute(select(batches.c.id).where(batches.c.id == batch_id).with_for_update())


def list_batches(connection: Connection, client_id: str, *, limit: int, after: str | None) -> list[Batch]:
    """The client's batches, newest first; `after`: id of the last one already seen."""
    statement = select(*_BATCH_COLUMNS).where(batches.c.client_id == client_id).order_by(batches.c.id.desc())
    if after is not None:
        statement = statement.where(batches.c.id < after)
    return [_to_batch(row) for row in connection.execute(statement.limit(limit))]


def take_numbers(connection: Connection, batch_id: str, count: int) -> int | None:
    """Numbers for so many more items: the first of them; None: the batch is closed.

    The batch's row is locked until the transaction ends: it is not closed meanwhile.
    """
    statement = (
        update(batches)
        .where(batches.c.id == batch_id, batches.c.closed_at.is_(None))
        .values(item_count=batches.c.item_count + count)
        .returning(batches.c.item_count)
    )
    last = connection.execute(statement).scalar_one_or_none()
    return None if last is None else last - count + 1


def raise_numbers(connection: Connection, batch_id: str, last: int) -> bool:
    """Remember that items up to this number are there; False: the batch is closed."""
    values = {"item_count": func.greatest(batches.c.item_count, last)}
    where = and_(batches.c.id == batch_id, batches.c.closed_at.is_(None))
    return connection.execute(update(batches).where(where).values(values)).rowcount == 1


def insert_items(connection: Connection, new: Sequence[NewJob | BadItem], now: datetime) -> set[int]:
    """Record items, in one statement; the numbers of those that were not there before."""
    if not new:
        return set()
    rows = [_item_row(item, now) for item in new]
    statement = upsert(jobs).values(rows)
    statement = statement.on_conflict_do_nothing(
        index_elements=["batch_id", "item_number"], index_where=jobs.c.batch_id != NO_BATCH
    )
    added = set(connection.execute(statement.returning(jobs.c.item_number)).scalars())
    bad = [item.job for item in new if isinstance(item, BadItem)]
    record_ends(connection, [job.id for job in bad if job.item_number in added], now)
    return added


def _item_row(item: NewJob | BadItem, now: datetime) -> dict[str, Any]:
    nothing: dict[str, Any] = {"completed_at": None, "error_code": None, "error_detail": None, "not_before": None}
    if isinstance(item, NewJob):
        return {**nothing, **queued(item)}
    return {**nothing, **queued(item.job), **ended_with(JobStatus.FAILED, item.error, now, item.detail)}


def known_numbers(connection: Connection, batch_id: str, first: int, last: int) -> set[int]:
    """Which of these numbers have an item."""
    where = and_(jobs.c.batch_id == batch_id, jobs.c.item_number.between(first, last))
    return set(connection.execute(select(jobs.c.item_number).where(where)).scalars())


def count_items(connection: Connection, batch_id: str) -> Counts:
    """How the items stand."""
    statement = (
        select(
            jobs.c.status,
            jobs.c.endpoint,
            func.count().label("number"),
            func.sum(jobs.c.calls).label("calls"),
            func.sum(jobs.c.billed_calls).label("billed"),
            func.count().filter(jobs.c.calls == 0).label("uncalled"),
        )
        .where(jobs.c.batch_id == batch_id)
        .group_by(jobs.c.status, jobs.c.endpoint)
    )
    counts = Counts(dict.fromkeys(JobStatus, 0), 0, 0, {}, {})
    cached = calls = 0
    for row in connection.execute(statement):
        counts.by_status[JobStatus(row.status)] += row.number
        counts.billed[row.endpoint] = counts.billed.get(row.endpoint, 0) + row.billed
        calls += row.calls
        if row.status == JobStatus.QUEUED:
            counts.queued[row.endpoint] = row.number
        if row.status == JobStatus.SUCCEEDED:
            cached += row.uncalled
    return replace(counts, cached=cached, calls=calls)


def has_open_items(connection: Connection, batch_id: str) -> bool:
    """Whether any item waits or is being read; looks at one."""
    unfinished = jobs.c.status.in_([JobStatus.QUEUED, JobStatus.PROCESSING])
    statement = select(jobs.c.id).where(jobs.c.batch_id == batch_id, unfinished).limit(1)
    return connection.execute(statement).one_or_none() is not None


def list_items(
    connection: Connection, batch_id: str, *, statuses: Iterable[JobStatus] = (), limit: int, after: int = 0
) -> list[Job]:
    """Items in their order; `after`: number of the last one already seen."""
    statement = select(*JOB_COLUMNS).where(jobs.c.batch_id == batch_id, jobs.c.item_number > after)
    wanted = list(statuses)
    if wanted:
        statement = statement.where(jobs.c.status.in_(wanted))
    return [to_job(row) for row in connection.execute(statement.order_by(jobs.c.item_number).limit(limit))]


def close_batch(connection: Connection, batch_id: str, now: datetime) -> None:
    """Let it take no more items. Doing it twice changes nothing."""
    where = and_(batches.c.id == batch_id, batches.c.closed_at.is_(None))
    connection.execute(update(batches).where(where).values(closed_at=now))


def call_off(connection: Connection, batch_id: str, now: datetime) -> None:
    """Let nothing more of it start; `cancel_waiting` has to follow. Doing it twice changes nothing."""
    where = and_(batches.c.id == batch_id, batches.c.completed_at.is_(None), batches.c.canceled_at.is_(None))
    values = {"canceled_at": now, "closed_at": func.coalesce(batches.c.closed_at, now)}
    connection.execute(update(batches).where(where).values(values))


def cancel_waiting(connection: Connection, batch_id: str, now: datetime, *, most: int) -> list[str]:
    """Cancel items that have not started, at most so many; their ids."""
    waiting = (
        select(jobs.c.id)
        .where(jobs.c.batch_id == batch_id, jobs.c.status == JobStatus.QUEUED)
        .limit(most)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    values = visible(**ended_with(JobStatus.CANCELED, JobErrorCode.CANCELED, now))
    ended = list(
        connection.execute(update(jobs).where(jobs.c.id.in_(waiting)).values(values).returning(jobs.c.id)).scalars()
    )
    record_ends(connection, ended, now)
    return ended


def retry_failed(connection: Connection, batch_id: str, now: datetime, *, only_retryable: bool, most: int) -> list[str]:
    """Put failed items that have an image, or an address of one, back in line, at most so many; their ids.

    Those that failed after `now` are left alone: who retries portion by portion would never end.
    """
    where = [jobs.c.batch_id == batch_id, jobs.c.status == JobStatus.FAILED, jobs.c.erased_at.is_(None)]
    where.append(jobs.c.completed_at <= now)
    where.append(or_(jobs.c.image_key.is_not(None), jobs.c.image_url.is_not(None)))
    if only_retryable:
        where.append(jobs.c.error_code.in_(RETRYABLE))
    failed = select(jobs.c.id).where(*where).limit(most).with_for_update(skip_locked=True).scalar_subquery()
    found = connection.execute(
        update(jobs).where(jobs.c.id.in_(failed)).values(again(now)).returning(jobs.c.id)
    ).scalars()
    return list(found)


def again(now: datetime) -> dict[str, Any]:
    """The values of a job that its client wants tried once more."""
    return visible(
        status=JobStatus.QUEUED,
        waiting_on=WaitingOn.WORKER,
        not_before=None,
        published_at=None,
        failed_attempts=0,
        crashes=0,
        error_code=None,
        error_detail=None,
        completed_at=None,
        expires_at=None,
        history=remembering(JobEvent.RETRIED, now),
    )


def retry_job(connection: Connection, job_id: str, *, client_id: str, now: datetime) -> Job | None:
    """Put a job back in line that failed or expired; None when there is no such job, or its image is gone.

    A batch it belongs to runs again.
    """
    found = connection.execute(select(jobs.c.batch_id).where(jobs.c.id == job_id, jobs.c.client_id == client_id))
    batch_id = found.scalar_one_or_none()
    if batch_id is None:
        return None
    if batch_id != NO_BATCH:
        lock_batch(connection, batch_id)
    statement = (
        update(jobs)
        .where(
            jobs.c.id == job_id,
            jobs.c.status.in_([JobStatus.FAILED, JobStatus.EXPIRED]),
            jobs.c.erased_at.is_(None),
            or_(jobs.c.image_key.is_not(None), jobs.c.image_url.is_not(None)),
        )
        .values(again(now))
        .returning(*JOB_COLUMNS)
    )
    row = connection.execute(statement).one_or_none()
    if row is not None and batch_id != NO_BATCH:
        reopen(connection, batch_id)
    return None if row is None else to_job(row)


def reopen(connection: Connection, batch_id: str) -> None:
    """It runs again, for items of it do."""
    values = {"completed_at": None, "canceled_at": None, "told_percent": 0}
    connection.execute(update(batches).where(batches.c.id == batch_id).values(values))


def list_running(connection: Connection) -> list[tuple[Batch, int]]:
    """Batches that are closed and not completed, with the percentage last told."""
    statement = select(*_BATCH_COLUMNS, batches.c.told_percent).where(
        batches.c.completed_at.is_(None), batches.c.closed_at.is_not(None)
    )
    found = []
    for row in connection.execute(statement):
        values = dict(row._mapping)
        told = values.pop("told_percent")
        found.append((Batch(**{**values, "lane": Lane(values["lane"])}), told))
    return found


def tell_progress(connection: Connection, batch: Batch, counts: Counts, percent: int, now: datetime) -> None:
    """Record an event `batch.progress`, once for a percentage."""
    where = and_(batches.c.id == batch.id, batches.c.completed_at.is_(None), batches.c.told_percent < percent)
    if connection.execute(update(batches).where(where).values(told_percent=percent)).rowcount == 1:
        _record(connection, EventType.BATCH_PROGRESS, batch, counts, now)


def complete(connection: Connection, batch: Batch, counts: Counts, now: datetime) -> bool:
    """End a batch all of whose items are final, with its event; False: it was done before."""
    where = and_(batches.c.id == batch.id, batches.c.completed_at.is_(None))
    statement = update(batches).where(where).values(completed_at=now).returning(batches.c.canceled_at)
    done = connection.execute(statement).one_or_none()
    if done is None:
        return False
    how = EventType.BATCH_COMPLETED if done.canceled_at is None else EventType.BATCH_CANCELED
    _record(connection, how, batch, counts, now)
    return True


def _record(connection: Connection, event_type: EventType, batch: Batch, counts: Counts, now: datetime) -> None:
    data = {
        "batch_id": batch.id,
        "counts": {status.value: count for status, count in counts.by_status.items()} | {"total": counts.total},
    }
    record_event(connection, event_type, data, now, client_id=batch.client_id, batch_id=batch.id)
