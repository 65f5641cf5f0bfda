"""Jobs: insert, read, list, and every move between states.

A move is an UPDATE that names the state it starts from; no row means somebody got there first, which is an answer.
Each statement here is one step of one transaction that the caller opens (`shared.database.engine.transaction`).
"""

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, literal, or_, select, text, update

from shared.database.tables import attempts, jobs, results
from shared.domain.job import FINAL_STATUSES, JOB_ERRORS, JobErrorCode, JobStatus, Lane, WaitingOn

_FINAL = [status.value for status in FINAL_STATUSES]


@dataclass(frozen=True)
class NewJob:
    """What intake knows of a job. `image_*` describe the stored bytes; sizes in bytes and pixels."""

    id: str
    client_id: str
    document_type: str
    options: dict[str, str | bool]
    lane: Lane
    client_reference_id: str | None
    metadata: dict[str, str]
    expires_at: datetime | None
    image_key: str
    image_sha256: str
    image_bytes: int
    image_format: str
    image_width: int
    image_height: int
    created_at: datetime


@dataclass(frozen=True)
class Job:
    """A row of `jobs`; the columns say what each field means."""

    id: str
    client_id: str
    document_type: str
    options: dict[str, str | bool]
    lane: Lane
    status: JobStatus
    waiting_on: WaitingOn | None
    not_before: datetime | None
    client_reference_id: str | None
    metadata: dict[str, str]
    expires_at: datetime | None
    image_key: str | None
    image_sha256: str
    image_bytes: int
    image_format: str
    image_width: int
    image_height: int
    claim_token: str | None
    claim_count: int
    failed_attempts: int
    calls: int
    billed_calls: int
    throttle_ms: int
    upstream_ms: int
    error_code: str | None
    error_detail: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    erased_at: datetime | None
    revision: int


_COLUMNS = [jobs.c[field.name] for field in fields(Job)]


def _to_job(row: Row[Any]) -> Job:
    values = dict(row._mapping)
    values["lane"] = Lane(values["lane"])
    values["status"] = JobStatus(values["status"])
    values["waiting_on"] = values["waiting_on"] and WaitingOn(values["waiting_on"])
    return Job(**values)


def _to_optional_job(row: Row[Any] | None) -> Job | None:
    return None if row is None else _to_job(row)


def insert_job(connection: Connection, new: NewJob) -> Job:
    """Record a job as queued."""
    values = {field.name: getattr(new, field.name) for field in fields(NewJob)}
    statement = insert(jobs).values(**values, status=JobStatus.QUEUED, waiting_on=WaitingOn.WORKER)
    return _to_job(connection.execute(statement.returning(*_COLUMNS)).one())


def get_job(connection: Connection, job_id: str, *, client_id: str) -> Job | None:
    """The client's job, or None: another client's job is not told from one that does not exist."""
    statement = select(*_COLUMNS).where(jobs.c.id == job_id, jobs.c.client_id == client_id)
    return _to_optional_job(connection.execute(statement).one_or_none())


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list; None and () mean any."""

    status: JobStatus | None = None
    document_type: str | None = None
    client_reference_id: str | None = None
    ids: tuple[str, ...] = ()


def list_jobs(
    connection: Connection, client_id: str, wanted: JobFilter, *, limit: int, after: str | None = None
) -> list[Job]:
    """The client's jobs, newest first.

    Args:
        after: id of the last job already seen; those older than it follow.
    """
    statement = select(*_COLUMNS).where(jobs.c.client_id == client_id).order_by(jobs.c.id.desc()).limit(limit)
    if wanted.status is not None:
        statement = statement.where(jobs.c.status == wanted.status)
    if wanted.document_type is not None:
        statement = statement.where(jobs.c.document_type == wanted.document_type)
    if wanted.client_reference_id is not None:
        statement = statement.where(jobs.c.client_reference_id == wanted.client_reference_id)
    if wanted.ids:
        statement = statement.where(jobs.c.id.in_(wanted.ids))
    if after is not None:
        statement = statement.where(jobs.c.id < after)
    return [_to_job(row) for row in connection.execute(statement)]


def get_result(connection: Connection, job_id: str) -> dict[str, Any] | None:
    """The result's columns: fields, checks, image, provider, account, upstream_log_id, raw."""
    row = connection.execute(select(results).where(results.c.job_id == job_id)).one_or_none()
    return None if row is None else dict(row._mapping)


def get_results(connection: Connection, job_ids: list[str]) -> dict[str, dict[str, Any]]:
    """Results by job id, without the vendor's raw answers."""
    columns = [column for column in results.c if column.name != "raw"]
    rows = connection.execute(select(*columns).where(results.c.job_id.in_(job_ids)))
    return {row.job_id: dict(row._mapping) for row in rows}


