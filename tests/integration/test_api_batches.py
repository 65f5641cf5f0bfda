"""Batches over HTTP: what is taken, what is refused, and how they end."""

import base64
import io
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update

from shared.database.engine import transaction
from shared.database.jobs import claim_job, fail_job
from shared.database.tables import batches, events, jobs
from shared.domain.job import JobErrorCode, JobStatus
from shared.settings import Settings
from tests.factories import make_client, make_picture
from tests.integration.api_tools import ApiBench, running_api
from worker.batches import BatchFollower

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


def end_all(api: ApiBench, batch_id: str, error: JobErrorCode | None = None) -> None:
    """Let every item that waits fail (or be claimed and fail) as a worker would."""
    now = api.services.clock()
    with transaction(api.engine) as connection:
        waiting = connection.execute(
            select(jobs.c.id).where(jobs.c.batch_id == batch_id, jobs.c.status == JobStatus.QUEUED)
        ).scalars()
        for number, job_id in enumerate(list(waiting)):
            token = f"{job_id}{number}"
            claim_job(connection, job_id, token=token, worker="w", now=now, lease_until=now + timedelta(minutes=1))
            fail_job(connection, job_id, token, error=error or JobErrorCode.BLURRED, now=now, count_failure=True)


def follow(api: ApiBench) -> int:
    return BatchFollower(engine=api.engine, clock=api.services.clock).follow()


def event_types(api: ApiBench) -> list[str]:
    with transaction(api.engine) as connection:
        return list(connection.execute(select(events.c.type).order_by(events.c.id)).scalars())


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
    files = [(io.BytesIO(picture), f"scans/{number}.jpg") for number, picture in enumerate(PICTURES)]

    answer = api.call("POST", "/v1/batches", data={"document_type": "id_card", "images": files})

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


# Twice


def test_the_same_key_gives_the_same_batch(api: ApiBench) -> None:
    headers = {"Idempotency-Key": "monday"}

    first, second = (create(api, headers=headers) for _ in range(2))
    other = create(api, status=422, headers=headers, name="another")

    assert first["id"] == second["id"]
    assert other["code"] == "idempotency_key_reused"
    assert api.count_jobs() == 3


def test_a_request_cut_short_goes_on_where_it_was(api: ApiBench) -> None:
    headers = {"Idempotency-Key": "monday"}
    first = create(api, headers=headers)
    with transaction(api.engine) as connection:  # as if it had died after its first item
        connection.execute(jobs.delete().where(jobs.c.item_number > 1))
        connection.execute(_open_again(first["id"]))

    second = create(api, headers=headers)

    assert (second["id"], second["status"], second["counts"]["total"]) == (first["id"], "running", 3)


def _open_again(batch_id: str) -> Any:
    return update(batches).where(batches.c.id == batch_id).values(closed_at=None)


def test_another_client_sees_nothing(api: ApiBench) -> None:
    batch = create(api)
    _, key = make_client(api.engine, "another")

    for method, path in (("GET", ""), ("GET", "/items"), ("POST", "/close"), ("POST", "/cancel"), ("POST", "/retry")):
        assert api.call(method, f"/v1/batches/{batch['id']}{path}", key=key).status_code == 404
    assert api.get("/v1/batches", key=key).json["data"] == []  # type: ignore[index]


# Life


def test_an_open_batch_takes_items_until_it_is_closed(api: ApiBench) -> None:
    batch = create(api, [], close=False)
    path = f"/v1/batches/{batch['id']}"
    more = {"items": [{"image_base64": encoded(picture)} for picture in PICTURES]}

    added = [api.call("POST", f"{path}/items", json=more, headers={"Idempotency-Key": "a"}) for _ in range(2)]
    files = {"images": [(io.BytesIO(PICTURES[0]), "five.jpg")]}
    more_files = api.call("POST", f"{path}/items", data=files)
    closed = api.call("POST", f"{path}/close")
    late = api.call("POST", f"{path}/items", json=more)

    assert [answer.status_code for answer in (*added, more_files, closed, late)] == [202, 202, 202, 200, 409]
    assert closed.json["counts"]["total"] == 5  # type: ignore[index]
    assert [item["number"] for item in items_of(api, batch["id"])] == [1, 2, 3, 4, 5]


