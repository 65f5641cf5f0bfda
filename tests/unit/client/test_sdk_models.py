"""What the API answers is read with patience: more keys, fewer keys, other shapes."""

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from kazheng import Field, Job, JobFailedError, ResultNotReadyError


def test_job_is_read_whole() -> None:
    polygon = [[0.1, 0.2], [0.3, 0.2], [0.3, 0.4], [0.1, 0.4]]
    field = {"value": "1990-03-07", "text": "1990年3月7日", "label": "出生", "confidence": 0.9, "polygon": polygon}
    check = {"code": "expiry", "status": "failed", "severity": "warning", "fields": ["expiry_date"], "detail": "Over."}
    body = {
        "id": "job_1",
        "status": "succeeded",
        "created_at": "2026-11-23T08:00:00Z",
        "timings_ms": {"total": 812},
        "result": {"fields": {"birth_date": field}, "checks": [check], "provider": "baidu"},
    }

    job = Job.from_json(body)

    assert job.created_at == datetime(2026, 11, 23, 8, tzinfo=UTC)
    assert job.timings_ms["total"] == 812
    result = job.require_result()
    assert result.provider == "baidu"
    assert result.fields["birth_date"].text == "1990年3月7日"
    assert result.fields["birth_date"].polygon == ((0.1, 0.2), (0.3, 0.2), (0.3, 0.4), (0.1, 0.4))
    assert result.checks[0].has_failed
    assert result.checks[0].fields == ("expiry_date",)


@pytest.mark.parametrize(
    "changes",
    [
        {},  # nothing but id and status
        {"a_key_of_next_year": {"x": 1}},
        {"result": None, "error": None, "metadata": None, "timings_ms": None},
        {"created_at": "yesterday"},
        {"result": {"fields": {"name": {"value": "x", "new": 1}}, "checks": [{"code": "c", "new": 1}]}},
        {"result": {"fields": None, "checks": None}},
    ],
)
def test_unknown_and_missing_keys_are_no_error(changes: dict[str, Any]) -> None:
    body = {"id": "job_1", "status": "succeeded"} | changes

    job = Job.from_json(body)

    assert job.id == "job_1"
    assert job.json == body


@pytest.mark.parametrize(
    ("status", "is_final"),
    [("queued", False), ("processing", False), ("succeeded", True), ("failed", True), ("canceled", True)],
)
def test_only_queued_and_processing_jobs_go_on(status: str, is_final: bool) -> None:
    assert Job(id="job_1", status=status).is_final is is_final


def test_result_of_a_running_job_is_not_a_failure() -> None:
    with pytest.raises(ResultNotReadyError):
        Job(id="job_1", status="processing").require_result()


def test_canceled_job_has_no_result_and_says_so() -> None:
    with pytest.raises(JobFailedError) as caught:
        Job(id="job_1", status="canceled").require_result()

    assert caught.value.code == "canceled"


def test_job_in_a_log_shows_no_field() -> None:
    job = Job.from_json({"id": "job_1", "status": "succeeded", "result": {"fields": {"name": {"value": "测样丽"}}}})

    assert "测样丽" not in repr(job)


def test_field_without_label_is_called_by_its_name() -> None:
    assert Field.from_json("name", {"value": None}).label == "name"


def test_importing_the_client_loads_nothing_of_the_server() -> None:
    """In a process of its own: other tests have loaded everything here."""
    code = (
        "import sys; from kazheng import Client;"
        "print(*{m.split('.')[0] for m in sys.modules} & {'shared', 'celery', 'sqlalchemy', 'redis', 'pydantic'})"
    )

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == ""


def test_importing_the_package_loads_no_http_client() -> None:
    code = "import sys, kazheng; print('httpx' in sys.modules)"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "False"