def final_ids(connection: Connection, job_ids: list[str]) -> set[str]:
    """Which of these jobs are final (or erased): what held polls ask, all in one statement."""
    statement = select(jobs.c.id).where(jobs.c.id.in_(job_ids), jobs.c.status.in_(_FINAL))
    return set(connection.execute(statement).scalars())


def count_ahead(connection: Connection, job: Job) -> int:
    """How many queued jobs of the same lane were accepted before this one; counts to 1 000 and no further."""
    ahead = (
        select(jobs.c.id)
        .where(jobs.c.status == JobStatus.QUEUED, jobs.c.lane == job.lane, jobs.c.id < job.id)
        .limit(1_000)
        .subquery()
    )
    return connection.execute(select(func.count()).select_from(ahead)).scalar_one()


def mark_published(connection: Connection, job_ids: list[str], now: datetime) -> None:
    """Remember that messages are on their way. Lost remembrance costs a doubled message, no more.

    Args:
        now: when the jobs were looked up. A worker may have taken one and put it back since, to wait for a later time:
            that job needs another message then, and is left alone.
    """
    still_due = or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now)
    connection.execute(update(jobs).where(jobs.c.id.in_(job_ids), still_due).values(published_at=now))


def remember_first_message(connection: Connection, job_id: str, now: datetime) -> None:
    """Remember that a new job's first message is on its way, unless a worker has been quicker.

    A worker may even have put the job back in line by now: then its `published_at` is no business of intake any more.
    The commit does not wait for the disk: lost remembrance costs a doubled message.
    """
    connection.execute(text("SET LOCAL synchronous_commit = off"))
    where = and_(jobs.c.id == job_id, jobs.c.claim_count == 0)
    connection.execute(update(jobs).where(where).values(published_at=now))


def _visible(**values: Any) -> dict[str, Any]:
    return {**values, "revision": jobs.c.revision + 1}


def claim_job(
    connection: Connection, job_id: str, *, token: str, worker: str, now: datetime, lease_until: datetime
) -> Job | None:
    """Take a job that waits, or whose worker is gone. None: there is nothing to do.

    Args:
        token: random; whoever settles must show it.
    """
    waits = and_(
        jobs.c.status == JobStatus.QUEUED,
        or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now),
    )
    abandoned = and_(jobs.c.status == JobStatus.PROCESSING, jobs.c.lease_until < now)
    statement = (
        update(jobs)
        .where(jobs.c.id == job_id, or_(waits, abandoned))
        .values(
            _visible(
                status=JobStatus.PROCESSING,
                waiting_on=None,
                not_before=None,
                claim_token=token,
                claimed_by=worker,
                lease_until=lease_until,
                claim_count=jobs.c.claim_count + 1,
                started_at=func.coalesce(jobs.c.started_at, now),
            )
        )
        .returning(*_COLUMNS)
    )
    return _to_optional_job(connection.execute(statement).one_or_none())


def extend_lease(connection: Connection, job_id: str, token: str, lease_until: datetime) -> bool:
    """Keep a claim; False when it is no longer ours."""
    statement = update(jobs).where(jobs.c.id == job_id, jobs.c.claim_token == token).values(lease_until=lease_until)
    return connection.execute(statement).rowcount == 1


_UNCLAIMED = {"claim_token": None, "claimed_by": None, "lease_until": None}


def release_job(
    connection: Connection,
    job_id: str,
    token: str,
    *,
    waiting_on: WaitingOn,
    not_before: datetime,
    count_failure: bool,
    throttle_ms: int = 0,
) -> bool:
    """Put a claimed job back in line, not to be claimed before a time; False when the claim was lost."""
    statement = (
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.claim_token == token)
        .values(
            _visible(
                **_UNCLAIMED,
                status=JobStatus.QUEUED,
                waiting_on=waiting_on,
                not_before=not_before,
                published_at=None,
                failed_attempts=jobs.c.failed_attempts + int(count_failure),
                throttle_ms=jobs.c.throttle_ms + throttle_ms,
            )
        )
    )
    return connection.execute(statement).rowcount == 1


def succeed_job(connection: Connection, job_id: str, token: str, *, now: datetime) -> bool:
    """End a claimed job with a result; False when the claim was lost. The caller inserts the result."""
    values = _visible(**_UNCLAIMED, status=JobStatus.SUCCEEDED, completed_at=now)
    statement = update(jobs).where(jobs.c.id == job_id, jobs.c.claim_token == token).values(values)
    return connection.execute(statement).rowcount == 1


def fail_job(
    connection: Connection, job_id: str, token: str, *, error: JobErrorCode, now: datetime, count_failure: bool
) -> bool:
    """End a claimed job with an error; False when the claim was lost."""
    status = JobStatus.EXPIRED if error is JobErrorCode.EXPIRED else JobStatus.FAILED
    values = _visible(
        **_UNCLAIMED,
        status=status,
        completed_at=now,
        failed_attempts=jobs.c.failed_attempts + int(count_failure),
        error_code=error,
        error_detail=JOB_ERRORS[error][0],
    )
    statement = update(jobs).where(jobs.c.id == job_id, jobs.c.claim_token == token).values(values)
    return connection.execute(statement).rowcount == 1


