"""The three forms of a submission: multipart, JSON, or the image itself.

No more is read than an image may have, and a body that says it is larger is not read at all. Everything stays in
memory: a photo of a card on a temporary disk is one more place to erase.
"""

import binascii
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

from flask import Request
from pydantic_core import from_json
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import FormDataParser

from api.problems import MalformedBodyError
from api.schemas import JobFields, JobForm, JobRequest
from api.validation import pointer, single_values, validate, validate_job_fields
from shared.domain.errors import (
    BodyTooLargeError,
    FieldError,
    ImageEmptyError,
    ImageEncodingError,
    ImageMissingError,
    ImageTooLargeError,
    InvalidRequestError,
    RequestError,
    UnsupportedMediaTypeError,
)
from shared.image_headers import check_size

# Room for everything that is not the image: fields at their limits, part headers, boundaries.
_FIELDS_BYTES = 256 * 1024
_MOST_PARTS = 60

_DATA_PREFIX = re.compile(r"data:[\w.+/;=-]{0,100};base64,", re.IGNORECASE)
_JSON_FIELDS = ("options", "metadata")

_CONTENT_TYPES = "multipart/form-data, application/json, image/* or application/octet-stream"


@dataclass(frozen=True)
class Submission:
    """One image and what is said about it: either its bytes are here, or where to fetch them."""

    fields: JobFields
    content: bytes | None
    image_url: str | None = None


def read_submission(request: Request, max_image_bytes: int) -> Submission:
    """The submission in a request, its fields checked, its image within the size.

    Raises:
        RequestError: something in it is missing, unknown or wrong.
    """
    media_type = request.mimetype
    if media_type == "multipart/form-data":
        _expect_no_query(request)
        return _read_multipart(request, max_image_bytes)
    if media_type == "application/json" or media_type.endswith("+json"):
        _expect_no_query(request)
        return _read_json(request, max_image_bytes)
    if media_type == "application/octet-stream" or (media_type.startswith("image/")):
        return _read_raw(request, max_image_bytes)
    if not media_type and not request.content_length:
        raise ImageMissingError(f"The request has no body. Send the image as {_CONTENT_TYPES}.")
    raise UnsupportedMediaTypeError(f"Send the image as {_CONTENT_TYPES}.")


def _expect_no_query(request: Request) -> None:
    if request.args:
        detail = "belongs in the body; parameters go with an image/* body only"
        raise InvalidRequestError([FieldError(pointer(name), detail) for name in list(request.args)[:_MOST_PARTS]])


def limit_body(request: Request, most: int, too_large: RequestError) -> None:
    """Refuse a body by its announced size, and stop reading one that has none at the same point.

    Raises:
        RequestError: `too_large`.
    """
    if request.content_length is not None and request.content_length > most:
        raise too_large
    request.max_content_length = most + 1  # the stream ends there without a word: one more byte tells


def _too_large(max_image_bytes: int) -> ImageTooLargeError:
    return ImageTooLargeError(
        f"The body is too large: an image may have at most {max_image_bytes} bytes. Send it smaller or as JPEG."
    )


def read_body(request: Request, most: int, too_large: RequestError) -> bytes:
    """All of a body, if it has no more bytes than this.

    Raises:
        MalformedBodyError: it was cut off.
        RequestError: `too_large`.
    """
    limit_body(request, most, too_large)
    body = request.get_data(cache=False)
    if len(body) > most:
        raise too_large
    if request.content_length not in (None, len(body)):
        raise MalformedBodyError("The body is shorter than announced.")
    return body


def read_object(request: Request, *, may_be_empty: bool = False) -> dict[str, Any]:
    """The object in a small JSON body.

    Raises:
        RequestError: it is no object, too large, or not JSON.
    """
    too_large = BodyTooLargeError(f"The body may have at most {_FIELDS_BYTES} bytes.")
    body = read_body(request, _FIELDS_BYTES, too_large)
    if may_be_empty and not body:
        return {}
    if request.mimetype != "application/json":
        raise UnsupportedMediaTypeError("Send the body as application/json.")
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise MalformedBodyError("The body is not valid JSON.") from None
    if not isinstance(values, dict):
        raise InvalidRequestError([FieldError("", "must be an object")])
    return values


def _read_raw(request: Request, max_image_bytes: int) -> Submission:
    fields = validate_job_fields(expand(single_values(request.args)), JobFields)
    content = read_body(request, max_image_bytes, _too_large(max_image_bytes))
    check_size(len(content), max_image_bytes)
    return Submission(fields, content)


