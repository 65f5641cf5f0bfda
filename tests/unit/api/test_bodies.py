"""The three forms of a submission, and what is wrong with some."""

import base64
import json
from io import BytesIO
from typing import Any

import pytest
from flask import Flask, Request
from werkzeug.test import EnvironBuilder

from api.bodies import Submission, decode_image, read_submission
from api.problems import MalformedBodyError
from shared.domain.errors import (
    ImageEmptyError,
    ImageEncodingError,
    ImageMissingError,
    ImageTooLargeError,
    InvalidRequestError,
    KazhengError,
    UnsupportedMediaTypeError,
)
from shared.domain.job import Lane

IMAGE = bytes(range(256)) * 4
FIELDS: dict[str, Any] = {
    "document_type": "id_card",
    "options": {"side": "back"},
    "lane": "bulk",
    "client_reference_id": "0012",
    "metadata": {"desk": "7"},
    "expires_in": 60,
}
TEXTS = {
    **FIELDS,
    "options": json.dumps(FIELDS["options"]),
    "metadata": json.dumps(FIELDS["metadata"]),
    "expires_in": "60",
}


def read(max_image_bytes: int = 2000, *, length: int | None = -1, **request: Any) -> Submission:
    """Read a request; `length` is what it says of itself: -1 the truth, None nothing."""
    environ = EnvironBuilder(method="POST", path="/v1/jobs", **request).get_environ()
    environ["wsgi.input_terminated"] = True  # as gunicorn does
    if length is None:
        del environ["CONTENT_LENGTH"]
    elif length >= 0:
        environ["CONTENT_LENGTH"] = str(length)
    with Flask(__name__).app_context():
        return read_submission(Request(environ), max_image_bytes)


def multipart(**parts: Any) -> dict[str, Any]:
    return {"data": {"document_type": "id_card", "image": (BytesIO(IMAGE), "card.jpg"), **parts}}


def wrong_fields(**request: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as caught:
        read(**request)
    return {error.pointer: error.detail for error in caught.value.errors}


@pytest.mark.parametrize(
    "request_",
    [
        {"data": {**TEXTS, "image": (BytesIO(IMAGE), "card.jpg")}},
        {"json": {**FIELDS, "image_base64": base64.b64encode(IMAGE).decode()}},
        {"data": IMAGE, "content_type": "image/jpeg", "query_string": TEXTS},
        {"data": IMAGE, "content_type": "application/octet-stream", "query_string": TEXTS},
    ],
    ids=["multipart", "json", "image", "octet-stream"],
)
def test_all_forms_say_the_same(request_: dict[str, Any]) -> None:
    submission = read(**request_)

    fields = submission.fields
    assert submission.content == IMAGE
    assert (fields.document_type, fields.lane, fields.client_reference_id) == ("id_card", Lane.BULK, "0012")
    assert fields.options == {"side": "back", "detect_risk": False, "detect_quality": False}
    assert (fields.metadata, fields.expires_in) == ({"desk": "7"}, 60)


def test_what_is_left_out_has_defaults() -> None:
    fields = read(json={"document_type": "bank_card", "image_base64": "AAAA"}).fields

    assert (fields.lane, fields.options) == (Lane.INTERACTIVE, {"detect_quality": False})
    assert (fields.client_reference_id, fields.metadata, fields.expires_in) == (None, {}, None)


def test_options_may_come_one_by_one() -> None:
    query = {"document_type": "id_card", "options.side": "back", "options.detect_risk": "true", "metadata.desk": "7"}

    fields = read(data=IMAGE, content_type="image/png", query_string=query).fields

    assert (fields.options["side"], fields.options["detect_risk"]) == ("back", True)
    assert fields.metadata == {"desk": "7"}


def test_an_address_is_taken_without_being_called() -> None:
    submission = read(json={"document_type": "id_card", "image_url": "https://pictures.example/card.jpg"})

    assert (submission.content, submission.image_url) == (None, "https://pictures.example/card.jpg")


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"document_type": "id-card"}, {"/document_type"}),
        ({"document_type": None}, {"/document_type"}),
        ({"options": {"side": "top"}}, {"/options/side"}),
        ({"options": {"colour": "red"}}, {"/options/colour"}),
        ({"options": {"a/b~c": 1}}, {"/options/a~1b~0c"}),
        ({"options": "side"}, {"/options"}),
        ({"lane": "fast"}, {"/lane"}),
        ({"client_reference_id": "x" * 201}, {"/client_reference_id"}),
        ({"client_reference_id": ""}, {"/client_reference_id"}),
        ({"client_reference_id": "a\0b"}, {"/client_reference_id"}),
        ({"client_reference_id": 12}, {"/client_reference_id"}),
        ({"metadata": {str(n): "" for n in range(21)}}, {"/metadata"}),
        ({"metadata": {"k" * 41: "v"}}, {"/metadata"}),
        ({"metadata": {"": "v"}}, {"/metadata"}),
        ({"metadata": {"key": "v" * 501}}, {"/metadata"}),
        ({"metadata": {"key": "\0"}}, {"/metadata"}),
        ({"metadata": {"key": 1}}, {"/metadata/key"}),
        ({"expires_in": 0}, {"/expires_in"}),
        ({"expires_in": 604_801}, {"/expires_in"}),
        ({"expires_in": True}, {"/expires_in"}),
        ({"expires_in": 1.5}, {"/expires_in"}),
        ({"webhook_url": ""}, {"/webhook_url"}),
        ({"webhook_url": "https://hooks.example/" + "x" * 2048}, {"/webhook_url"}),
        ({"image": "x"}, {"/image"}),
        # All that is wrong is told at once.
        (
            {"lane": "fast", "expires_in": 0, "nonsense": 1, "options": {"side": "top", "colour": 1}},
            {"/lane", "/expires_in", "/nonsense", "/options/side", "/options/colour"},
        ),
    ],
)
def test_wrong_fields_are_all_named(fields: dict[str, Any], pointers: set[str]) -> None:
    body = {"document_type": "id_card", "image_base64": "AAAA", **fields}

    assert set(wrong_fields(json=body)) == pointers


