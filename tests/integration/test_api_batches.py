"""Batches over HTTP: what is taken, what is refused, and how they end."""

import base64
import io
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select
from urllib3 import encode_multipart_formdata

from shared.database.engine import transaction
from shared.database.tables import jobs
from shared.settings import Settings
from tests.factories import make_picture
from tests.integration.api_tools import ApiBench, running_api

PICTURES = [make_picture((640 + number, 400)) for number in range(4)]


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def archive(files: dict[str, bytes], **options: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return buffer.getvalue()


def create(api: ApiBench, items: list[Any] | None = None, status: int = 202, **fields: Any) -> Any:
    if items is None:
        items = [{"image_base64": encoded(picture)} for picture in PICTURES[:3]]
    body = {"document_type": "id_card", **fields, "items": items}
    headers = fields.pop("headers", {})
    answer = api.call("POST", "/v1/batches", json={k: v for k, v in body.items() if k != "headers"}, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json


def items_of(api: ApiBench, batch_id: str, **query: Any) -> list[Any]:
    answer = api.get(f"/v1/batches/{batch_id}/items", query_string=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json["data"])  # type: ignore[index]


@pytest.fixture
def api(settings: Settings, engine: Engine) -> Iterator[ApiBench]:
    with running_api(settings, engine) as running:
        yield running


# Taking


def test_inline_items_become_jobs_in_order(api: ApiBench) -> None:
    items = [
        {"image_base64": encoded(PICTURES[0]), "client_reference_id": "one", "metadata": {"branch": "3"}},
        {"image_base64": encoded(PICTURES[1]), "document_type": "bank_card"},
        {"image_base64": encoded(PICTURES[2]), "options": {"side": "back"}},
    ]

    batch = create(api, items, name="Monday", options={"side": "front"})

    assert (batch["status"], batch["name"], batch["lane"]) == ("running", "Monday", "bulk")
    assert (batch["counts"]["total"], batch["counts"]["queued"], batch["percent"]) == (3, 3, 0.0)
    found = items_of(api, batch["id"])
    assert [item["number"] for item in found] == [1, 2, 3]
    told = [(item["job"]["document_type"], item["job"]["options"].get("side")) for item in found]
    assert told == [("id_card", "front"), ("bank_card", None), ("id_card", "back")]
    assert (found[0]["job"]["client_reference_id"], found[0]["job"]["metadata"]) == ("one", {"branch": "3"})
    assert {item["job"]["batch_id"] for item in found} == {batch["id"]}


def test_many_files_in_one_body(api: ApiBench) -> None:
    files = [
        ("images", (f"scans/{number}.jpg", content))
        for number, content in enumerate([*PICTURES[:3], make_picture((1500, 1500), "BMP")])
    ]
    body, content_type = encode_multipart_formdata([("document_type", "id_card"), *files])

    answer = api.call("POST", "/v1/batches", data=body, content_type=content_type)

    assert answer.status_code == 202, answer.text
    batch = answer.json
    assert [item["name"] for item in items_of(api, batch["id"])] == [f"scans/{number}.jpg" for number in range(4)]  # type: ignore[index]


def test_an_archive_keeps_names_and_leaves_clutter_out(api: ApiBench) -> None:
    files = {"正面/张.jpg": PICTURES[0], "b.jpg": PICTURES[1], "__MACOSX/b.jpg": b"x", ".DS_Store": b"x"}

    answer = api.call(
        "POST",
        "/v1/batches",
        data=archive(files),
        content_type="application/zip",
        query_string={"document_type": "id_card", "options.side": "back", "name": "scans"},
    )

    assert answer.status_code == 202, answer.text
    found = items_of(api, answer.json["id"])  # type: ignore[index]
    assert [item["name"] for item in found] == ["正面/张.jpg", "b.jpg"]
    assert {item["job"]["options"]["side"] for item in found} == {"back"}


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
def test_names_in_the_encoding_of_an_old_archiver(api: ApiBench, encoding: str) -> None:
    packed = archive({"AAAAAA.jpg": PICTURES[0]})
    name = "身份证".encode(encoding)[:6]
    packed = packed.replace(b"AAAAAA", name.ljust(6, b"_"))

    answer = api.call(
        "POST", "/v1/batches", data=packed, content_type="application/zip", query_string={"document_type": "id_card"}
    )

    assert answer.status_code == 202, answer.text
    assert items_of(api, answer.json["id"])[0]["name"] == name.decode(encoding).ljust(3, "_")[:3].rstrip("_") + (  # type: ignore[index]
        ".jpg" if len(name) == 6 else "_.jpg"
    )


def test_a_bad_file_costs_its_item_and_no_other(api: ApiBench) -> None:
    files = {
        "good.jpg": PICTURES[0],
        "text.jpg": b"not an image",
        "empty.jpg": b"",
        "cut.jpg": PICTURES[1][:700],
        "more.zip": archive({"inner.jpg": PICTURES[2]}),
        "../../etc/passwd": b"x",
        "zeros.bmp": bytes(5_000_000),
    }

    answer = api.call(
        "POST",
        "/v1/batches",
        data=archive(files),
        content_type="application/zip",
        query_string={"document_type": "id_card"},
    )

    batch = answer.json
    found = {item["name"]: item["job"] for item in items_of(api, batch["id"])}  # type: ignore[index]
    assert found["good.jpg"]["status"] == "queued"
    assert {name: job["error"]["code"] for name, job in found.items() if job["error"]} == {
        "text.jpg": "image_format_unsupported",
        "empty.jpg": "image_empty",
        "cut.jpg": "image_damaged",
        "more.zip": "image_format_unsupported",
        "etc/passwd": "image_format_unsupported",
        "zeros.bmp": "invalid_item",
    }
    assert batch["counts"]["failed"] == 6  # type: ignore[index]
    assert batch["counts"]["total"] == 7  # type: ignore[index]


@pytest.mark.parametrize(("files", "name"), [(4, "a"), (400, "a" * 200)])
def test_an_archive_with_too_many_files_is_refused(settings: Settings, engine: Engine, files: int, name: str) -> None:
    packed = archive({f"{name}{number}.jpg": b"x" for number in range(files)})
    with running_api(settings.model_copy(update={"max_batch_items": 3}), engine) as small:
        answer = small.call(
            "POST",
            "/v1/batches",
            data=packed,
            content_type="application/zip",
            query_string={"document_type": "id_card"},
        )

    assert (answer.status_code, answer.json["code"]) == (422, "archive_refused")  # type: ignore[index]
    assert "at most 3" in answer.json["detail"]  # type: ignore[index]


def test_an_encrypted_entry_costs_its_item(api: ApiBench) -> None:
    packed = bytearray(archive({"a.jpg": PICTURES[0]}))
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        packed[packed.index(signature) + place] |= 1

    answer = api.call(
        "POST",
        "/v1/batches",
        data=bytes(packed),
        content_type="application/zip",
        query_string={"document_type": "id_card"},
    )

    (item,) = items_of(api, answer.json["id"])  # type: ignore[index]
    assert (item["job"]["error"]["code"], "password" in item["job"]["error"]["detail"]) == ("invalid_item", True)


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (
            "application/x-ndjson",
            """{"image_url": "https://cards.example/1.jpg", "client_reference_id": "1"}\n
{"image_url": "https://cards.example/2.jpg", "document_type": "bank_card"}\n""",
        ),
        (
            "text/csv",
            """\ufeffimage_url,client_reference_id,document_type,metadata.行\r
https://cards.example/1.jpg,1,,测\r\nhttps://cards.example/2.jpg,,bank_card,\r\n""",
        ),
    ],
)
def test_a_manifest_of_addresses(api: ApiBench, media_type: str, body: str) -> None:
    answer = api.call(
        "POST",
        "/v1/batches",
        data=body.encode(),
        content_type=media_type,
        query_string={"document_type": "id_card"},
    )

    assert answer.status_code == 202, answer.text
    found = items_of(api, answer.json["id"])  # type: ignore[index]
    assert [item["job"]["document_type"] for item in found] == ["id_card", "bank_card"]
    assert found[0]["job"]["client_reference_id"] == "1"
    with transaction(api.engine) as connection:
        urls = connection.execute(select(jobs.c.image_url).order_by(jobs.c.item_number)).scalars().all()
    assert urls == ["https://cards.example/1.jpg", "https://cards.example/2.jpg"]


