"""What is left, what was used, and when a job may start: told to clients and to the operator."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, insert

from shared.clock import utc_now
from shared.database.accounts import set_paused, set_quota
from shared.database.engine import transaction
from shared.database.stops import Stop, put_stop
from shared.database.tables import attempts
from shared.domain.job import Lane
from shared.domain.quota import SHANGHAI, Billing, Quota, StopReason, end_of_day, quota_day
from shared.ids import new_id
from shared.limits import keys
from shared.settings import Settings
from tests.factories import make_account, make_client, make_job
from tests.integration.api_tools import ApiBench, running_api
from tests.integration.command_runner import Kazheng, command_runner

EPOCH = date(1970, 1, 1)


@pytest.fixture
def api(settings: Settings, engine: Engine, redis_client: Redis) -> Iterator[ApiBench]:
    with running_api(settings, engine) as bench:
        yield bench


@pytest.fixture
def account_id(api: ApiBench, settings: Settings) -> str:
    return make_account(api.engine, settings, "http://provider.invalid", qps=2)


@pytest.fixture
def kazheng(settings: Settings, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kazheng:
    return command_runner(settings, engine, tmp_path, monkeypatch)


def stop(engine: Engine, account_id: str, reason: StopReason, until: datetime | None = None) -> None:
    with transaction(engine) as connection:
        put_stop(connection, Stop(account_id, "idcard", reason, "17", "said so", utc_now(), until, None))


def quota_of(api: ApiBench, endpoint: str = "idcard") -> dict[str, Any]:
    body = api.get("/v1/quotas").json
    assert body is not None
    found: dict[str, Any] = next(quota for quota in body["data"] if quota["endpoint"] == endpoint)
    return found


def call(engine: Engine, account_id: str, job_id: str, day: date, *, billed: bool = True, number: int = 1) -> None:
    with transaction(engine) as connection:
        connection.execute(
            insert(attempts).values(
                id=new_id("att"),
                job_id=job_id,
                number=number,
                account_id=account_id,
                endpoint="idcard",
                outcome="succeeded" if billed else "bad_input",
                billed=billed,
                quota_day=day,
                throttle_ms=0,
                started_at=datetime(day.year, day.month, day.day, 4, tzinfo=UTC),
            )
        )


def test_what_is_left_is_shown_for_each_endpoint_of_each_account(
    api: ApiBench, account_id: str, redis_client: Redis
) -> None:
    with transaction(api.engine) as connection:
        set_quota(connection, "sandbox", "idcard", Quota(qps=10, day_limit=100, total_limit=1000, in_flight_limit=4))
    today = quota_day(utc_now())
    redis_client.set(keys.day_counts(account_id, "idcard") + str((today - EPOCH).days), 30)
    redis_client.set(keys.total_count(account_id, "idcard"), 700)
    redis_client.zadd(keys.in_flight(account_id, "idcard"), {"a": 1e16, "given up": 1})

    quota = quota_of(api)

    assert (quota["state"], quota["qps_limit"], quota["used_today"], quota["left_today"]) == ("open", 10, 30, 70)
    assert (quota["used_in_all"], quota["in_flight"], quota["in_flight_limit"]) == (700, 1, 4)
    assert datetime.fromisoformat(quota["day_ends_at"]) == end_of_day(today)
    assert 9 < quota["pace"] < 10  # the limit, less the margin


def test_a_learnt_share_shows_as_slowed(api: ApiBench, account_id: str, redis_client: Redis) -> None:
    now = str(int(redis_client.time()[0]) * 1_000_000)
    redis_client.hset(keys.learnt(account_id, "idcard"), mapping={"share": "0.5", "at": now})

    quota = quota_of(api)

    assert quota["state"] == "slowed"
    assert quota["learnt_share"] == pytest.approx(0.5, abs=0.01)


def test_a_stop_shows_with_its_reason_and_who_waits_for_it(api: ApiBench, account_id: str) -> None:
    stop(api.engine, account_id, StopReason.MISCONFIGURED)
    api.submitted_id()

    body = api.get("/v1/quotas").json

    assert body is not None
    line = next(line for line in body["lines"] if line["endpoint"] == "idcard")
    assert (line["interactive"], line["parked"]) == (1, 1)
    quota = quota_of(api)
    assert (quota["state"], quota["stop"]["upstream_code"], quota["stop"]["detail"]) == (
        "misconfigured",
        "17",
        "said so",
    )


def test_a_stop_is_a_warning_of_readiness_and_no_failure(api: ApiBench, account_id: str) -> None:
    stop(api.engine, account_id, StopReason.UNCLAIMED)

    answer = api.call("GET", "/readyz?verbose", key=None)

    assert answer.status_code in (200, 503)
    assert answer.json is not None
    assert any("sandbox/idcard" in warning and "unclaimed" in warning for warning in answer.json["warnings"])


def test_a_job_tells_its_place_and_when_it_may_start(api: ApiBench, account_id: str) -> None:
    for _ in range(4):
        make_job(api.engine, api.client_id, lane=Lane.BULK)
    job_id = make_job(api.engine, api.client_id, lane=Lane.BULK).id
    before = utc_now()

    answer = api.get(f"/v1/jobs/{job_id}")

    job = answer.json
    assert job is not None
    assert (job["queue"]["position"], job["waiting_on"]) == (5, "upstream_qps")
    starts_in = datetime.fromisoformat(job["queue"]["estimated_start_at"]) - before
    assert timedelta(seconds=2) < starts_in < timedelta(seconds=5)  # the fifth at not quite two a second
    assert answer.headers["Retry-After"] in ("3", "4")


def test_a_job_of_a_used_up_day_waits_for_the_next_one(api: ApiBench, account_id: str) -> None:
    until = end_of_day(quota_day(utc_now()))
    stop(api.engine, account_id, StopReason.DAILY_QUOTA, until)
    job_id = make_job(api.engine, api.client_id).id

    answer = api.get(f"/v1/jobs/{job_id}")

    job = answer.json
    assert job is not None
    assert job["waiting_on"] == "upstream_daily_quota"
    assert datetime.fromisoformat(job["not_before"]) == until
    assert datetime.fromisoformat(job["queue"]["estimated_start_at"]) > until
    assert int(answer.headers["Retry-After"]) <= 60


def test_jobs_behind_what_is_left_today_start_tomorrow(api: ApiBench, account_id: str, redis_client: Redis) -> None:
    with transaction(api.engine) as connection:
        set_quota(connection, "sandbox", "idcard", Quota(qps=10, day_limit=3))
    today = quota_day(utc_now())
    redis_client.set(keys.day_counts(account_id, "idcard") + str((today - EPOCH).days), 1)
    ids = [make_job(api.engine, api.client_id).id for _ in range(3)]

    starts = [api.get(f"/v1/jobs/{job_id}").json["queue"]["estimated_start_at"] for job_id in ids]  # type: ignore[index]

    days = [quota_day(datetime.fromisoformat(start)) for start in starts]
    assert days == [today, today, today + timedelta(days=1)]


def test_without_an_account_a_job_waits_for_the_operator(api: ApiBench) -> None:
    job_id = make_job(api.engine, api.client_id).id

    answer = api.get(f"/v1/jobs/{job_id}")

    assert answer.json is not None
    assert answer.json["waiting_on"] == "provider_outage"
    assert answer.headers["Retry-After"] == "60"


def test_usage_is_the_client_s_own_and_adds_up(api: ApiBench, account_id: str) -> None:
    stranger, _ = make_client(api.engine, "stranger")
    day = date(2026, 11, 3)
    for number in range(3):
        call(api.engine, account_id, make_job(api.engine, api.client_id).id, day, billed=number > 0)
    call(api.engine, account_id, make_job(api.engine, stranger).id, day)

    report = api.get("/v1/usage?from=2026-11-01&to=2026-11-30&by=day,document_type,account").json

    assert report is not None
    assert report["data"] == [
        {
            "day": "2026-11-03",
            "document_type": "id_card",
            "account": "sandbox",
            "calls": 3,
            "succeeded": 2,
            "failed": 1,
            "unfinished": 0,
            "billed": 2,
            "saved": 0,
            "cost": "0.0000",
        }
    ]
    assert (report["total"]["calls"], report["total"]["billed"]) == (3, 2)


def test_clients_costs_add_up_to_the_account_s(api: ApiBench, settings: Settings, kazheng: Kazheng) -> None:
    account_id = make_account(api.engine, settings, "http://provider.invalid", billing=Billing.POSTPAID)
    stranger, _ = make_client(api.engine, "stranger")
    for client_id, calls in ((api.client_id, 3), (stranger, 1)):
        for _ in range(calls):
            call(api.engine, account_id, make_job(api.engine, client_id).id, date(2026, 11, 3))

    lines = kazheng("usage", "--from", "2026-11-01", "--to", "2026-11-30", "--by", "client", "--json").output
    usages = [json.loads(line) for line in lines.splitlines()]

    assert {usage.get("client", "total"): usage["cost"] for usage in usages} == {
        "tests": "0.1500",
        "stranger": "0.0500",
        "total": "0.2000",
    }


def test_a_job_answered_without_a_call_is_saved(api: ApiBench, account_id: str) -> None:
    api.succeed(make_job(api.engine, api.client_id).id)

    report = api.get("/v1/usage?by=document_type").json

    assert report is not None
    assert [(usage["document_type"], usage["calls"], usage["saved"]) for usage in report["data"]] == [("id_card", 0, 1)]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("from=yesterday", "/from"),
        ("by=week", "/by"),
        ("from=2026-11-02&to=2026-11-01", "/from"),
        ("from=2020-01-01&to=2026-11-01", "/from"),
        ("until=2026-11-01", "/until"),
    ],
)
def test_a_usage_query_without_sense_is_told_what_is_wrong(api: ApiBench, query: str, pointer: str) -> None:
    answer = api.get(f"/v1/usage?{query}")

    assert answer.status_code == 422
    assert answer.json is not None
    assert any(error["pointer"].startswith(pointer) for error in answer.json["errors"])


def test_the_operator_sees_states_in_a_table_and_in_json(kazheng: Kazheng, api: ApiBench, account_id: str) -> None:
    stop(api.engine, account_id, StopReason.DAILY_QUOTA, end_of_day(quota_day(utc_now(), SHANGHAI)))
    make_job(api.engine, api.client_id, lane=Lane.BULK)

    table, lines = kazheng("quotas"), kazheng("quotas", "--json")

    assert (table.exit_code, lines.exit_code) == (0, 0)
    assert "daily_quota" in table.output
    by_endpoint = {line["endpoint"]: line for line in map(json.loads, lines.output.splitlines())}
    assert (by_endpoint["idcard"]["state"], by_endpoint["idcard"]["waiting"]) == ("daily_quota", 1)
    assert by_endpoint["bankcard"]["state"] == "open"


def test_a_paused_account_shows_as_paused(api: ApiBench, account_id: str) -> None:
    with transaction(api.engine) as connection:
        set_paused(connection, "sandbox", paused=True)

    assert quota_of(api)["state"] == "paused"


def test_the_doctor_names_a_stop_and_its_remedy(kazheng: Kazheng, api: ApiBench, account_id: str) -> None:
    stop(api.engine, account_id, StopReason.MISCONFIGURED)

    findings = [json.loads(line) for line in kazheng("doctor", "--json").output.splitlines()]

    found = next(finding for finding in findings if "sandbox/idcard" in finding["what"])
    assert (found["state"], "--resume" in found["remedy"]) == ("wrong", True)
