"""Attempts: one row for each upstream call, written before it is made.

A row without an outcome is a call under way, or one whose worker died: it may have been made, and may be billed. So it
counts against the quota, as all do but those the provider is known not to have counted.
"""

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, and_, func, insert, select, update

from shared.database.tables import attempts, jobs


def start_attempt(
    connection: Connection, values: Mapping[str, Any], *, claim_token: str, lease_until: datetime
) -> int | None:
    """Record that a call is about to be made, and extend the claim; None: the job is no longer ours.

    Returns:
        The attempt's number, from 1.
    """
    statement = (
        update(jobs)
        .where(jobs.c.id == values["job_id"], jobs.c.claim_token == claim_token)
        .values(lease_until=lease_until, calls=jobs.c.calls + 1, throttle_ms=jobs.c.throttle_ms + values["throttle_ms"])
        .returning(jobs.c.calls)
    )
    number = connection.execute(statement).scalar_one_or_none()
    if number is not None:
        connection.execute(insert(attempts).values(**values, number=number))
    return number


def move_attempt(connection: Connection, job_id: str, number: int, values: Mapping[str, Any]) -> None:
    """The call missed its instant and got another: `account_id`, `quota_day`, `throttle_ms`, `started_at`."""
    connection.execute(update(attempts).where(_is(job_id, number)).values(**values))


def withdraw_attempt(connection: Connection, job_id: str, number: int) -> None:
    """The call was not made after all."""
    connection.execute(attempts.delete().where(_is(job_id, number)))
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(calls=jobs.c.calls - 1))


def end_attempt(connection: Connection, job_id: str, number: int, values: Mapping[str, Any]) -> None:
    """Record how a call ended."""
    connection.execute(update(attempts).where(_is(job_id, number)).values(**values))
    connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id)
        .values(
            billed_calls=jobs.c.billed_calls + int(values.get("billed", False)),
            upstream_ms=jobs.c.upstream_ms + values["upstream_ms"],
        )
    )


def count_calls(connection: Connection, account_id: str, endpoint: str, day: date | None) -> int:
    """Calls of an account at an endpoint that use up quota, on a provider's day, or (None) in all."""
    statement = select(func.count()).where(
        attempts.c.account_id == account_id, attempts.c.endpoint == endpoint, attempts.c.counted
    )
    if day is not None:
        statement = statement.where(attempts.c.quota_day == day)
    return connection.execute(statement).scalar_one()


def _is(job_id: str, number: int) -> Any:
    return and_(attempts.c.job_id == job_id, attempts.c.number == number)
