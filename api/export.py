"""A batch as a file: JSON lines, CSV or XLSX, a row an item, streamed in portions so that memory does not grow.

Columns come in a stable order: about the item, then the fields of its document types in the order of the table, then
the checks that failed. Failed items stand among the others, with their reason.
"""

import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xlsxwriter
from sqlalchemy import Engine

from shared.database.engine import transaction
from shared.database.exports import ExportRow, document_types_of, read_export
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import FieldError, InvalidRequestError

_PORTION = 500
_SEND_BYTES = 1 << 16
# Excel's own limit is 1 048 576.
_SHEET_ROWS = 1_000_000
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

_ABOUT: dict[str, tuple[str, Callable[[ExportRow], Any]]] = {
    "item": ("No.", lambda row: row.number),
    "file": ("File", lambda row: row.name),
    "client_reference_id": ("Reference", lambda row: row.client_reference_id),
    "job_id": ("Job", lambda row: row.job_id),
    "document_type": ("Document", lambda row: row.document_type),
    "status": ("Status", lambda row: row.status),
    "cache_hit": ("From cache", lambda row: row.cache_source is not None),
    "error_code": ("Error", lambda row: row.error_code),
    "error_detail": ("What went wrong", lambda row: row.error_detail),
}
_CHECKS = "failed_checks"


@dataclass(frozen=True)
class Column:
    """One column: its name in `fields=`, its heading for people, and where its value comes from."""

    name: str
    heading: str
    value: Callable[[ExportRow], Any]


def columns_of(document_types: Sequence[str], wanted: Sequence[str] = ()) -> list[Column]:
    """The columns of an export, those wanted or all.

    Raises:
        InvalidRequestError: one of those wanted does not exist.
    """
    columns = {name: Column(name, heading, value) for name, (heading, value) in _ABOUT.items()}
    for kind in DOCUMENT_TYPES.values():
        if kind.name in document_types:
            for side in kind.fields.values():
                for field in side:
                    columns.setdefault(field.name, Column(field.name, field.label, _field(field.name)))
    columns[_CHECKS] = Column(_CHECKS, "Failed checks", _failed_checks)
    unknown = [name for name in wanted if name not in columns]
    if unknown:
        detail = f"has unknown names; known: {', '.join(columns)}"
        raise InvalidRequestError([FieldError("/fields", detail)])
    return [columns[name] for name in wanted] if wanted else list(columns.values())


def _field(name: str) -> Callable[[ExportRow], Any]:
    return lambda row: (row.fields or {}).get(name, {}).get("value")


def _failed_checks(row: ExportRow) -> str | None:
    """Codes of the checks that failed; None where nothing was read."""
    if row.checks is None:
        return None
    return " ".join(check["code"] for check in row.checks if check["status"] == "failed")


class Exporter:
    """Reads batches for export. Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        """Take the database."""
        self._engine = engine

    def columns(self, batch_id: str, wanted: Sequence[str]) -> list[Column]:
        """The columns of a batch.

        Raises:
            DatabaseUnavailableError: Postgres is away.
            InvalidRequestError: one of those wanted does not exist.
        """
        with transaction(self._engine) as connection:
            return columns_of(document_types_of(connection, batch_id), wanted)

    def rows(self, batch_id: str) -> Iterator[ExportRow]:
        """All items in their order, portion by portion.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        after = 0
        while True:
            with transaction(self._engine) as connection:
                portion = read_export(connection, batch_id, limit=_PORTION, after=after)
            yield from portion
            if len(portion) < _PORTION:
                return
            after = portion[-1].number


def json_lines(columns: Sequence[Column], rows: Iterator[ExportRow]) -> Iterator[bytes]:
    """An object a line, all columns in each; values that are not there are null."""
    for row in rows:
        values = {column.name: column.value(row) for column in columns}
        yield json.dumps(values, ensure_ascii=False).encode() + b"\n"


def csv_lines(columns: Sequence[Column], rows: Iterator[ExportRow]) -> Iterator[bytes]:
    """CSV (RFC 4180) in UTF-8 with a byte order mark, by which Excel knows it.

    What a spreadsheet would take for a formula has an apostrophe before it
    (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    yield "\ufeff".encode()
    yield _csv_line([column.name for column in columns])
    for row in rows:
        yield _csv_line([_text(column.value(row)) for column in columns])


def _csv_line(cells: Sequence[str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerow([f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell for cell in cells])
    return buffer.getvalue().encode()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def xlsx(columns: Sequence[Column], rows: Iterator[ExportRow]) -> Iterator[bytes]:
    """A workbook; all cells but the number are text, so that no digit of an id is lost, and failed rows are marked.

    It is put together in a private folder, in constant memory, and gone when it has been sent.
    """
    with tempfile.TemporaryDirectory(prefix="kazheng-export-") as folder:
        path = Path(folder) / "export.xlsx"
        _write_workbook(path, folder, columns, rows)
        with path.open("rb") as file:
            while chunk := file.read(_SEND_BYTES):
                yield chunk


def _write_workbook(path: Path, folder: str, columns: Sequence[Column], rows: Iterator[ExportRow]) -> None:
    options = {
        "constant_memory": True,
        "tmpdir": folder,
        "strings_to_formulas": False,
        "strings_to_numbers": False,
        "strings_to_urls": False,
    }
    with xlsxwriter.Workbook(str(path), options) as book:
        heading = book.add_format({"bold": True, "bg_color": "#1F3A5F", "font_color": "#FFFFFF"})
        plain = book.add_format({"num_format": "@"})
        failed = book.add_format({"num_format": "@", "bg_color": "#FDE2E0"})
        doubtful = book.add_format({"num_format": "@", "bg_color": "#FFF4CE"})
        sheet, line = None, 0
        for row in rows:
            if sheet is None or line > _SHEET_ROWS:
                sheet, line = _new_sheet(book, columns, heading), 1
            style = failed if row.error_code else doubtful if _failed_checks(row) else plain
            for place, column in enumerate(columns):
                value = column.value(row)
                if isinstance(value, int) and not isinstance(value, bool):
                    sheet.write_number(line, place, value, style)
                else:
                    sheet.write_string(line, place, _text(value), style)
            line += 1
        if sheet is None:
            _new_sheet(book, columns, heading)


def _new_sheet(book: Any, columns: Sequence[Column], heading: Any) -> Any:
    sheet = book.add_worksheet()
    sheet.freeze_panes(1, 0)
    for place, column in enumerate(columns):
        sheet.set_column(place, place, _WIDTHS.get(column.name, 18))
        sheet.write_string(0, place, column.heading, heading)
    sheet.autofilter(0, 0, 0, len(columns) - 1)
    return sheet


_WIDTHS = {"item": 7, "file": 28, "job_id": 32, "error_detail": 44, "address": 40, "company_name": 34, "id_number": 22}
