"""What an event says, thin or full; read when it is sent, so that nothing erased is told."""

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, select

from shared.database.events import Event
from shared.database.tables import jobs, results
from shared.domain.job import JOB_ERRORS, JobErrorCode

_FIELD_PARTS = ("value", "text", "label", "confidence", "status", "source")


def load_contents(connection: Connection, job_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """What `payload: full` adds to events of these jobs, by job id; nothing of those that are erased."""
    columns = (jobs.c.id, jobs.c.client_reference_id, jobs.c.metadata, jobs.c.error_code, jobs.c.error_detail)
    statement = (
        select(*columns, results.c.fields, results.c.checks)
        .outerjoin(results, results.c.job_id == jobs.c.id)
        .where(jobs.c.id.in_(list(job_ids)), jobs.c.erased_at.is_(None))
    )
    return {row.id: _content(row) for row in connection.execute(statement)}


def _content(row: Any) -> dict[str, Any]:
    content: dict[str, Any] = {"client_reference_id": row.client_reference_id, "metadata": row.metadata}
    if row.error_code is not None:
        detail, retryable = JOB_ERRORS[JobErrorCode(row.error_code)]
        content["error"] = {"code": row.error_code, "detail": row.error_detail or detail, "retryable": retryable}
    if row.fields is not None:
        content["fields"] = {
            name: {part: field.get(part) for part in _FIELD_PARTS} for name, field in row.fields.items()
        }
        content["checks"] = row.checks
    return content


def event_body(event: Event, contents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The body of a delivery: `type`, `timestamp`, `data`.

    Args:
        contents: by job id; none for a thin one.
    """
    data = {**event.data, **contents.get(event.job_id or "", {})}
    links = _links(event.data)
    if links:
        data["links"] = links
    return {"type": event.type.value, "timestamp": event.created_at.isoformat().replace("+00:00", "Z"), "data": data}


def _links(data: Mapping[str, Any]) -> dict[str, str]:
    links = {}
    if "job_id" in data:
        links = {"job": f"/v1/jobs/{data['job_id']}", "result": f"/v1/jobs/{data['job_id']}/result"}
    if data.get("batch_id") is not None:
        links["batch"] = f"/v1/batches/{data['batch_id']}"
    if "endpoint_id" in data:
        links["endpoint"] = f"/v1/webhook-endpoints/{data['endpoint_id']}"
    return links