def cancel_job(connection: Connection, job_id: str, *, client_id: str, now: datetime) -> Job | None:
    """Call off a job that has not started; None when there is no such queued job."""
    code = JobErrorCode.CANCELED
    values = _visible(
        status=JobStatus.CANCELED,
        waiting_on=None,
        not_before=None,
        completed_at=now,
        error_code=code,
        error_detail=JOB_ERRORS[code][0],
    )
    statement = (
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.client_id == client_id, jobs.c.status == JobStatus.QUEUED)
        .values(values)
        .returning(*_COLUMNS)
    )
    return _to_optional_job(connection.execute(statement).one_or_none())


def erase_job(connection: Connection, job_id: str, *, client_id: str, now: datetime) -> str | None:
    """Erase what a job holds of a person; a tombstone stays. Erasing twice changes nothing.

    A job not final yet ends `canceled`; a worker that holds it loses its claim and settles nothing.

    Returns:
        The key of the image to erase from the store, or None when there is none (any more). The key stays in the
        row until `forget_image`, so that an erasure cut short is found and finished.
    """
    owned = and_(jobs.c.id == job_id, jobs.c.client_id == client_id)
    key = connection.execute(select(jobs.c.image_key).where(owned).with_for_update()).scalar_one_or_none()
    unfinished = {
        **_UNCLAIMED,
        "status": JobStatus.CANCELED,
        "waiting_on": None,
        "not_before": None,
        "completed_at": now,
        "error_code": JobErrorCode.CANCELED,
        "error_detail": JOB_ERRORS[JobErrorCode.CANCELED][0],
    }
    connection.execute(update(jobs).where(owned, jobs.c.status.not_in(_FINAL)).values(unfinished))
    erased = _visible(erased_at=now, client_reference_id=None, metadata={})
    connection.execute(update(jobs).where(owned, jobs.c.erased_at.is_(None)).values(erased))
    connection.execute(results.delete().where(results.c.job_id.in_(select(jobs.c.id).where(owned))))
    return key


def forget_image(connection: Connection, job_id: str) -> None:
    """Remember that the image is gone from the store."""
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(image_key=None))


def start_attempt(connection: Connection, values: dict[str, Any]) -> int:
    """Record that a call is about to be made; returns the attempt's number, from 1."""
    taken = select(func.coalesce(func.max(attempts.c.number), 0)).where(attempts.c.job_id == values["job_id"])
    statement = insert(attempts).values(**values, number=taken.scalar_subquery() + 1).returning(attempts.c.number)
    connection.execute(
        update(jobs)
        .where(jobs.c.id == values["job_id"])
        .values(calls=jobs.c.calls + 1, throttle_ms=jobs.c.throttle_ms + values["throttle_ms"])
    )
    number: int = connection.execute(statement).scalar_one()
    return number


def end_attempt(connection: Connection, job_id: str, number: int, values: dict[str, Any]) -> None:
    """Record how a call ended."""
    where = and_(attempts.c.job_id == job_id, attempts.c.number == number)
    connection.execute(update(attempts).where(where).values(**values))
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(
            billed_calls=jobs.c.billed_calls + int(values.get("billed", False)),
            upstream_ms=jobs.c.upstream_ms + values["upstream_ms"],
        )
    )


def insert_result(connection: Connection, values: dict[str, Any]) -> None:
    """Keep what was read."""
    connection.execute(insert(results).values(**values))


def unpublished_jobs(
    connection: Connection, *, lane: Lane, now: datetime, silent_since: datetime, include_lost: bool, limit: int
) -> list[Row[Any]]:
    """Jobs of a lane that a worker should hear of, oldest first: rows (id, reason).

    `due`: queued, its time has come, and no message on its way. `abandoned`: its worker's lease has run out. `lost`
    (only if asked for): a message was sent before `silent_since` and nothing came of it.
    """
    ready = and_(
        jobs.c.status == JobStatus.QUEUED,
        jobs.c.lane == lane,
        or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now),
    )
    abandoned = and_(
        jobs.c.status == JobStatus.PROCESSING,
        jobs.c.lane == lane,
        jobs.c.lease_until < now,
        or_(jobs.c.published_at.is_(None), jobs.c.published_at < silent_since),
    )
    conditions = {"due": and_(ready, jobs.c.published_at.is_(None)), "abandoned": abandoned}
    if include_lost:
        conditions["lost"] = and_(ready, jobs.c.published_at < silent_since)
    rows: list[Row[Any]] = []
    for reason, condition in conditions.items():
        statement = select(jobs.c.id, literal(reason).label("reason")).where(condition).order_by(jobs.c.id)
        rows.extend(connection.execute(statement.limit(limit - len(rows))))
    return rows
