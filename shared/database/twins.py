"""Equal jobs: same client, same bytes (SHA-256), same document type, same options. One of them is paid for.

Who claims a job asks, in the same transaction and behind a lock on the image, whether another has the answer or is
about to. The lock orders claims of equal images: of two at the same time, the second sees the first.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, text, update

from shared.database.events import record_ends
from shared.database.history import JobEvent, remembering
from shared.database.jobs import UNCLAIMED, Job, NewJob, visible
from shared.database.tables import jobs, results
from shared.domain.job import JobStatus

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:image, 0))")


@dataclass(frozen=True)
class Twins:
    """What equal jobs offer: `answered` is one that has a result, `is_being_read`: another worker is at one."""

    answered: str | None
    is_being_read: bool


NO_TWINS = Twins(None, is_being_read=False)


def find_twins(connection: Connection, job: Job, *, answered_since: datetime) -> Twins:
    """Look for jobs equal to one that was just claimed in this transaction.

    Args:
        answered_since: older answers do not count.
    """
    connection.execute(_LOCK, {"image": f"{job.client_id}/{job.image_sha256}"})
    equal = (
        jobs.c.client_id == job.client_id,
        jobs.c.image_sha256 == job.image_sha256,
        jobs.c.document_type == job.document_type,
        jobs.c.options == job.options,
        jobs.c.id != job.id,
    )
    answered = (
        select(jobs.c.id)
        .join(results, results.c.job_id == jobs.c.id)
        .where(*equal, jobs.c.status == JobStatus.SUCCEEDED, results.c.created_at >= answered_since)
        .limit(1)
    )
    source = connection.execute(answered).scalar_one_or_none()
    if source is not None:
        return Twins(source, is_being_read=False)
    reading = select(jobs.c.id).where(*equal, jobs.c.status == JobStatus.PROCESSING).limit(1)
    return Twins(None, is_being_read=connection.execute(reading).scalar_one_or_none() is not None)


def find_answered(
    connection: Connection, client_id: str, wanted: Sequence[NewJob], *, answered_since: datetime
) -> set[tuple[str, str, str]]:
    """What of these was answered before: SHA-256, document type and options (as text)."""
    hashes = [job.image_sha256 for job in wanted if job.image_sha256 is not None]
    statement = (
        select(jobs.c.image_sha256, jobs.c.document_type, jobs.c.options)
        .join(results, results.c.job_id == jobs.c.id)
        .where(
            jobs.c.client_id == client_id,
            jobs.c.image_sha256.in_(hashes),
            jobs.c.status == JobStatus.SUCCEEDED,
            results.c.created_at >= answered_since,
        )
    )
    return {(sha256, kind, options_text(options)) for sha256, kind, options in connection.execute(statement)}


def options_text(options: Mapping[str, str | bool]) -> str:
    """Options as text that is the same for equal ones."""
    return json.dumps(options, sort_keys=True)


def read_answer(connection: Connection, job_id: str) -> dict[str, Any] | None:
    """The row of `results` to copy, or None when it was erased."""
    row = connection.execute(select(results).where(results.c.job_id == job_id)).one_or_none()
    return None if row is None else dict(row._mapping)


def succeed_like(
    connection: Connection, job_id: str, token: str, *, source: str, now: datetime, result: dict[str, Any]
) -> bool:
    """End a claimed job with the answer of another; False when the claim was lost.

    The copy keeps the age of the original, so that no answer is handed on beyond its time.
    """
    first = select(func.coalesce(jobs.c.cache_source, jobs.c.id)).where(jobs.c.id == source).scalar_subquery()
    values = visible(
        **UNCLAIMED,
        status=JobStatus.SUCCEEDED,
        completed_at=now,
        cache_source=first,
        history=remembering(JobEvent.CACHE_HIT, now, source=source),
    )
    statement = update(jobs).where(jobs.c.id == job_id, jobs.c.claim_token == token).values(values)
    if connection.execute(statement).rowcount != 1:
        return False
    connection.execute(insert(results).values({**result, "job_id": job_id}))
    record_ends(connection, [job_id], now)
    return True