def test_a_batch_is_completed_though_items_failed(api: ApiBench) -> None:
    batch = create(api)
    before = follow(api)
    end_all(api, batch["id"])

    completed = [follow(api) for _ in range(2)]

    told = api.get(f"/v1/batches/{batch['id']}").json
    assert (before, completed) == (0, [1, 0])
    assert (told["status"], told["percent"], told["counts"]["failed"]) == ("completed", 100.0, 3)  # type: ignore[index]
    assert event_types(api) == ["batch.completed"]


def test_progress_is_told_in_steps(api: ApiBench) -> None:
    items = [{"image_base64": encoded(PICTURES[0])} for _ in range(10)]
    batch = create(api, items)
    with transaction(api.engine) as connection:
        some = select(jobs.c.id).where(jobs.c.item_number <= 4)
        connection.execute(
            update(jobs)
            .where(jobs.c.id.in_(some))
            .values(status="failed", error_code="blurred", completed_at=_now(api))
        )

    follow(api)
    follow(api)

    assert event_types(api) == ["batch.progress"]
    assert api.get(f"/v1/batches/{batch['id']}").json["percent"] == 40.0  # type: ignore[index]


def _now(api: ApiBench) -> Any:
    return api.services.clock()


def test_a_canceled_batch_starts_nothing_more(api: ApiBench) -> None:
    batch = create(api)

    canceled = [api.call("POST", f"/v1/batches/{batch['id']}/cancel").json for _ in range(2)]
    follow(api)

    assert [told["counts"]["canceled"] for told in canceled] == [3, 3]  # type: ignore[index]
    assert api.get(f"/v1/batches/{batch['id']}").json["status"] == "canceled"  # type: ignore[index]
    assert event_types(api) == ["batch.canceled"]


@pytest.mark.parametrize(("only_retryable", "expected"), [(True, 1), (False, 3)])
def test_failed_items_are_tried_again(api: ApiBench, only_retryable: bool, expected: int) -> None:
    items = [{"image_base64": encoded(picture)} for picture in PICTURES[:3]] + [{"image_base64": encoded(b"no image")}]
    batch = create(api, items)
    end_all(api, batch["id"])
    with transaction(api.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.item_number == 1).values(error_code="provider_failed"))
    follow(api)

    answer = api.call("POST", f"/v1/batches/{batch['id']}/retry", json={"only_retryable": only_retryable}).json

    assert answer["retried"] == expected  # type: ignore[index]
    told = answer["batch"]  # type: ignore[index]
    assert (told["status"], told["counts"]["queued"], told["counts"]["total"]) == ("running", expected, 4)


def test_a_dry_run_keeps_nothing_and_tells_what_would_be(api: ApiBench) -> None:
    items = [{"image_base64": encoded(picture)} for picture in (PICTURES[0], PICTURES[0], PICTURES[1], b"no image")]

    told = create(api, items, 200, dry_run=True)

    assert (told["items"], told["bad_items"], told["cache_hits"], told["calls"]) == (4, 1, 1, 2)
    assert told["by_document_type"] == {"id_card": 3}
    assert (told["bad"][0]["number"], told["bad"][0]["error"]["code"]) == (4, "image_format_unsupported")
    assert (api.count_jobs(), api.get("/v1/batches").json["data"]) == (0, [])  # type: ignore[index]


def test_batches_are_listed_newest_first_in_pages(api: ApiBench) -> None:
    made = [create(api, [], name=str(number))["id"] for number in range(3)]

    first = api.get("/v1/batches", query_string={"limit": 2}).json
    second = api.get("/v1/batches", query_string={"limit": 2, "after": first["next"]}).json  # type: ignore[index]

    assert [batch["id"] for page in (first, second) for batch in page["data"]] == made[::-1]  # type: ignore[index]
    assert second["next"] is None  # type: ignore[index]


def test_items_are_filtered_and_paged(api: ApiBench) -> None:
    items = [{"image_base64": encoded(picture)} for picture in (*PICTURES, b"no image", b"none either")]
    batch = create(api, items)

    failed = items_of(api, batch["id"], status="failed,expired")
    page = api.get(f"/v1/batches/{batch['id']}/items", query_string={"limit": 4}).json

    assert [item["number"] for item in failed] == [5, 6]
    assert page["next"] == 4  # type: ignore[index]
    assert [item["number"] for item in items_of(api, batch["id"], after=4)] == [5, 6]