def _read_json(request: Request, max_image_bytes: int) -> Submission:
    body = read_body(request, (max_image_bytes + 2) // 3 * 4 + _FIELDS_BYTES, _too_large(max_image_bytes))
    try:
        values = from_json(body, allow_inf_nan=False, cache_strings="none")
    except ValueError:
        raise MalformedBodyError("The body is not valid JSON.") from None
    if not isinstance(values, dict):
        raise InvalidRequestError([FieldError("", "must be an object")])
    fields = validate_job_fields(values, JobRequest)
    encoded, url = values.get("image_base64"), values.get("image_url")
    if encoded is None and url is None:
        raise ImageMissingError("The request has no image. Send image_base64 or image_url.")
    if encoded is not None and url is not None:
        raise InvalidRequestError([FieldError("/image_url", "must not be given together with image_base64")])
    if encoded is None:
        source = validate(JobRequest, {"document_type": fields.document_type, "image_url": url})
        return Submission(fields, None, source.image_url)
    if not isinstance(encoded, str):
        raise InvalidRequestError([FieldError("/image_base64", "must be a string")])
    return Submission(fields, decode_image(encoded, max_image_bytes))


def decode_image(text: str, max_image_bytes: int) -> bytes:
    """The bytes behind `image_base64`; a `data:` prefix and line breaks are accepted.

    Raises:
        ImageEncodingError: it is not base64.
        ImageError: there are no bytes, or too many.
    """
    prefix = _DATA_PREFIX.match(text[:120])
    encoded = text[prefix.end() :] if prefix else text
    if not encoded.isascii():
        raise ImageEncodingError("image_base64 is not base64 (RFC 4648, section 4).")
    if any(space in encoded for space in "\n\r\t "):
        encoded = "".join(encoded.split())
    if not encoded:
        raise ImageEmptyError("The image has no bytes.")
    if len(encoded) // 4 * 3 - 2 > max_image_bytes:
        raise _too_large(max_image_bytes)
    try:
        content = binascii.a2b_base64(encoded, strict_mode=True)
    except ValueError:
        raise ImageEncodingError("image_base64 is not base64 (RFC 4648, section 4).") from None
    check_size(len(content), max_image_bytes)
    return content


def in_memory(*_: Any, **__: Any) -> IO[bytes]:
    """Where the files of a multipart body go."""
    return io.BytesIO()


def _read_multipart(request: Request, max_image_bytes: int) -> Submission:
    limit_body(request, max_image_bytes + _FIELDS_BYTES, _too_large(max_image_bytes))
    parser = FormDataParser(
        stream_factory=in_memory, max_form_memory_size=_FIELDS_BYTES, max_form_parts=_MOST_PARTS, silent=False
    )
    try:
        _, form, files = parser.parse(
            request.stream, request.mimetype, request.content_length, dict(request.mimetype_params)
        )
    except RequestEntityTooLarge:
        raise _too_large(max_image_bytes) from None
    except ValueError:  # UnicodeDecodeError included
        raise MalformedBodyError("The multipart body is broken or cut off.") from None
    values = expand(single_values(form))
    if "image" in values and not files:
        raise InvalidRequestError([FieldError("/image", "must be sent as a file: with a filename")])
    strangers = [FieldError(pointer(name), "is no file; only image is") for name in files if name != "image"]
    if strangers:
        raise InvalidRequestError(strangers)
    fields = validate_job_fields(values, JobForm)
    images = files.getlist("image")
    if not images:
        raise ImageMissingError("The request has no image. Send it as the file `image`.")
    if len(images) > 1:
        raise InvalidRequestError([FieldError("/image", "is given more than once; send one image a job")])
    content = images[0].stream.read()
    check_size(len(content), max_image_bytes)
    return Submission(fields, content)


def expand(values: Mapping[str, str]) -> dict[str, Any]:
    """Texts of a form or a query as a body: `options` from JSON, or from `options.side=front`."""
    body: dict[str, Any] = {}
    errors: list[FieldError] = []
    for name, text in values.items():
        parent, dot, child = name.partition(".")
        if name in _JSON_FIELDS:
            try:
                decoded = from_json(text, allow_inf_nan=False) if text else {}
            except ValueError:
                errors.append(FieldError(pointer(name), "is not valid JSON"))
                continue
            if not isinstance(decoded, dict):
                errors.append(FieldError(pointer(name), "must be a JSON object"))
                continue
            body[name] = decoded | body.get(name, {})
        elif dot and parent in _JSON_FIELDS:
            body.setdefault(parent, {})[child] = text
        else:
            body[name] = text
    if errors:
        raise InvalidRequestError(errors)
    return body