def test_an_unknown_field_is_told_the_known_ones() -> None:
    found = wrong_fields(json={"document_type": "id_card", "image_base64": "AAAA", "callback": "x"})

    assert "document_type, options, lane" in found["/callback"]


def test_a_missing_document_type_is_named() -> None:
    assert wrong_fields(json={"image_base64": "AAAA"}) == {"/document_type": "is required"}


def test_errors_do_not_quote_what_was_sent() -> None:
    body = {"document_type": "id_card", "image_base64": "AAAA", "expires_in": "Zhang San", "lane": "Li Si"}

    found = wrong_fields(json=body)

    assert not any(name in detail for detail in found.values() for name in ("Zhang", "Li Si"))


@pytest.mark.parametrize(
    ("request_", "pointers"),
    [
        (multipart(image=[(BytesIO(IMAGE), "1.jpg"), (BytesIO(IMAGE), "2.jpg")]), {"/image"}),
        ({**multipart(image="bytes as a text part"), "content_type": "multipart/form-data"}, {"/image"}),
        (multipart(back=(BytesIO(IMAGE), "back.jpg")), {"/back"}),
        (multipart(lane=["bulk", "interactive"]), {"/lane"}),
        (multipart(options="{side"), {"/options"}),
        (multipart(options="[]"), {"/options"}),
        ({**multipart(), "query_string": {"lane": "bulk"}}, {"/lane"}),
        (
            {"json": {"document_type": "id_card", "image_base64": "AAAA", "image_url": "https://a.example"}},
            {"/image_url"},
        ),
        ({"json": {"document_type": "id_card", "image_base64": 12}}, {"/image_base64"}),
        ({"json": {"document_type": "id_card", "image_url": ""}}, {"/image_url"}),
        ({"json": ["id_card"]}, {""}),
        (
            {"data": IMAGE, "content_type": "image/png", "query_string": "document_type=id_card&lane=bulk&lane=bulk"},
            {"/lane"},
        ),
    ],
)
def test_forms_that_contradict_themselves_are_refused(request_: dict[str, Any], pointers: set[str]) -> None:
    assert set(wrong_fields(**request_)) == pointers


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"data": {"document_type": "id_card"}, "content_type": "multipart/form-data"}, ImageMissingError),
        ({"json": {"document_type": "id_card"}}, ImageMissingError),
        ({}, ImageMissingError),
        ({"data": {"document_type": "id_card", "image": (BytesIO(b""), "empty.jpg")}}, ImageEmptyError),
        ({"json": {"document_type": "id_card", "image_base64": ""}}, ImageEmptyError),
        ({"data": b"", "content_type": "image/png", "query_string": {"document_type": "id_card"}}, ImageEmptyError),
        ({"data": "a=b", "content_type": "application/x-www-form-urlencoded"}, UnsupportedMediaTypeError),
        ({"data": "id_card", "content_type": "text/plain"}, UnsupportedMediaTypeError),
        ({"data": b"bytes without a type"}, UnsupportedMediaTypeError),
        ({"data": b"{", "content_type": "application/json"}, MalformedBodyError),
        ({"data": b'{"a": NaN}', "content_type": "application/json"}, MalformedBodyError),
        ({"data": b'{"a": "\\ud800"}', "content_type": "application/json"}, MalformedBodyError),
        ({"data": b"[" * 100_000, "content_type": "application/json"}, MalformedBodyError),
        ({"data": b"--x\r\nContent-Dis", "content_type": "multipart/form-data; boundary=x"}, MalformedBodyError),
        ({"data": b"no boundary", "content_type": "multipart/form-data"}, MalformedBodyError),
    ],
)
def test_bodies_that_hold_no_image_are_refused(request_: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        read(max_image_bytes=200_000, **request_)


@pytest.mark.parametrize(
    "request_",
    [
        multipart(),
        {"json": {"document_type": "id_card", "image_base64": base64.b64encode(IMAGE).decode()}},
        {"data": IMAGE, "content_type": "image/png", "query_string": {"document_type": "id_card"}},
    ],
    ids=["multipart", "json", "raw"],
)
def test_an_image_with_too_many_bytes_is_refused(request_: dict[str, Any]) -> None:
    with pytest.raises(ImageTooLargeError):
        read(max_image_bytes=len(IMAGE) - 1, **request_)


class Unreadable(BytesIO):
    """A body that must not be read."""

    def read(self, *_: Any) -> bytes:
        raise AssertionError("read although it was announced to be too large")

    readinto = read  # type: ignore[assignment]


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "multipart/form-data; boundary=x"])
def test_a_body_announced_to_be_too_large_is_not_read(content_type: str) -> None:
    query = {"document_type": "id_card"} if content_type == "image/png" else None

    with pytest.raises(ImageTooLargeError):
        read(content_type=content_type, length=30_000_000, input_stream=Unreadable(), query_string=query)


