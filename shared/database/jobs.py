"""Jobs: insert, read, list, and every move between states.

A move is an UPDATE that names the state it starts from; no row means somebody got there first, which is an answer.
Each statement here is one step of one transaction that the caller opens (`shared.database.engine.transaction`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from shared.database.deliveries import forget_deliveries
from shared.database.engine import commit_without_waiting
from shared.database.events import record_ends, record_step
from shared.database.history import JobEvent, remembering
from shared.database.tables import NO_BATCH, jobs, results
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.job import FINAL_STATUSES, JOB_ERRORS, JobErrorCode, JobStatus, Lane, WaitingOn
from shared.domain.webhook import EventType

_FINAL = [status.value for status in FINAL_STATUSES]
_PARKED = (WaitingOn.UPSTREAM_DAILY_QUOTA, WaitingOn.UPSTREAM_TOTAL_QUOTA, WaitingOn.PROVIDER_OUTAGE)


@dataclass(frozen=True)
class NewJob:
    """What intake knows of a job. `image_*` describe the stored bytes; sizes in bytes and pixels.

    An item of a batch may have an `image_url` instead, which a worker fetches.
    """

    id: str
    client_id: str
    document_type: str
    options: dict[str, str | bool]
    lane: Lane
    client_reference_id: str | None
    metadata: dict[str, str]
    expires_at: datetime | None
    image_key: str | None
    image_sha256: str | None
    image_bytes: int | None
    image_format: str | None
    image_width: int | None
    image_height: int | None
    created_at: datetime
    batch_id: str = NO_BATCH
    cache: bool = True
    item_number: int | None = None
    item_name: str | None = None
    image_url: str | None = None
    webhook_url: str | None = None
    webhook_endpoint_id: str | None = None


@dataclass(frozen=True)
class Job:
    """A row of `jobs`; the columns say what each field means."""

    id: str
    client_id: str
    document_type: str
    endpoint: str
    batch_id: str
    options: dict[str, str | bool]
    lane: Lane
    status: JobStatus
    waiting_on: WaitingOn | None
    not_before: datetime | None
    client_reference_id: str | None
    metadata: dict[str, str]
    expires_at: datetime | None
    item_number: int | None
    item_name: str | None
    image_url: str | None
    webhook_url: str | None
    image_key: str | None
    image_sha256: str | None
    image_bytes: int | None
    image_format: str | None
    image_width: int | None
    image_height: int | None
    claim_token: str | None
    claim_count: int
    failed_attempts: int
    crashes: int
    calls: int
    billed_calls: int
    throttle_ms: int
    upstream_ms: int
    cache: bool
    cache_source: str | None
    error_code: str | None
    error_detail: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    erased_at: datetime | None
    revision: int


JOB_COLUMNS = [jobs.c[field.name] for field in fields(Job)]


def to_job(row: Row[Any]) -> Job:
    """A row of JOB_COLUMNS as a job."""
    values = dict(row._mapping)
    values["lane"] = Lane(values["lane"])
    values["status"] = JobStatus(values["status"])
    values["waiting_on"] = values["waiting_on"] and WaitingOn(values["waiting_on"])
    return Job(**values)


def _to_optional_job(row: Row[Any] | None) -> Job | None:
    return None if row is None else to_job(row)


def queued(new: NewJob) -> dict[str, Any]:
    """The row of a new job."""
    values = {field.name: getattr(new, field.name) for field in fields(NewJob)}
    values["endpoint"] = DOCUMENT_TYPES[new.document_type].endpoint
    return {**values, "status": JobStatus.QUEUED, "waiting_on": WaitingOn.WORKER}


def insert_job(connection: Connection, new: NewJob) -> Job:
    """Record a job as queued."""
    statement = insert(jobs).values(**queued(new))
    return to_job(connection.execute(statement.returning(*JOB_COLUMNS)).one())


def get_job(connection: Connection, job_id: str, *, client_id: str) -> Job | None:
    """The client's job, or None: another client's job is not told from one that does not exist."""
    statement = select(*JOB_COLUMNS).where(jobs.c.id == job_id, jobs.c.client_id == client_id)
    return _to_optional_job(connection.execute(statement).one_or_none())


@dataclass(frozen=True)
class JobFilter:
    """Which jobs to list; None and () mean any."""

    status: JobStatus | None = None
    document_type: str | None = None
    client_reference_id: str | None = None
    batch_id: str | None = None
    ids: tuple[str, ...] = ()


def list_jobs(
    connection: Connection, client_id: str, wanted: JobFilter, *, limit: int, after: str | None = None
) -> list[Job]:
    """The client's jobs, newest first.

    Args:
        after: id of the last job already seen; those older than it follow.
    """
    statement = select(*JOB_COLUMNS).where(jobs.c.client_id == client_id).order_by(jobs.c.id.desc()).limit(limit)
    if wanted.status is not None:
        statement = statement.where(jobs.c.status == wanted.status)
    if wanted.document_type is not None:
        statement = statement.where(jobs.c.document_type == wanted.document_type)
    if wanted.client_reference_id is not None:
        statement = statement.where(jobs.c.client_reference_id == wanted.client_reference_id)
    if wanted.batch_id is not None:
        statement = statement.where(jobs.c.batch_id == wanted.batch_id)
    if wanted.ids:
        statement = statement.where(jobs.c.id.in_(wanted.ids))
    if after is not None:
        statement = statement.where(jobs.c.id < after)
    return [to_job(row) for row in connection.execute(statement)]


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


def visible(**values: Any) -> dict[str, Any]:
    """These values, as a change that clients can see."""
    return {**values, "revision": jobs.c.revision + 1}


def claim_job(
    connection: Connection, job_id: str, *, token: str, worker: str, now: datetime, lease_until: datetime
) -> Job | None:
    """Take a job that waits. None: there is nothing to do.

    The commit does not wait for the disk: that of the attempt does, before the call, and takes this one along.

    Args:
        token: random; whoever settles must show it.
    """
    waits = and_(
        jobs.c.status == JobStatus.QUEUED,
        or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now),
    )
    statement = (
        update(jobs)
        .where(jobs.c.id == job_id, waits)
        .values(
            visible(
                status=JobStatus.PROCESSING,
                waiting_on=None,
                not_before=None,
                claim_token=token,
                claimed_by=worker,
                lease_until=lease_until,
                claim_count=jobs.c.claim_count + 1,
                started_at=func.coalesce(jobs.c.started_at, now),
                history=remembering(JobEvent.CLAIMED, now, worker=worker),
            )
        )
        .returning(*JOB_COLUMNS)
    )
    commit_without_waiting(connection)
    job = _to_optional_job(connection.execute(statement).one_or_none())
    if job is not None and job.claim_count == 1:
        record_step(connection, job_id, EventType.JOB_STARTED, now)
    return job


def ended_with(status: JobStatus, code: JobErrorCode, now: datetime, detail: str | None = None) -> dict[str, Any]:
    """The values of a job that ends without a result; `detail`: a better sentence than the code's."""
    return {
        "status": status,
        "waiting_on": None,
        "not_before": None,
        "completed_at": now,
        "error_code": code,
        "error_detail": detail or JOB_ERRORS[code][0],
    }


