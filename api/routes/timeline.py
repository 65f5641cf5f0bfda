"""`/v1/jobs/{job_id}/timeline`: everything that happened to a job, in order."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from flask import Response, request
from sqlalchemy import Row

from api.operations import Answer, Operation
from api.presenting import to_json
from api.routes.jobs import find_job
from api.schemas import NoQuery
from api.services import services
from api.timeline_schemas import TimelineEvent, TimelineView
from api.validation import validate_query
from shared.database.delivery_log import Delivery, deliveries_of_job
from shared.database.engine import transaction
from shared.database.history import read_attempts, read_history
from shared.database.jobs import Job
from shared.domain.errors import NotFoundError

_MOST_DELIVERIES = 100


def read_timeline(job_id: str) -> Response:
    """The story of a job, oldest first. It holds no content, and stays when the job is erased."""
    validate_query(NoQuery, request.args)
    job = find_job(job_id)
    with transaction(services().engine) as connection:
        history, calls = read_history(connection, job.id), read_attempts(connection, job.id)
        told_of = deliveries_of_job(connection, job.id, most=_MOST_DELIVERIES)
    accepted = TimelineEvent(event="accepted", at=job.created_at)
    told = [accepted, *(TimelineEvent(**event) for event in history), *_calls(calls), *_ends(job)]
    told += [event for delivery in told_of for event in _attempts_of(delivery)]
    # In one instant things stand in the order in which they were written.
    view = TimelineView(job_id=job.id, data=sorted(told, key=lambda event: event.at))
    return Response(to_json(view), content_type="application/json")


def _ends(job: Job) -> Iterator[TimelineEvent]:
    if job.completed_at is not None:
        yield TimelineEvent(event=job.status.value, at=job.completed_at, **_given(error_code=job.error_code))
    if job.erased_at is not None:
        yield TimelineEvent(event="erased", at=job.erased_at)


def _attempts_of(delivery: Delivery) -> Iterator[TimelineEvent]:
    for attempt in delivery.attempts:
        yield TimelineEvent(
            event="delivery_failed" if attempt["error"] else "delivered",
            at=attempt["at"],
            delivery_id=delivery.id,
            endpoint_id=delivery.endpoint_id,
            event_type=delivery.event_type,
            **_given(status_code=attempt["status_code"]),
        )


def _calls(attempts: list[Row[Any]]) -> Iterator[TimelineEvent]:
    """A call whose outcome nobody wrote down was under way when its worker died; the next one may repeat it."""
    outcome_unknown = False
    for attempt in attempts:
        yield TimelineEvent(
            event="called",
            at=attempt.started_at,
            attempt=attempt.number,
            account=attempt.account,
            throttle_ms=attempt.throttle_ms,
            **({"repeated_after_crash": True} if outcome_unknown else {}),
        )
        outcome_unknown = attempt.outcome is None
        if attempt.outcome is not None:
            yield TimelineEvent(
                event="answered",
                at=_end(attempt),
                attempt=attempt.number,
                outcome=attempt.outcome,
                billed=attempt.billed,
                **_given(
                    upstream_code=attempt.upstream_code,
                    upstream_log_id=attempt.upstream_log_id,
                    upstream_ms=attempt.upstream_ms,
                ),
            )


def _end(attempt: Row[Any]) -> datetime:
    ended: datetime = attempt.ended_at or attempt.started_at
    return ended


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/timeline",
        name="read_timeline",
        summary="Read what happened to a job",
        view=read_timeline,
        query=NoQuery,
        answers={200: Answer("All events, oldest first", TimelineView)},
        errors=(NotFoundError,),
    ),
)
