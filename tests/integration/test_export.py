"""Batches as files: what Excel and programs find in them."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import openpyxl
import pytest
from sqlalchemy import Engine, select, update

from shared.database.engine import transaction
from shared.database.jobs import claim_job, succeed_job
from shared.database.tables import jobs
from shared.settings import Settings
from tests.factories import make_picture
from tests.integration.api_tools import FIELD, ApiBench, running_api
from tests.integration.test_api_batches import archive

ID_NUMBER = "999999199003070012"
HARMFUL = '=HYPERLINK("https://a.example")'


@pytest.fixture
def api(settings: Settings, engine: Engine) -> Iterator[ApiBench]:
    with running_api(settings, engine) as running:
        yield running


@pytest.fixture
def batch_id(api: ApiBench) -> str:
    """Three items: one read, one with a doubtful number and a harmful name, one that is no image."""
    files = {"张.jpg": make_picture(), "b.jpg": make_picture((641, 400)), "text.jpg": b"no image"}
    query = {"document_type": "id_card"}
    answer = api.call("POST", "/v1/batches", data=archive(files), content_type="application/zip", query_string=query)
    made = str(answer.json["id"])  # type: ignore[index]
    settle(api, made, 1, {"name": "测样丽", "id_number": ID_NUMBER}, "passed")
    settle(api, made, 2, {"name": HARMFUL, "id_number": ID_NUMBER}, "failed")
    return made


def settle(api: ApiBench, batch_id: str, number: int, values: dict[str, str], check: str) -> None:
    now = api.services.clock()
    result = {
        "fields": {name: {**FIELD, "value": value} for name, value in values.items()},
        "checks": [{"code": "id_number.checksum", "status": check, "severity": "error", "fields": [], "detail": ""}],
        "image": {},
        "provider": "baidu",
        "account": "sandbox",
        "upstream_log_id": None,
        "raw": {},
        "created_at": now,
    }
    with transaction(api.engine) as connection:
        where = jobs.c.batch_id == batch_id, jobs.c.item_number == number
        job_id = connection.execute(select(jobs.c.id).where(*where)).scalar_one()
        claim_job(connection, job_id, token="t", worker="w", now=now, lease_until=now + timedelta(minutes=1))
        assert succeed_job(connection, job_id, "t", now=now, result={"job_id": job_id, **result})


def export(api: ApiBench, batch_id: str, **query: Any) -> bytes:
    answer = api.get(f"/v1/batches/{batch_id}/export", query_string=query)
    assert answer.status_code == 200, answer.text
    return bytes(answer.data)


def test_json_lines(api: ApiBench, batch_id: str) -> None:
    lines = [json.loads(line) for line in export(api, batch_id, format="jsonl").splitlines()]

    assert [line["item"] for line in lines] == [1, 2, 3]
    assert (lines[0]["file"], lines[0]["name"], lines[0]["id_number"]) == ("张.jpg", "测样丽", ID_NUMBER)
    assert lines[0]["failed_checks"] == ""
    assert lines[1]["failed_checks"] == "id_number.checksum"
    assert (lines[2]["status"], lines[2]["error_code"]) == ("failed", "image_format_unsupported")
    assert len({tuple(line) for line in lines}) == 1


def test_csv_that_excel_reads_and_does_not_execute(api: ApiBench, batch_id: str) -> None:
    with transaction(api.engine) as connection:
        connection.execute(update(jobs).where(jobs.c.item_number == 3).values(client_reference_id="-1+1"))

    content = export(api, batch_id, format="csv")

    assert content.startswith(b"\xef\xbb\xbfitem,file,")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert [row["client_reference_id"] for row in rows] == ["", "", "'-1+1"]
    assert (rows[0]["sex"], rows[0]["id_number"]) == ("", ID_NUMBER)


def test_a_workbook_keeps_every_digit_and_marks_what_failed(api: ApiBench, batch_id: str) -> None:
    sheet = openpyxl.load_workbook(io.BytesIO(export(api, batch_id, format="xlsx"))).active

    assert sheet is not None
    heading, *rows = list(sheet.iter_rows())
    place = {cell.value: number for number, cell in enumerate(heading)}
    number = rows[0][place["公民身份号码"]]
    assert (number.value, number.data_type) == (ID_NUMBER, "s")
    assert rows[0][place["File"]].value == "张.jpg"
    fills = [row[0].fill.start_color.rgb for row in rows]
    assert len(set(fills)) == 3
    assert rows[2][place["Error"]].value == "image_format_unsupported"


def test_what_looks_like_a_formula_stays_text_in_a_workbook(api: ApiBench, batch_id: str) -> None:
    sheet = openpyxl.load_workbook(
        io.BytesIO(export(api, batch_id, format="xlsx", fields="item,name,id_number,file"))
    ).active

    assert sheet is not None
    assert all(cell.data_type != "f" for row in sheet.iter_rows() for cell in row)


def test_columns_are_chosen(api: ApiBench, batch_id: str) -> None:
    (line, *_) = export(api, batch_id, fields="id_number,item").splitlines()

    assert json.loads(line) == {"id_number": ID_NUMBER, "item": 1}


def test_an_unknown_column_is_refused(api: ApiBench, batch_id: str) -> None:
    answer = api.get(f"/v1/batches/{batch_id}/export", query_string={"fields": "shoe_size"})

    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, "/fields")  # type: ignore[index]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "xlsx"])
def test_a_batch_without_items_is_a_file_without_rows(api: ApiBench, kind: str) -> None:
    empty = api.call("POST", "/v1/batches", json={"items": []}).json["id"]  # type: ignore[index]

    content = export(api, empty, format=kind)

    assert len(content.splitlines()) == {"jsonl": 0, "csv": 1}.get(kind, len(content.splitlines()))


def test_more_items_than_a_portion_come_all_and_in_order(api: ApiBench) -> None:
    items = [{"image_url": f"https://cards.example/{number}.jpg"} for number in range(1000)]
    made = api.call("POST", "/v1/batches", json={"document_type": "id_card", "close": False, "items": items}).json
    api.call("POST", f"/v1/batches/{made['id']}/items", json={"items": items[:200]})  # type: ignore[index]

    lines = export(api, made["id"], fields="item").splitlines()  # type: ignore[index]

    assert [json.loads(line)["item"] for line in lines] == list(range(1, 1201))