UNCLAIMED = {"claim_token": None, "claimed_by": None, "lease_until": None}


def release_job(
    connection: Connection,
    job_id: str,
    token: str,
    *,
    waiting_on: WaitingOn,
    not_before: datetime | None,
    count_failure: bool,
    now: datetime,
) -> bool:
    """Put a claimed job back in line; False when the claim was lost.

    Args:
        not_before: when it may be claimed again; None: when its endpoint is fed.
    """
    statement = (
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.claim_token == token)
        .values(
            visible(
                **UNCLAIMED,
                status=JobStatus.QUEUED,
                waiting_on=waiting_on,
                not_before=not_before,
                published_at=None,
                failed_attempts=jobs.c.failed_attempts + int(count_failure),
                history=remembering(
                    JobEvent.PUT_BACK,
                    now,
                    waiting_on=waiting_on,
                    not_before=None if not_before is None else not_before.isoformat(),
                ),
            )
        )
    )
    if connection.execute(statement).rowcount != 1:
        return False
    if waiting_on in _PARKED:
        record_step(connection, job_id, EventType.JOB_PARKED, now)
    return True


def succeed_job(connection: Connection, job_id: str, token: str, *, now: datetime, result: Mapping[str, Any]) -> bool:
    """End a claimed job with a result; False when the claim was lost."""
    values = visible(**UNCLAIMED, status=JobStatus.SUCCEEDED, completed_at=now)
    statement = update(jobs).where(jobs.c.id == job_id, jobs.c.claim_token == token).values(values)
    if connection.execute(statement).rowcount != 1:
        return False
    connection.execute(insert(results).values(**result))
    record_ends(connection, [job_id], now)
    return True