class Endless(BytesIO):
    """A body without an end; counts what is taken."""

    taken = 0

    def readinto(self, buffer: Any, /) -> int:
        self.taken += len(buffer)
        return len(buffer)


@pytest.mark.parametrize("content_type", ["image/png", "application/json", "multipart/form-data; boundary=x"])
def test_a_body_of_unknown_length_is_read_no_further_than_an_image_may_be(content_type: str) -> None:
    endless = Endless()
    query = {"document_type": "id_card"} if content_type == "image/png" else None

    with pytest.raises((ImageTooLargeError, MalformedBodyError)):
        read(content_type=content_type, input_stream=endless, query_string=query, length=None)

    assert endless.taken < 600_000


def test_an_image_of_unknown_length_is_not_cut_to_what_is_allowed() -> None:
    query = {"document_type": "id_card"}
    request: dict[str, Any] = {"content_type": "image/png", "query_string": query, "length": None}

    whole = read(max_image_bytes=len(IMAGE), input_stream=BytesIO(IMAGE), **request)
    with pytest.raises(ImageTooLargeError):
        read(max_image_bytes=len(IMAGE) - 1, input_stream=BytesIO(IMAGE), **request)

    assert whole.content == IMAGE


def test_a_multipart_body_of_unknown_length_with_too_large_an_image_is_refused() -> None:
    form = EnvironBuilder(method="POST", **multipart(image=(BytesIO(b"x" * 300_000), "card.jpg"))).get_environ()

    with pytest.raises(ImageTooLargeError):
        read(content_type=form["CONTENT_TYPE"], input_stream=form["wsgi.input"], length=None)


def test_a_body_shorter_than_announced_is_refused() -> None:
    with pytest.raises(MalformedBodyError):
        read(data=IMAGE, content_type="image/png", query_string={"document_type": "id_card"}, length=len(IMAGE) + 1)


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(IMAGE).decode(),
        "data:image/jpeg;base64," + base64.b64encode(IMAGE).decode(),
        "DATA:image/png;charset=utf-8;BASE64," + base64.b64encode(IMAGE).decode(),
        base64.encodebytes(IMAGE).decode(),
        base64.b64encode(IMAGE).decode() + "\r\n",
    ],
    ids=["plain", "data prefix", "long data prefix", "in lines", "line end"],
)
def test_base64_is_accepted(text: str) -> None:
    assert decode_image(text, len(IMAGE)) == IMAGE


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("not base64!", ImageEncodingError),
        ("AAA", ImageEncodingError),
        ("AA=A", ImageEncodingError),
        ("_-_-", ImageEncodingError),
        ("身份证=", ImageEncodingError),
        ("data:image/jpeg,AAAA", ImageEncodingError),
        ("", ImageEmptyError),
        ("data:image/jpeg;base64,", ImageEmptyError),
        (" \n ", ImageEmptyError),
        ("A" * 1400, ImageTooLargeError),
    ],
)
def test_what_is_not_base64_or_too_much_of_it_is_refused(text: str, error: type[KazhengError]) -> None:
    with pytest.raises(error):
        decode_image(text, 1024)
