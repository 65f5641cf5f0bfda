"""Bad input: each with its status, code and pointer, and nothing of it kept."""

import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine

from api.app import OPERATIONS
from api.operations import Operation
from shared.settings import Settings
from tests.integration.api_tools import PICTURE, ApiBench, form, running_api
from tests.unit.api.pictures import SVG, animation, picture, png_bomb

Make = Callable[[], dict[str, Any]]


@pytest.fixture
def api(settings: Settings, engine: Engine, redis_client: Redis) -> Iterator[ApiBench]:
    with running_api(settings, engine) as bench:
        yield bench


def as_json(**fields: Any) -> dict[str, Any]:
    return {"json": {"document_type": "id_card", **fields}}


def as_raw(content: bytes, content_type: str = "image/jpeg", query: str = "document_type=id_card") -> dict[str, Any]:
    return {"data": content, "content_type": content_type, "query_string": query}


def written_form(content: bytes) -> dict[str, Any]:
    """A multipart body made by hand: the test client would put one of this size on the disk."""
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="card.jpg"\r\n\r\n'
    return {"data": head + content + b"\r\n--x--\r\n", "content_type": "multipart/form-data; boundary=x"}


BAD: list[tuple[str, Make, int, str, str | None]] = [
    # what, request, status, code, pointer
    ("no image", as_json, 422, "image_missing", "/image"),
    ("no image file", lambda: {"data": {"document_type": "id_card"}, "content_type": "multipart/form-data"},
     422, "image_missing", "/image"),
    ("nothing at all", dict, 422, "image_missing", "/image"),
    ("empty image", lambda: as_raw(b""), 422, "image_empty", "/image"),
    ("empty file", lambda: form(b""), 422, "image_empty", "/image"),
    ("not an image", lambda: form(b"hello"), 422, "image_format_unsupported", "/image"),
    ("SVG", lambda: as_raw(SVG, "image/svg+xml"), 422, "image_format_unsupported", "/image"),
    ("truncated JPEG", lambda: form(PICTURE[:-200]), 422, "image_damaged", "/image"),
    ("animated GIF", lambda: form(animation("GIF")), 422, "image_animated", "/image"),
    ("30 MB raw", lambda: as_raw(bytes(30_000_000)), 413, "image_too_large", "/image"),
    ("30 MB file", lambda: written_form(bytes(30_000_000)), 413, "image_too_large", "/image"),
    ("30 MB base64", lambda: as_json(image_base64="A" * 40_000_000), 413, "image_too_large", "/image"),
    ("PNG bomb", lambda: form(png_bomb(20_000, 20_000)), 422, "image_pixels_out_of_range", "/image"),
    ("10 px", lambda: form(picture("PNG", (10, 10))), 422, "image_pixels_out_of_range", "/image"),
    ("unknown document type", lambda: form(document_type="visa"), 422, "invalid_request", "/document_type"),
    ("unknown option", lambda: form(options='{"colour": 1}'), 422, "invalid_request", "/options/colour"),
    ("wrong enum", lambda: form(lane="fast"), 422, "invalid_request", "/lane"),
    ("unknown field", lambda: form(callback="https://hooks.example"), 422, "invalid_request", "/callback"),
    ("bad base64", lambda: as_json(image_base64="no base64!"), 422, "image_base64_invalid", "/image_base64"),
    ("private address", lambda: as_json(image_url="https://127.0.0.1/a.jpg"), 422, "image_url_refused", "/image_url"),
    ("plain http", lambda: as_json(image_url="http://93.184.215.14/a.jpg"), 422, "image_url_refused", "/image_url"),
    ("wrong content type", lambda: {"data": "a", "content_type": "text/plain"}, 415, "unsupported_content_type", None),
    ("broken multipart", lambda: {"data": b"--x\r\nCont", "content_type": "multipart/form-data; boundary=x"},
     400, "bad_request", None),
    ("broken JSON", lambda: {"data": b"{", "content_type": "application/json"}, 400, "bad_request", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "status", "code", "pointer"), [row[1:] for row in BAD], ids=[row[0].replace(" ", "_") for row in BAD]
)
def test_bad_input_is_told_and_not_kept(api: ApiBench, make: Make, status: int, code: str, pointer: str | None) -> None:
    answer = api.call("POST", "/v1/jobs", headers={"Idempotency-Key": "k"}, **make())

    problem = answer.json
    assert problem is not None
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert [error["pointer"] for error in problem.get("errors", [])] == ([] if pointer is None else [pointer])
    assert problem["request_id"] == answer.headers["X-Request-Id"]
    assert (api.count_jobs(), api.count_keys(), api.images) == (0, 0, [])


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "tab\t", "schl\xfcssel"])
def test_an_idempotency_key_that_is_none_is_refused(api: ApiBench, key: str) -> None:
    answer = api.submit(environ_overrides={"HTTP_IDEMPOTENCY_KEY": key})

    assert (answer.status_code, answer.json["code"]) == (422, "invalid_request")  # type: ignore[index]
    assert api.count_jobs() == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/", "https://localhost/", "https://2130706433/", "https://0x7f000001/", "https://127.1/",
        "https://0/", "https://0.0.0.0/", "https://[::1]/", "https://[::]/", "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:a00:1]/", "https://10.0.0.1/", "https://172.16.0.1/", "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data", "https://100.64.0.1/", "https://192.0.2.1/", "https://198.18.0.1/",
        "https://224.0.0.1/", "https://240.0.0.1/", "https://255.255.255.255/", "https://[fe80::1]/",
        "https://[fc00::1]/", "https://[ff02::1]/", "https://[2002:7f00:1::]/", "https://[2001:0:1::1]/",
        "https://[64:ff9b::7f00:1]/", "https://[64:ff9b:1::a00:1]/", "https://user:secret@93.184.215.14/",
        "https://93.184.215.14:22/", "https://93.184.215.14:99999/", "ftp://93.184.215.14/", "file:///etc/passwd",
        "gopher://127.0.0.1/", "//93.184.215.14/", "https:///a.jpg", "https://", "a.jpg", "https://93.184.215.14 /",
    ],
)  # fmt: skip
def test_hostile_addresses_are_refused_and_never_called(
    api: ApiBench, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[object] = []
    monkeypatch.setattr("socket.socket.connect", lambda _self, address: called.append(address))

    # What was opened before stays usable: Postgres keeps its connection in the pool, in C.
    answer = api.call("POST", "/v1/jobs", **as_json(image_url=url))

    assert answer.json is not None
    assert (answer.status_code, answer.json["code"]) == (422, "image_url_refused")
    assert "secret" not in answer.text
    assert (called, api.count_jobs(), api.images) == ([], 0, [])


def test_a_form_without_names_of_files_is_told_how(api: ApiBench) -> None:
    answer = api.call(
        "POST", "/v1/jobs", data={"document_type": "id_card", "image": "bytes"}, content_type="multipart/form-data"
    )

    assert answer.json is not None
    assert answer.json["errors"] == [{"pointer": "/image", "detail": "must be sent as a file: with a filename"}]


def test_the_name_of_a_file_is_not_kept(api: ApiBench) -> None:
    data = {"document_type": "id_card", "image": (io.BytesIO(PICTURE), "../../zhang-san.jpg")}

    answer = api.call("POST", "/v1/jobs", data=data)

    assert answer.status_code == 202
    assert "zhang" not in answer.text
    assert [path.name for path in api.images] == [answer.json["id"]]  # type: ignore[index]


NO_IDS = ("%00", "job_%00", "x" * 3000, "%E6%B5%8B", "a%20b")
WITH_IDS = [operation for operation in OPERATIONS if operation.path_parameters and not operation.is_open]


@pytest.mark.parametrize("operation", WITH_IDS, ids=lambda operation: operation.name)
def test_what_can_be_no_id_is_not_found(api: ApiBench, operation: Operation) -> None:
    for wrong in NO_IDS:
        path = re.sub(r"\{\w+\}", wrong, operation.path)
        answer = api.call(operation.method, path, json={})
        assert (answer.status_code, answer.content_type) == (404, "application/problem+json"), (path[:80], answer.text)