def fail_job(
    connection: Connection,
    job_id: str,
    token: str,
    *,
    error: JobErrorCode,
    now: datetime,
    count_failure: bool,
    detail: str | None = None,
) -> bool:
    """End a claimed job with an error; False when the claim was lost."""
    status = JobStatus.EXPIRED if error is JobErrorCode.EXPIRED else JobStatus.FAILED
    values = visible(
        **UNCLAIMED,
        **ended_with(status, error, now, detail),
        failed_attempts=jobs.c.failed_attempts + int(count_failure),
    )
    statement = update(jobs).where(jobs.c.id == job_id, jobs.c.claim_token == token).values(values)
    if connection.execute(statement).rowcount != 1:
        return False
    record_ends(connection, [job_id], now)
    return True


def cancel_job(connection: Connection, job_id: str, *, client_id: str, now: datetime) -> Job | None:
    """Call off a job that has not started; None when there is no such queued job."""
    values = visible(**ended_with(JobStatus.CANCELED, JobErrorCode.CANCELED, now))
    statement = (
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.client_id == client_id, jobs.c.status == JobStatus.QUEUED)
        .values(values)
        .returning(*JOB_COLUMNS)
    )
    canceled = _to_optional_job(connection.execute(statement).one_or_none())
    if canceled is not None:
        record_ends(connection, [job_id], now)
    return canceled


def erase_job(connection: Connection, job_id: str, *, client_id: str, now: datetime) -> str | None:
    """Erase what a job holds of a person; a tombstone stays. Erasing twice changes nothing.

    A job not final yet ends `canceled`; a worker that holds it loses its claim and settles nothing.

    Returns:
        The key of the image to erase from the store, or None when there is none (any more). The key stays in the
        row until `forget_image`, so that an erasure cut short is found and finished.
    """
    owned = and_(jobs.c.id == job_id, jobs.c.client_id == client_id)
    key = connection.execute(select(jobs.c.image_key).where(owned).with_for_update()).scalar_one_or_none()
    unfinished = {**UNCLAIMED, **ended_with(JobStatus.CANCELED, JobErrorCode.CANCELED, now)}
    is_ended = connection.execute(update(jobs).where(owned, jobs.c.status.not_in(_FINAL)).values(unfinished)).rowcount
    erased = visible(
        erased_at=now, client_reference_id=None, metadata={}, item_name=None, image_url=None, webhook_url=None
    )
    connection.execute(update(jobs).where(owned, jobs.c.erased_at.is_(None)).values(erased))
    connection.execute(results.delete().where(results.c.job_id.in_(select(jobs.c.id).where(owned))))
    forget_deliveries(connection, job_id, client_id=client_id, now=now)
    if is_ended:
        record_ends(connection, [job_id], now)
    return key


def keep_image(connection: Connection, job_id: str, token: str, **image: str | int) -> bool:
    """Remember the image that was fetched for a claimed job; False when the claim was lost.

    Args:
        image: values of `image_key`, `image_sha256`, `image_bytes`, `image_format`, `image_width`, `image_height`.
    """
    statement = (
        update(jobs).where(jobs.c.id == job_id, jobs.c.claim_token == token).values(visible(image_url=None, **image))
    )
    return connection.execute(statement).rowcount == 1


def forget_image(connection: Connection, job_id: str) -> None:
    """Remember that the image is gone from the store."""
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(image_key=None))
