"""`/v1/webhook-endpoints` and `/v1/events`: self-service, and walls."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, select, update
from standardwebhooks import Webhook

from shared.database.engine import transaction
from shared.database.tables import webhook_endpoints, webhook_secrets
from shared.settings import Settings
from tests.factories import make_client
from tests.integration.api_tools import ApiBench, form, running_api
from tests.integration.api_webhook_tools import PUBLIC, call, deliver, path_of, place, register
from tests.integration.test_api_batches import create
from tests.integration.test_batch_life import end_all, follow
from tests.integration.webhook_bench import open_to_loopback
from tests.receivers import answers, receiver


@pytest.fixture
def api(settings: Settings, engine: Engine, redis_client: object) -> Iterator[ApiBench]:
    with running_api(open_to_loopback(settings), engine) as bench:
        yield bench


def test_an_endpoint_is_registered_and_its_secret_shown_once(api: ApiBench) -> None:
    made = register(api, description="orders", event_types=["job.succeeded"], document_types=["id_card"])

    assert made["id"].startswith("whe_")
    assert made["secret"].startswith("whsec_")
    assert (made["status"], made["kind"], made["payload"]) == ("enabled", "registered", "thin")
    read = call(api, "GET", path_of(made))
    assert read == {name: value for name, value in made.items() if name != "secret"}
    assert call(api, "GET", "/v1/webhook-endpoints")["data"] == [read]
    with transaction(api.engine) as connection:
        sealed = connection.execute(select(webhook_secrets.c.sealed)).scalar_one()
    assert made["secret"].encode() not in sealed


def test_by_default_everything_is_told_but_what_has_to_be_asked_for(api: ApiBench) -> None:
    types = register(api)["event_types"]

    assert {"job.succeeded", "batch.completed", "quota.exhausted", "endpoint.disabled"} <= set(types)
    assert not {"job.started", "job.parked", "webhook.ping"} & set(types)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://receiver.example/hook",
        "https://user:secret@receiver.example/hook",
        "https://10.0.0.1/hook",
        "https://[::ffff:10.0.0.1]/hook",
        "https://167772161/hook",
        "https://0xa000001/hook",
        "https://012.0.0.1/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/hook",
        "https://224.0.0.1/hook",
        "https://receiver.example:22/hook",
        "https://receiver.example:99999/hook",
        "https:///hook",
        "https://1.2.3.4.5/hook",
        "not a url",
        "",
        "https://receiver.example/" + "x" * 2048,
    ],
)
def test_addresses_that_may_not_be_called_are_refused_at_once(api: ApiBench, url: str) -> None:
    problem = call(api, "POST", "/v1/webhook-endpoints", 422, {"url": url})

    assert problem["errors"][0]["pointer"] == "/url"
    answer = api.submit(query={"webhook_url": url})
    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] == "/webhook_url"  # type: ignore[index]
    assert api.count_jobs() == 0
    assert api.images == []


def test_without_leave_neither_http_nor_this_machine(settings: Settings, engine: Engine, redis_client: object) -> None:
    with running_api(settings, engine) as api:
        for url in ("http://receiver.example/hook", "https://127.0.0.1/", "https://localhost/", "https://[::1]/"):
            problem = call(api, "POST", "/v1/webhook-endpoints", 422, {"url": url})
            assert "kazheng listen" in problem["errors"][0]["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/url"),
        ({"url": PUBLIC, "event_types": []}, "/event_types"),
        ({"url": PUBLIC, "event_types": ["job.dreamt"]}, "/event_types/0"),
        ({"url": PUBLIC, "event_types": ["webhook.ping"]}, "/event_types"),
        ({"url": PUBLIC, "document_types": ["novel"]}, "/document_types/0"),
        ({"url": PUBLIC, "batch_id": "bat_x"}, "/batch_id"),
        ({"url": PUBLIC, "batch_id": "bat_" + "0" * 26}, "/batch_id"),
        ({"url": PUBLIC, "payload": "fat"}, "/payload"),
        ({"url": PUBLIC, "secret": "whsec_x"}, "/secret"),
        ({"url": 7}, "/url"),
        ([], ""),
    ],
)
def test_wrong_fields_are_named(api: ApiBench, body: Any, pointer: str) -> None:
    problem = call(api, "POST", "/v1/webhook-endpoints", 422, body)

    assert [error["pointer"] for error in problem["errors"]] == [pointer]


@pytest.mark.parametrize("body", [b"", b"{", b"nul", b"\xff\xfe"])
def test_a_body_that_is_no_json_is_a_problem(api: ApiBench, body: bytes) -> None:
    answer = api.call("POST", "/v1/webhook-endpoints", data=body, content_type="application/json")

    assert answer.status_code == 400
    assert answer.content_type == "application/problem+json"


def test_what_is_named_is_changed_and_the_rest_stays(api: ApiBench) -> None:
    made = register(api, description="orders", event_types=["job.failed"])

    changed = call(api, "PATCH", path_of(made), 200, {"payload": "full", "event_types": None})

    assert (changed["payload"], changed["description"]) == ("full", "orders")
    assert "job.succeeded" in changed["event_types"]
    problem = call(api, "PATCH", path_of(made), 422, {"url": None})
    assert problem["errors"] == [{"pointer": "/url", "detail": "must not be null"}]


def test_at_another_address_an_endpoint_starts_anew(api: ApiBench) -> None:
    made = register(api)
    with transaction(api.engine) as connection:
        failing = {"failures": 9, "openings": 3, "paused_until": api.services.clock() + timedelta(minutes=9)}
        connection.execute(update(webhook_endpoints).values(**failing))
    assert call(api, "GET", path_of(made))["status"] == "paused"

    call(api, "PATCH", path_of(made), 200, {"description": "still failing"})
    assert call(api, "GET", path_of(made))["status"] == "paused"
    changed = call(api, "PATCH", path_of(made), 200, {"url": PUBLIC + "/new"})

    assert (changed["status"], changed["failures"]) == ("enabled", 0)


def test_endpoints_of_others_do_not_exist(api: ApiBench, engine: Engine) -> None:
    endpoint = register(api)
    _, stranger = make_client(engine, "stranger")
    paths = [
        ("GET", path_of(endpoint)),
        ("PATCH", path_of(endpoint)),
        ("DELETE", path_of(endpoint)),
        ("POST", path_of(endpoint, "enable")),
        ("POST", path_of(endpoint, "disable")),
        ("POST", path_of(endpoint, "ping")),
        ("POST", path_of(endpoint, "rotate-secret")),
        ("GET", path_of(endpoint, "deliveries")),
        ("GET", path_of(endpoint, "deliveries", "dlv_x")),
        ("POST", path_of(endpoint, "deliveries", "dlv_x", "resend")),
        ("POST", path_of(endpoint, "recover")),
    ]

    for method, path in paths:
        body = {"since": "2026-01-01T00:00:00Z"} if path.endswith("recover") else {}
        call(api, method, path, 404, body, key=stranger)
    assert call(api, "GET", "/v1/webhook-endpoints", key=stranger)["data"] == []
    assert call(api, "GET", path_of(endpoint))["status"] == "enabled"


def test_a_deleted_endpoint_is_gone_and_gets_nothing(api: ApiBench) -> None:
    with receiver() as there:
        endpoint = register(api, there.url)
        call(api, "POST", f"/v1/jobs/{api.submitted_id()}/cancel")
        place(api)
        call(api, "DELETE", path_of(endpoint), 204)
        deliver(api, endpoint["id"])

    assert there.seen == []
    call(api, "GET", path_of(endpoint), 404)
    call(api, "DELETE", path_of(endpoint), 404)


def test_a_ping_reports_what_came_of_it(api: ApiBench) -> None:
    with receiver(answers(200, body=b"pong")) as there:
        endpoint = register(api, there.url)
        report = call(api, "POST", path_of(endpoint, "ping"))

    assert (report["delivered"], report["status_code"], report["excerpt"]) == (True, 200, "pong")
    said = Webhook(endpoint["secret"]).verify(there.seen[0].body, there.seen[0].headers)
    assert said["type"] == "webhook.ping"
    report = call(api, "POST", path_of(endpoint, "ping"))
    assert (report["delivered"], report["error"]) == (False, "No connection could be made.")


def test_a_secret_is_rotated_with_both_signing_meanwhile(api: ApiBench) -> None:
    with receiver() as there:
        endpoint = register(api, there.url)
        rotated = call(api, "POST", path_of(endpoint, "rotate-secret"), 200, {"overlap_hours": 1})
        call(api, "POST", path_of(endpoint, "ping"))
        call(api, "POST", path_of(endpoint, "rotate-secret"), 200, {"overlap_hours": 0})
        call(api, "POST", path_of(endpoint, "ping"))

    for secret in (endpoint["secret"], rotated["secret"]):
        Webhook(secret).verify(there.seen[0].body, there.seen[0].headers)
    assert len(there.seen[1].headers["webhook-signature"].split()) == 1


def test_a_secret_that_can_not_be_read_any_more_is_told_and_rotated(api: ApiBench) -> None:
    with receiver() as there:
        endpoint = register(api, there.url)
        with transaction(api.engine) as connection:
            connection.execute(update(webhook_secrets).values(sealed=b"sealed with another key"))
        assert call(api, "POST", path_of(endpoint, "ping"), 409)["code"] == "signing_secret_unreadable"
        call(api, "POST", f"/v1/jobs/{api.submitted_id()}/cancel")
        deliver(api, endpoint["id"])
        (delivery,) = call(api, "GET", path_of(endpoint, "deliveries"))["data"]
        call(api, "POST", path_of(endpoint, "rotate-secret"))
        assert call(api, "POST", path_of(endpoint, "ping"))["delivered"]

    assert delivery["status"] == "pending"
    assert "Rotate it" in delivery["attempts"][0]["error"]
    assert len(there.seen) == 1


def test_a_jobs_own_address_is_told_of_its_end_and_the_job_shows_it(api: ApiBench) -> None:
    with receiver() as there:
        job_id = api.submitted_id(query={"webhook_url": there.url + "?order=7"})
        secret = call(api, "POST", "/v1/webhook-secret/rotate")["secret"]
        before = api.get(f"/v1/jobs/{job_id}")
        call(api, "POST", f"/v1/jobs/{job_id}/cancel")
        (endpoint,) = call(api, "GET", "/v1/webhook-endpoints")["data"]
        place(api)
        waiting = api.get(f"/v1/jobs/{job_id}")
        deliver(api, endpoint["id"])
        told = api.get(f"/v1/jobs/{job_id}")

    assert [seen.path for seen in there.seen] == ["/hook?order=7"]
    Webhook(secret).verify(there.seen[0].body, there.seen[0].headers)
    assert (endpoint["kind"], endpoint["url"]) == ("job_urls", there.url.removesuffix("/hook"))
    assert before.json["deliveries"] == []  # type: ignore[index]
    assert [one["status"] for one in waiting.json["deliveries"]] == ["pending"]  # type: ignore[index]
    (shown,) = told.json["deliveries"]  # type: ignore[index]
    assert (shown["status"], shown["attempts"], shown["event_type"]) == ("succeeded", 1, "job.canceled")
    story = call(api, "GET", f"/v1/jobs/{job_id}/timeline")["data"]
    assert [event["event"] for event in story] == ["accepted", "published", "canceled", "delivered"]
    assert (story[-1]["endpoint_id"], story[-1]["status_code"]) == (endpoint["id"], 200)
    assert len({before.headers["ETag"], waiting.headers["ETag"], told.headers["ETag"]}) == 3


def test_every_form_of_a_submission_may_name_an_address(api: ApiBench) -> None:
    multipart = api.call("POST", "/v1/jobs", **form(webhook_url=PUBLIC))

    assert multipart.status_code == 202, multipart.text
    assert multipart.json["webhook_url"] == PUBLIC  # type: ignore[index]


def test_erasing_a_job_forgets_its_address(api: ApiBench) -> None:
    job_id = api.submitted_id(query={"webhook_url": PUBLIC})
    call(api, "DELETE", f"/v1/jobs/{job_id}", 204)

    assert call(api, "GET", f"/v1/jobs/{job_id}")["webhook_url"] is None


def test_of_an_endpoint_for_job_urls_little_can_be_changed(api: ApiBench) -> None:
    api.submitted_id(query={"webhook_url": PUBLIC})
    (endpoint,) = call(api, "GET", "/v1/webhook-endpoints")["data"]

    assert call(api, "PATCH", path_of(endpoint), 409, {"url": PUBLIC})["code"] == "endpoint_not_registered"
    for action in ("ping", "disable"):
        assert call(api, "POST", path_of(endpoint, action), 409)["code"] == "endpoint_not_registered"
    assert call(api, "PATCH", path_of(endpoint), 200, {"payload": "full"})["payload"] == "full"


def test_there_is_an_end_to_endpoints(api: ApiBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.routes.webhook_endpoints.MOST_ENDPOINTS", 2)
    register(api)
    register(api)

    assert call(api, "POST", "/v1/webhook-endpoints", 409, {"url": PUBLIC})["code"] == "endpoint_limit"


def test_a_batchs_own_address_is_told_of_its_end_alone(api: ApiBench) -> None:
    with receiver() as there:
        batch = create(api, webhook_url=there.url)
        (endpoint,) = call(api, "GET", "/v1/webhook-endpoints")["data"]
        end_all(api, batch["id"])
        assert follow(api) == 1
        deliver(api, endpoint["id"])
        told = [event["type"] for event in call(api, "GET", "/v1/events")["data"]]

    (said,) = [json.loads(seen.body) for seen in there.seen]
    assert told == ["job.failed"] * 3 + ["batch.completed"]
    assert (said["type"], said["data"]["batch_id"], said["data"]["counts"]["failed"]) == (told[-1], batch["id"], 3)
    assert said["data"]["links"] == {"batch": f"/v1/batches/{batch['id']}"}
    assert batch["webhook_url"] == there.url


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_batchs_address_is_looked_at(api: ApiBench, dry_run: bool) -> None:
    problem = create(api, status=422, webhook_url="https://10.0.0.1/", dry_run=dry_run)

    assert problem["errors"][0]["pointer"] == "/webhook_url"