# Refusing


def test_all_mistakes_are_listed(api: ApiBench) -> None:
    items = [
        {"image_base64": "x", "image_url": "https://a.example/"},
        {"image_base64": encoded(PICTURES[0]), "options": {"side": "top"}},
        {"image_base64": encoded(PICTURES[0]), "document_type": "library_card"},
        {"image_base64": encoded(PICTURES[0])},
        "what?",
        {"image_base64": encoded(PICTURES[0]), "colour": "red"},
    ]

    problem = create(api, items, 422)

    assert [error["pointer"] for error in problem["errors"]] == [
        "/items/0",
        "/items/1/options/side",
        "/items/2/document_type",
        "/items/4",
        "/items/5/colour",
    ]
    assert api.count_jobs() == 0


@pytest.mark.parametrize(
    ("media_type", "body", "code"),
    [
        ("application/zip", b"no archive", "archive_refused"),
        ("application/zip", archive({}), "archive_refused"),
        ("text/csv", b"name,address\n", "archive_refused"),
        ("application/x-ndjson", b"", "archive_refused"),
        ("application/x-ndjson", b"{\n", "invalid_request"),
        ("application/x-ndjson", b'{"image_url": 7}\n{"image_base64": "AAAA"}\n', "invalid_request"),
        ("application/json", b"{", "bad_request"),
        ("application/json", b'{"items": 7, "document_type": "id_card"}', "invalid_request"),
        ("text/plain", b"hello", "unsupported_content_type"),
    ],
)
def test_what_is_no_batch_is_refused(api: ApiBench, media_type: str, body: bytes, code: str) -> None:
    query = {} if media_type == "application/json" else {"document_type": "id_card"}
    answer = api.call("POST", "/v1/batches", data=body, content_type=media_type, query_string=query)

    assert (answer.json["code"], api.count_jobs()) == (code, 0)  # type: ignore[index]
    assert 400 <= answer.status_code < 500


