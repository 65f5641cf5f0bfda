"""`/v1/batches/{batch_id}/export`: a batch as a file."""

from collections.abc import Callable, Iterator, Sequence

from flask import Response, request

from api.auth import current_client
from api.batch_schemas import ExportQuery
from api.export import Column, Exporter, csv_lines, json_lines, xlsx
from api.operations import Answer, Operation
from api.services import services
from api.validation import validate_query
from shared.database.exports import ExportRow
from shared.domain.errors import NotFoundError

_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_FORMATS: dict[str, tuple[str, Callable[[Sequence[Column], Iterator[ExportRow]], Iterator[bytes]]]] = {
    "jsonl": ("application/x-ndjson", json_lines),
    "csv": ("text/csv; charset=utf-8", csv_lines),
    "xlsx": (_XLSX, xlsx),
}


def export_batch(batch_id: str) -> Response:
    """All items of a batch, as they stand now."""
    query = validate_query(ExportQuery, request.args)
    batch = services().batch_intake.find(current_client(), batch_id)
    exporter = Exporter(services().engine)
    columns = exporter.columns(batch.id, query.fields)
    media_type, write = _FORMATS[query.format]
    answer = Response(write(columns, exporter.rows(batch.id)), content_type=media_type)
    answer.headers["Content-Disposition"] = f'attachment; filename="{batch.id}.{query.format}"'
    answer.headers["Cache-Control"] = "no-store"
    return answer


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/batches/{batch_id}/export",
        name="export_batch",
        summary="Download a batch as a file",
        description="JSON lines, CSV (UTF-8 with a byte order mark; what looks like a formula has an apostrophe before "
        "it) or XLSX (ids as text, failed items red, failed checks yellow). Failed items stand among the others.",
        view=export_batch,
        query=ExportQuery,
        answers={200: Answer("The file", media_type="application/octet-stream")},
        errors=(NotFoundError,),
    ),
)
