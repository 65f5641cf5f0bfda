"""The forms in which a batch comes: JSON, many files in one multipart, a ZIP, or a manifest of addresses.

JSON and multipart are read into memory, up to `max_batch_bytes`. A ZIP or a manifest goes to a temporary file without a
name (it is gone with the process) and is read from there item by item.

What is said wrong refuses the request, with every mistake listed. An image that is none costs its item only.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO, Any

from flask import Request
from pydantic import ValidationError
from pydantic_core import from_json
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from api.archives import read_archive
from api.batch_items import RawItem, Refusal, short_name
from api.batch_schemas import MOST_INLINE_ITEMS, BatchFields, ItemFields, ItemRequest
from api.bodies import decode_image, expand, in_memory, limit_body, read_body
from api.manifests import read_csv, read_json_lines
from api.problems import MalformedBodyError
from api.validation import field_errors, pointer, single_values, unknown_field, validate
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import (
    ArchiveRefusedError,
    BodyTooLargeError,
    FieldError,
    ImageError,
    ImageUrlRefusedError,
    InvalidRequestError,
    UnsupportedMediaTypeError,
)
from shared.domain.job import JobErrorCode
from shared.image_urls import check_image_url
from shared.outbound import OutboundPolicy
from shared.settings import Settings

_CHUNK = 1 << 16
_MOST_ERRORS = 100
# The parser's buffer counts too, which is 64 KB.
_FORM_BYTES = 256 * 1024
_ZIP = ("application/zip", "application/x-zip-compressed")
_MANIFESTS: Mapping[str, Callable[[IO[bytes]], Iterator[tuple[int, Any]]]] = {
    "application/x-ndjson": read_json_lines,
    "application/jsonl": read_json_lines,
    "text/csv": read_csv,
}
CONTENT_TYPES = "application/json, multipart/form-data, application/zip, application/x-ndjson or text/csv"


@dataclass(frozen=True)
class BatchSubmission:
    """Fields of the batch, its items, and a hash (hex SHA-256) of what was sent. `items` is read once."""

    fields: BatchFields
    items: Iterable[RawItem]
    sha256: str


@contextmanager
def read_batch(request: Request, settings: Settings) -> Iterator[BatchSubmission]:
    """A batch, its fields and what is said of its items checked; its items can be read within the `with` block.

    Raises:
        RequestError: something in it is missing, unknown or wrong; nothing of it is kept.
    """
    with ExitStack() as files:
        yield _read_batch(request, settings, files)


def _read_batch(request: Request, settings: Settings, files: ExitStack) -> BatchSubmission:
    media_type = request.mimetype
    if media_type == "application/json":
        body = read_body(request, settings.max_batch_bytes, _too_large(settings.max_batch_bytes))
        values = _object(body)
        fields = _batch_fields({name: value for name, value in values.items() if name != "items"})
        return BatchSubmission(fields, _inline_items(values.get("items", []), fields, settings), _sha256(body))
    if media_type == "multipart/form-data":
        form, items, sha256 = _read_files(request, settings)
        fields = _batch_fields(form)
        if items:
            _require_document_type(fields)
        return BatchSubmission(fields, items, sha256)
    if media_type in _ZIP or media_type in _MANIFESTS:
        fields = _batch_fields(expand(single_values(request.args)))
        file = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the others
        sha256 = _to_disk(request, file, settings.max_archive_bytes)
        if media_type in _ZIP:
            _require_document_type(fields)
            return BatchSubmission(fields, _from_archive(file, settings), sha256)
        lines = _checked_lines(_MANIFESTS[media_type], file, fields, settings)
        return BatchSubmission(fields, lines, sha256)
    raise UnsupportedMediaTypeError(f"Send the batch as {CONTENT_TYPES}.")


def read_items(request: Request, fields: BatchFields, settings: Settings) -> BatchSubmission:
    """More items for a batch with these fields: JSON, or many files in one multipart.

    Raises:
        RequestError: something in it is missing, unknown or wrong; nothing of it is kept.
    """
    if request.mimetype == "multipart/form-data":
        form, items, sha256 = _read_files(request, settings)
        if form:
            raise InvalidRequestError([unknown_field(name, ItemRequest) for name in form])
        _require_document_type(fields)
        return BatchSubmission(fields, items, sha256)
    if request.mimetype != "application/json":
        raise UnsupportedMediaTypeError("Send more items as application/json or multipart/form-data.")
    body = read_body(request, settings.max_batch_bytes, _too_large(settings.max_batch_bytes))
    values = _object(body)
    strangers = [FieldError(pointer(name), "is unknown; known: items") for name in values if name != "items"]
    if strangers:
        raise InvalidRequestError(strangers)
    return BatchSubmission(fields, _inline_items(values.get("items"), fields, settings), _sha256(body))


def _batch_fields(values: Mapping[str, Any]) -> BatchFields:
    fields = validate(BatchFields, values)
    if fields.document_type is None:
        if fields.options:
            raise InvalidRequestError([FieldError("/options", "belong to a document_type, and none is named")])
        return fields
    return fields.model_copy(update={"options": DOCUMENT_TYPES[fields.document_type].validate_options(fields.options)})


def _require_document_type(fields: BatchFields) -> None:
    if fields.document_type is None:
        raise InvalidRequestError([FieldError("/document_type", "is required: the items name none")])


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        raise MalformedBodyError("The body is not valid JSON.") from None
    if not isinstance(values, dict):
        raise InvalidRequestError([FieldError("", "must be an object")])
    return values


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _too_large(most: int) -> BodyTooLargeError:
    return BodyTooLargeError(
        f"The body has more than {most} bytes. Send fewer images at a time into an open batch, or a ZIP."
    )


def _to_disk(request: Request, file: IO[bytes], most: int) -> str:
    """Write the body to a file; its hash."""
    limit_body(request, most, _too_large(most))
    digest, size = hashlib.sha256(), 0
    while chunk := request.stream.read(_CHUNK):
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        digest.update(chunk)
        file.write(chunk)
    if request.content_length not in (None, size):
        raise MalformedBodyError("The body is shorter than announced.")
    file.seek(0)
    return digest.hexdigest()


# Items


def _inline_items(values: Any, fields: BatchFields, settings: Settings) -> list[RawItem]:
    if not isinstance(values, list):
        raise InvalidRequestError([FieldError("/items", "must be a list")])
    if len(values) > MOST_INLINE_ITEMS:
        detail = f"has {len(values)} entries; at most {MOST_INLINE_ITEMS} go into one request"
        raise InvalidRequestError([FieldError("/items", detail)])
    errors: list[FieldError] = []
    items = []
    for number, value in enumerate(values):
        said = _check_item(value, fields, ("items", number), errors)
        if said is not None:
            items.append(_inline_item(said, settings))
    if errors:
        raise InvalidRequestError(errors[:_MOST_ERRORS])
    return items


def _check_item(
    value: Any, fields: BatchFields, where: tuple[str | int, ...], errors: list[FieldError]
) -> ItemRequest | None:
    """What is said of an item, its options completed; None, and entries in `errors`, if something is wrong."""
    if not isinstance(value, dict):
        errors.append(FieldError(pointer(*where), "must be an object"))
        return None
    try:
        item = ItemRequest.model_validate(value)
    except ValidationError as error:
        errors += [FieldError(pointer(*where) + e.pointer, e.detail) for e in field_errors(error, ItemRequest)]
        return None
    if (item.image_base64 is None) == (item.image_url is None):
        errors.append(FieldError(pointer(*where), "must have exactly one of image_base64 and image_url"))
        return None
    name = item.document_type or fields.document_type
    if name is None:
        errors.append(FieldError(pointer(*where, "document_type"), "is required: the batch names none"))
        return None
    if item.options is None:
        options = fields.options if name == fields.document_type else DOCUMENT_TYPES[name].validate_options({})
        return item.model_copy(update={"document_type": name, "options": options})
    try:
        return item.model_copy(
            update={"document_type": name, "options": DOCUMENT_TYPES[name].validate_options(item.options)}
        )
    except InvalidRequestError as error:
        errors += [FieldError(pointer(*where) + e.pointer, e.detail) for e in error.errors]
        return None


def _inline_item(item: ItemRequest, settings: Settings) -> RawItem:
    said, name = item.model_dump(include=set(ItemFields.model_fields)), short_name(item.name or "")
    if item.image_base64 is not None:
        try:
            return RawItem(content=decode_image(item.image_base64, settings.max_image_bytes), said=said, name=name)
        except ImageError as error:
            return RawItem(refusal=Refusal(JobErrorCode(error.code), str(error)), said=said, name=name)
    try:
        check_image_url(item.image_url or "", OutboundPolicy.of(settings))
    except ImageUrlRefusedError as error:
        return RawItem(refusal=Refusal(JobErrorCode.IMAGE_URL_REFUSED, str(error)), said=said, name=name)
    return RawItem(image_url=item.image_url, said=said, name=name)


def _read_files(request: Request, settings: Settings) -> tuple[dict[str, Any], list[RawItem], str]:
    if request.args:
        raise InvalidRequestError([FieldError(pointer(name), "belongs in the body") for name in request.args])
    limit_body(request, settings.max_batch_bytes, _too_large(settings.max_batch_bytes))
    parser = FormDataParser(
        stream_factory=in_memory,
        max_form_memory_size=_FORM_BYTES,
        max_form_parts=MOST_INLINE_ITEMS + 20,
        silent=False,
    )
    try:
        _, form, files = parser.parse(
            request.stream, request.mimetype, request.content_length, dict(request.mimetype_params)
        )
    except RequestEntityTooLarge:
        raise _too_large(settings.max_batch_bytes) from None
    except ValueError:
        raise MalformedBodyError("The multipart body is broken or cut off.") from None
    strangers = [FieldError(pointer(name), "is no file; only images are") for name in files if name != "images"]
    if strangers:
        raise InvalidRequestError(strangers)
    images = files.getlist("images")
    if len(images) > MOST_INLINE_ITEMS:
        detail = f"has {len(images)} files; at most {MOST_INLINE_ITEMS} go into one request"
        raise InvalidRequestError([FieldError("/images", detail)])
    digest = hashlib.sha256(repr(sorted(form.items())).encode())
    items = []
    for image in images:
        content = image.stream.read()
        digest.update(hashlib.sha256(content).digest())
        items.append(RawItem(content=content, name=short_name(image.filename or "")))
    return expand(single_values(form)), items, digest.hexdigest()


def _from_archive(file: IO[bytes], settings: Settings) -> Iterator[RawItem]:
    """The items of an archive; what is wrong with all of it is said now, not when it is read."""
    items = read_archive(file, max_items=settings.max_batch_items, max_image_bytes=settings.max_image_bytes)
    first = next(items)

    def rest() -> Iterator[RawItem]:
        yield first
        yield from items

    return rest()


def _checked_lines(
    read: Callable[[IO[bytes]], Iterator[tuple[int, Any]]], file: IO[bytes], fields: BatchFields, settings: Settings
) -> Iterator[RawItem]:
    """The items of a manifest, after a first reading has found no mistake in it."""
    errors: list[FieldError] = []
    count = 0
    for number, value in read(file):
        count += 1
        if count > settings.max_batch_items:
            raise ArchiveRefusedError(f"The manifest has more than {settings.max_batch_items} lines. Split it.")
        _check_item(_address_only(value), fields, ("lines", number), errors)
        if len(errors) >= _MOST_ERRORS:
            break
    if errors:
        raise InvalidRequestError(errors[:_MOST_ERRORS])
    if count == 0:
        raise ArchiveRefusedError("The manifest has no lines.")
    return _lines(read, file, fields, settings)


def _lines(
    read: Callable[[IO[bytes]], Iterator[tuple[int, Any]]], file: IO[bytes], fields: BatchFields, settings: Settings
) -> Iterator[RawItem]:
    for number, value in read(file):
        item = _check_item(_address_only(value), fields, ("lines", number), [])
        if item is not None:
            yield _inline_item(item, settings)


def _address_only(value: Any) -> Any:
    """A manifest names addresses: images themselves would make lines of any length."""
    if isinstance(value, dict) and "image_base64" in value:
        return {**value, "image_base64": None, "image_url": None}
    return value
