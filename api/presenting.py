"""From rows to the bodies of answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from api.document_schemas import DocumentFieldView, DocumentTypeView, OptionView
from api.schemas import (
    BillingView,
    JobDeliveryView,
    JobErrorView,
    JobView,
    LinksView,
    QueueView,
    ResultView,
    TimingsView,
)
from shared.database.delivery_log import Delivery
from shared.database.jobs import Job
from shared.database.tables import NO_BATCH
from shared.domain.documents import DocumentType
from shared.domain.job import JOB_ERRORS, JobErrorCode, JobStatus, WaitingOn
from shared.domain.webhook import DeliveryStatus
from shared.limits.outlook import Outlook

_RESULT_COLUMNS = ("fields", "checks", "image", "provider", "account", "upstream_log_id")


@dataclass(frozen=True)
class Place:
    """Where a queued job stands in its line, from 1 (None: too far behind to count), and when it may start."""

    position: int | None
    starts_at: datetime | None


def present_job(
    job: Job,
    *,
    result: dict[str, Any] | None = None,
    place: Place | None = None,
    outlook: Outlook | None = None,
    deliveries: Sequence[Delivery] | None = None,
) -> JobView:
    """A job as clients see it.

    Args:
        result: its row of `results`, if it has one.
        place: its place in line, if that was looked up.
        outlook: how its line moves, if that was looked up.
        deliveries: what is told of it, if that was looked up.
    """
    is_queued = job.status is JobStatus.QUEUED
    waiting_on, not_before = _waits(job, place, outlook)
    return JobView(
        id=job.id,
        object="job",
        document_type=job.document_type,
        options=job.options,
        lane=job.lane,
        status=job.status,
        waiting_on=waiting_on,
        not_before=not_before,
        queue=QueueView(
            position=place.position if place else None, estimated_start_at=place.starts_at if place else None
        )
        if is_queued
        else None,
        client_reference_id=job.client_reference_id,
        metadata=job.metadata,
        batch_id=None if job.batch_id == NO_BATCH else job.batch_id,
        attempts=job.calls,
        created_at=job.created_at,
        started_at=job.started_at,
        completed_at=job.completed_at,
        timings_ms=TimingsView(
            queue=_milliseconds(job.created_at, job.started_at),
            throttle=job.throttle_ms,
            upstream=job.upstream_ms,
            total=_milliseconds(job.created_at, job.completed_at),
        ),
        error=_present_error(job),
        billing=BillingView(
            calls=job.calls,
            billed=job.billed_calls,
            cache_hit=job.cache_source is not None,
            cache_source=job.cache_source,
        ),
        result=None if result is None else present_result(result),
        webhook_url=job.webhook_url,
        **({} if deliveries is None else {"deliveries": [_present_delivery(one) for one in deliveries]}),
        links=LinksView(
            self=job_path(job.id),
            result=f"{job_path(job.id)}/result",
            image=None if job.erased_at else f"{job_path(job.id)}/image",
        ),
    )


def _present_delivery(delivery: Delivery) -> JobDeliveryView:
    return JobDeliveryView(
        id=delivery.id,
        endpoint_id=delivery.endpoint_id,
        event_type=delivery.event_type,
        status=delivery.status,
        attempts=len(delivery.attempts),
        next_attempt_at=delivery.next_attempt_at if delivery.status is DeliveryStatus.PENDING else None,
    )


def present_result(row: dict[str, Any], *, geometry: bool = False, raw: bool = False) -> ResultView:
    """A result; where the fields are, and the provider's own answer, only if asked for."""
    values = {name: row[name] for name in _RESULT_COLUMNS}
    if not geometry:
        values["fields"] = {
            name: {key: value for key, value in field.items() if key != "polygon"}
            for name, field in row["fields"].items()
        }
    if raw:
        values["raw"] = row["raw"]
    return ResultView.model_validate(values)


def present_document_type(row: DocumentType) -> DocumentTypeView:
    """A document type as clients see it, without the vendor's names."""
    return DocumentTypeView(
        name=row.name,
        label=row.label,
        options=[
            OptionView(
                name=option.name,
                default=option.default,
                choices=None if option.choices is None else list(option.choices),
                description=option.description,
            )
            for option in row.options
        ],
        fields={
            side: [
                DocumentFieldView(name=field.name, label=field.label, kind=field.kind, asked=field.asked)
                for field in fields
            ]
            for side, fields in row.fields.items()
        },
        checks=list(row.checks),
    )


def job_path(job_id: str) -> str:
    """Where a job is found."""
    return f"/v1/jobs/{job_id}"


def to_json(view: BaseModel) -> str:
    """A body as JSON. What was left out when it was made (`polygon`, `raw`) is not mentioned."""
    return view.model_dump_json(exclude_unset=True)


def _waits(job: Job, place: Place | None, outlook: Outlook | None) -> tuple[WaitingOn | None, datetime | None]:
    """What a job waits for, and until when. What holds up a whole endpoint is not written into each of its jobs."""
    if job.status is not JobStatus.QUEUED or job.not_before is not None or outlook is None:
        return job.waiting_on, job.not_before
    if outlook.waiting_on is not None:
        return outlook.waiting_on, outlook.reopens_at
    is_first = place is not None and place.position == 1
    return (WaitingOn.WORKER if is_first else WaitingOn.UPSTREAM_QPS), None


def _present_error(job: Job) -> JobErrorView | None:
    if job.error_code is None:
        return None
    detail, retryable = JOB_ERRORS[JobErrorCode(job.error_code)]
    return JobErrorView(
        code=job.error_code, detail=job.error_detail or detail, retryable=retryable, billed=job.billed_calls > 0
    )


def _milliseconds(start: datetime, end: datetime | None) -> int | None:
    return None if end is None else max(0, round((end - start).total_seconds() * 1000))
