"""What an export of a batch reads: of each item the columns that a person wants, in one statement a portion."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Connection, select

from shared.database.tables import jobs, results


@dataclass(frozen=True)
class ExportRow:
    """One item; `fields` and `checks` as in `results`, None where nothing was read or all was erased."""

    number: int
    name: str | None
    client_reference_id: str | None
    job_id: str
    document_type: str
    status: str
    cache_source: str | None
    error_code: str | None
    error_detail: str | None
    fields: dict[str, Any] | None
    checks: list[dict[str, Any]] | None


_FROM = {
    "number": jobs.c.item_number,
    "name": jobs.c.item_name,
    "job_id": jobs.c.id,
    "fields": results.c.fields,
    "checks": results.c.checks,
}
_COLUMNS = [
    (_FROM[field.name] if field.name in _FROM else jobs.c[field.name]).label(field.name) for field in fields(ExportRow)
]


def read_export(connection: Connection, batch_id: str, *, limit: int, after: int) -> Sequence[ExportRow]:
    """A portion of the items in their order; `after`: number of the last one already read."""
    statement = (
        select(*_COLUMNS)
        .outerjoin(results, results.c.job_id == jobs.c.id)
        .where(jobs.c.batch_id == batch_id, jobs.c.item_number > after)
        .order_by(jobs.c.item_number)
        .limit(limit)
    )
    return [ExportRow(*row) for row in connection.execute(statement)]


def document_types_of(connection: Connection, batch_id: str) -> list[str]:
    """Which types its items are declared to be."""
    statement = select(jobs.c.document_type).where(jobs.c.batch_id == batch_id).distinct()
    return list(connection.execute(statement).scalars())
