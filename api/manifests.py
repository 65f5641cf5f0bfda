"""Manifests: lists of image addresses, a line each, as JSON lines or CSV.

{"image_url": "https://…", "document_type": "id_card", "options": {"side": "back"}, "client_reference_id": "17"}

image_url,document_type,client_reference_id,options.side,metadata.branch
"""

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

from pydantic_core import from_json

from shared.domain.errors import ArchiveRefusedError

_LONGEST_LINE = 64_000


def read_json_lines(file: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """Line numbers and values; None where a line is no JSON."""
    for number, line in enumerate(_lines(file), start=1):
        if line.strip():
            try:
                yield number, from_json(line, allow_inf_nan=False)
            except ValueError:
                yield number, None


def read_csv(file: IO[bytes]) -> Iterator[tuple[int, Any]]:
    """Line numbers and values, as `read_json_lines` gives them; the first line names the columns.

    Raises:
        ArchiveRefusedError: it is no CSV, or its first line does not name `image_url`.
    """
    try:
        rows = csv.DictReader(_lines(file), restkey="", strict=True)
        if "image_url" not in (rows.fieldnames or ()):
            raise ArchiveRefusedError("The first line of the CSV must name its columns, `image_url` among them.")
        for row in rows:
            yield rows.line_num, _nested(row)
    except csv.Error as error:
        raise ArchiveRefusedError(f"The manifest is no CSV: {error}.") from error


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns `options.side` and `metadata.branch` as objects; empty cells are not said at all."""
    values: dict[str, Any] = {}
    for column, cell in row.items():
        if not cell:
            continue
        parent, dot, child = column.partition(".")
        if dot and parent in ("options", "metadata"):
            values.setdefault(parent, {})[child] = cell
        else:
            values[column] = cell
    return values


def _lines(file: IO[bytes]) -> Iterator[str]:
    """Lines of text in UTF-8 (with or without a byte order mark), or in GB 18030, which Excel writes in China."""
    file.seek(0)
    encoding = "utf-8-sig"
    while line := file.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise ArchiveRefusedError(f"A line of the manifest has more than {_LONGEST_LINE} bytes.")
        try:
            line.decode("utf-8-sig")
        except UnicodeDecodeError:
            encoding = "gb18030"
    file.seek(0)
    text = io.TextIOWrapper(file, encoding, newline="")
    try:
        yield from text
    except UnicodeDecodeError as error:
        raise ArchiveRefusedError("The manifest is neither UTF-8 nor GB 18030.") from error
    finally:
        with suppress(ValueError):  # the file was closed before the last line was asked for
            text.detach()