def test_a_body_that_is_too_large_is_not_read(settings: Settings, engine: Engine) -> None:
    with running_api(settings.model_copy(update={"max_batch_bytes": 100_000}), engine) as small:
        answer = small.call("POST", "/v1/batches", data=b"x" * 100_001, content_type="application/json")

    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")  # type: ignore[index]


def test_files_without_a_document_type_are_refused(api: ApiBench) -> None:
    body, content_type = encode_multipart_formdata([("images", ("a.jpg", PICTURES[0]))])

    answer = api.call("POST", "/v1/batches", data=body, content_type=content_type)

    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, "/document_type")  # type: ignore[index]


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(api: ApiBench) -> None:
    for line in (b"x" * 70_000, b"\xb2\xe2\n" + b"x" * 70_000):
        answer = api.call(
            "POST", "/v1/batches", data=line, content_type="text/csv", query_string={"document_type": "id_card"}
        )

        assert (answer.status_code, answer.json["code"]) == (422, "archive_refused")  # type: ignore[index]


def test_a_manifest_as_excel_writes_it_in_china(api: ApiBench) -> None:
    body = "image_url,metadata.行\r\nhttps://cards.example/1.jpg,测\r\n".encode("gb18030")

    answer = api.call(
        "POST", "/v1/batches", data=body, content_type="text/csv", query_string={"document_type": "id_card"}
    )

    (item,) = items_of(api, answer.json["id"])  # type: ignore[index]
    assert item["job"]["metadata"] == {"行": "测"}


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_entry_packed_in_an_odd_way_costs_its_item(api: ApiBench, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as packed:
        packed.writestr("a.jpg", PICTURES[0])

    answer = api.call(
        "POST",
        "/v1/batches",
        data=buffer.getvalue(),
        content_type="application/zip",
        query_string={"document_type": "id_card"},
    )

    (item,) = items_of(api, answer.json["id"])  # type: ignore[index]
    assert (item["job"]["error"]["code"], "deflate" in item["job"]["error"]["detail"]) == ("invalid_item", True)


def test_an_item_of_another_type_has_the_options_of_its_own_type(api: ApiBench) -> None:
    items = [{"image_base64": encoded(PICTURES[0]), "document_type": "business_license"}]

    batch = create(api, items, options={"side": "back"})

    (item,) = items_of(api, batch["id"])
    assert "side" not in item["job"]["options"]
