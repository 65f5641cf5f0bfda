"""Batches as clients see them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from api.batch_schemas import BatchBillingView, BatchLinks, BatchView, CountsView, ItemView
from api.presenting import present_job
from shared.database.batches import Batch, Counts
from shared.database.jobs import Job


def batch_path(batch_id: str) -> str:
    """Where a batch is found."""
    return f"/v1/batches/{batch_id}"


def present_batch(
    batch: Batch, counts: Counts, *, ends_at: datetime | None, parked: int, cost: str | None, now: datetime
) -> BatchView:
    """A batch.

    Args:
        ends_at: when it may be completed, if anybody knows.
        parked: items that wait at an endpoint that is not called at the moment.
        cost: what it cost so far at most, CNY, if anybody knows.
    """
    total, final = counts.total, counts.final
    seconds = ((batch.completed_at or now) - batch.created_at).total_seconds()
    return BatchView(
        id=batch.id,
        object="batch",
        name=batch.name,
        document_type=batch.document_type,
        options=batch.options,
        lane=batch.lane,
        status=batch.status,
        counts=CountsView(total=total, **{status.value: count for status, count in counts.by_status.items()}),
        # Never 100 before it is: a batch of a million has 1 % in 10 000 items.
        percent=100.0 if total == final else min(99.9, round(100 * final / total, 1)),
        rate_per_second=round(final / seconds, 2) if final and seconds > 0 else None,
        estimated_completion_at=ends_at,
        parked=parked,
        billing=BatchBillingView(
            calls=counts.calls, billed=sum(counts.billed.values()), cached=counts.cached, cost_at_most=cost
        ),
        webhook_url=batch.webhook_url,
        created_at=batch.created_at,
        closed_at=batch.closed_at,
        canceled_at=batch.canceled_at,
        completed_at=batch.completed_at,
        links=BatchLinks(
            self=batch_path(batch.id),
            items=f"{batch_path(batch.id)}/items",
            export=f"{batch_path(batch.id)}/export",
        ),
    )


def present_items(jobs: Sequence[Job], results: Mapping[str, dict[str, Any]]) -> list[ItemView]:
    """Items with their jobs and results."""
    return [
        ItemView(number=job.item_number or 0, name=job.item_name, job=present_job(job, result=results.get(job.id)))
        for job in jobs
    ]
