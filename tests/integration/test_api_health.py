"""What operators ask: alive, ready, metrics, the documentation."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Engine, text

from kazheng.stack.valkey import free_port
from shared.clock import utc_now
from shared.database.recovery import SWEEP, note_chore
from shared.settings import Settings
from tests.integration.api_tools import ApiBench, running_api


@pytest.fixture
def api(settings: Settings, engine: Engine, redis_client: Redis) -> Iterator[ApiBench]:
    with running_api(settings, engine) as bench:
        yield bench


def test_a_process_with_all_its_parts_is_ready(api: ApiBench) -> None:
    alive, ready = api.get("/livez", key=None), api.get("/readyz", key=None)

    assert (alive.status_code, alive.json) == (200, {"status": "alive"})
    assert (ready.status_code, ready.json) == (200, {"status": "ready", "failing": []})


def test_verbose_readiness_tells_about_every_part(api: ApiBench) -> None:
    ready = api.get("/readyz?verbose", key=None)

    assert ready.json is not None
    assert ready.json["checks"] == {"database": "ok", "broker": "ok", "store": "ok"}


@pytest.mark.parametrize(("name", "part"), [("redis_url", "broker"), ("database_url", "database")])
def test_the_part_that_is_away_is_named(settings: Settings, engine: Engine, name: str, part: str) -> None:
    scheme = {"redis_url": "redis", "database_url": "postgresql"}[name]
    away = settings.model_copy(update={name: SecretStr(f"{scheme}://127.0.0.1:{free_port()}/x")})
    if name == "redis_url":
        away = settings.model_copy(update={name: SecretStr(f"redis://127.0.0.1:{free_port()}/0")})

    with running_api(away, engine) as api:
        ready, alive = api.get("/readyz?verbose", key=None), api.get("/livez", key=None)

    assert ready.json is not None
    assert (ready.status_code, ready.json["failing"]) == (503, [part])
    assert ready.json["checks"][part] != "ok"
    assert alive.status_code == 200


def test_a_store_that_can_not_keep_anything_is_named(api: ApiBench) -> None:
    (api.settings.home / "images").rename(api.settings.home / "elsewhere")
    (api.settings.home / "images").write_text("a file where a folder was")

    ready = api.get("/readyz", key=None)

    assert ready.json is not None
    assert (ready.status_code, ready.json["failing"]) == (503, ["store"])


def test_a_sweeper_that_does_not_run_is_a_warning_and_no_reason_to_refuse(api: ApiBench) -> None:
    never = api.get("/readyz?verbose", key=None)
    with api.engine.begin() as connection:
        note_chore(connection, SWEEP, utc_now() - timedelta(minutes=10))
    late = api.get("/readyz?verbose", key=None)
    with api.engine.begin() as connection:
        note_chore(connection, SWEEP, utc_now())
    well = api.get("/readyz?verbose", key=None)

    assert [answer.status_code for answer in (never, late, well)] == [200, 200, 200]
    assert [len(answer.json["warnings"]) for answer in (never, late, well)] == [1, 1, 0]  # type: ignore[index]
    assert "last ran 600 s ago" in late.text


def test_tables_of_another_version_are_not_ready(api: ApiBench) -> None:
    with api.engine.begin() as connection:
        found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
        connection.execute(text("UPDATE alembic_version SET version_num = 'older'"))

        connection.execute(text("ALTER TABLE chores RENAME TO not_yet"))

    ready, metrics = api.get("/readyz?verbose", key=None), api.get("/metrics", key=None)
    with api.engine.begin() as connection:
        connection.execute(text("ALTER TABLE not_yet RENAME TO chores"))
        connection.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})

    assert ready.json is not None
    assert (ready.status_code, ready.json["failing"]) == (503, ["database"])
    assert metrics.status_code == 200
    assert "kazheng migrate" in ready.json["checks"]["database"]


def test_metrics_count_requests_without_ids(api: ApiBench) -> None:
    job_id = api.submitted_id()
    api.get(f"/v1/jobs/{job_id}")

    metrics = api.get("/metrics", key=None)

    assert 'kazheng_http_requests_total{method="GET",route="/v1/jobs/<job_id>",status="200"}' in metrics.text
    assert job_id not in metrics.text


def test_metrics_tell_how_long_things_stand_still(api: ApiBench) -> None:
    api.submitted_id()
    with api.engine.begin() as connection:
        note_chore(connection, SWEEP, utc_now() - timedelta(minutes=10))
        connection.execute(text("UPDATE jobs SET published_at = now() - interval '5 minutes'"))

    metrics = dict(
        line.split()
        for line in api.get("/metrics", key=None).text.splitlines()
        if not line.startswith("#") and "_seconds " in line
    )

    assert 600 <= float(metrics["kazheng_sweep_age_seconds"]) < 660
    assert 300 <= float(metrics["kazheng_oldest_message_seconds"]) < 360
    assert "kazheng_oldest_overdue_claim_seconds" not in metrics


def test_the_page_and_all_it_needs_come_from_here(api: ApiBench) -> None:
    page, script, document = (api.get(path, key=None) for path in ("/docs", "/docs/scalar.js", "/openapi.json"))

    assert [answer.status_code for answer in (page, script, document)] == [200, 200, 200]
    assert "//" not in page.text.replace("</", "")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    assert len(script.data) > 100_000
    assert document.json is not None
    assert document.json["openapi"] == "3.1.0"


def test_errors_of_the_framework_are_problems_with_a_request_id(api: ApiBench) -> None:
    answer = api.get("/v1/nowhere", headers={"X-Request-Id": "trace-1"})

    assert answer.json is not None
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert answer.json["request_id"] == answer.headers["X-Request-Id"] == "trace-1"


def test_without_a_database_everything_says_so(settings: Settings, engine: Engine) -> None:
    away = settings.model_copy(update={"database_url": SecretStr(f"postgresql://127.0.0.1:{free_port()}/x")})

    with running_api(away, engine) as api:
        answers = [api.submit(), api.get("/v1/jobs")]

    assert {(answer.status_code, answer.json["code"]) for answer in answers} == {(503, "database_unavailable")}  # type: ignore[index]
    assert all("Retry-After" in answer.headers for answer in answers)
