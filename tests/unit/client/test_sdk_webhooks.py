"""`client.webhooks`: what is asked of the API, and what is verified."""

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from kazheng import ApiUnreachableError, AsyncClient, WebhookVerificationError
from kazheng.webhooks import Endpoint, verify
from shared.domain.webhook import new_secret, sign
from tests.unit.client.api_double import ScriptedApi, answer, problem

ENDPOINT = {"id": "whe_1", "url": "https://shop.example/", "status": "enabled", "event_types": ["job.failed"]}
BODY = b'{"type":"job.succeeded","timestamp":"2026-11-24T00:00:00Z","data":{"job_id":"job_1"}}'


def asked(api: ScriptedApi) -> Any:
    return json.loads(api.requests[-1].content)


def test_an_endpoint_is_registered_with_what_was_given_alone() -> None:
    api = ScriptedApi([answer(201, {**ENDPOINT, "secret": "whsec_x"})])

    endpoint = api.client().webhooks.create("https://shop.example/", event_types=("job.failed",))

    assert asked(api) == {"url": "https://shop.example/", "event_types": ["job.failed"]}
    assert (endpoint.id, endpoint.secret, endpoint.event_types) == ("whe_1", "whsec_x", ("job.failed",))
    assert "whsec_x" not in repr(endpoint)


@pytest.mark.parametrize("call", ["create", "rotate_secret", "trigger"])
def test_what_would_do_a_second_thing_is_sent_once(call: str) -> None:
    api = ScriptedApi([httpx.ReadTimeout("nothing came")])

    with pytest.raises(ApiUnreachableError):
        getattr(api.client().webhooks, call)("whe_1")

    assert len(api.requests) == 1


def test_everything_else_is_sent_again() -> None:
    api = ScriptedApi([problem(503, "database_unavailable"), answer(200, ENDPOINT)])

    assert api.client().webhooks.enable("whe_1").status == "enabled"
    assert api.paths == ["POST /v1/webhook-endpoints/whe_1/enable"] * 2


def test_a_long_recovery_is_asked_for_until_it_is_complete() -> None:
    steps = [{"recovered": 500, "next": "17"}, {"recovered": 3, "next": None}]
    api = ScriptedApi([answer(202, step) for step in steps])

    assert api.client().webhooks.recover("whe_1", datetime(2026, 11, 23, tzinfo=UTC)) == 503
    assert [json.loads(request.content) for request in api.requests] == [
        {"since": "2026-11-23T00:00:00+00:00"},
        {"since": "2026-11-23T00:00:00+00:00", "after": "17"},
    ]


def test_lists_go_on_over_pages() -> None:
    pages = [{"data": [ENDPOINT], "next": "whe_1"}, {"data": [{**ENDPOINT, "id": "whe_0"}], "next": None}]
    api = ScriptedApi([answer(200, page) for page in pages])

    assert [endpoint.id for endpoint in api.client().webhooks.list()] == ["whe_1", "whe_0"]
    assert api.paths[1] == "GET /v1/webhook-endpoints?limit=100&after=whe_1"


def test_deliveries_are_filtered() -> None:
    api = ScriptedApi([answer(200, {"data": [{"id": "dlv_1"}], "next": None})])

    assert [one["id"] for one in api.client().webhooks.deliveries("whe_1", status="failed")] == ["dlv_1"]
    assert api.paths == ["GET /v1/webhook-endpoints/whe_1/deliveries?status=failed&limit=100"]


def test_pulled_events_come_with_the_place_after_them() -> None:
    event = {"id": "evt_1", "type": "job.failed", "timestamp": "2026-11-24T00:00:00Z", "data": {"job_id": "job_1"}}
    api = ScriptedApi([answer(200, {"data": [event], "next": "17"})])

    (found,), place = api.client().webhooks.events("16", types=["job.failed"])

    assert (found.id, found.type, found.data["job_id"], place) == ("evt_1", "job.failed", "job_1", "17")
    assert "job_1" not in repr(found)
    assert api.paths == ["GET /v1/events?payload=thin&after=16&types=job.failed"]


def test_the_rest_asks_what_it_says() -> None:
    replies = [answer(200, ENDPOINT)] * 3 + [answer(200, {"delivered": True}), answer(200, {"secret": "whsec_y"})]
    api = ScriptedApi([*replies, answer(200, {"id": "dlv_1"}), answer(202, {"id": "evt_1"}), answer(204)])
    webhooks = api.client().webhooks

    webhooks.get("whe/1")
    webhooks.update("whe_1", payload="full")
    webhooks.disable("whe_1")
    webhooks.ping("whe_1")
    assert webhooks.rotate_secret() == "whsec_y"
    webhooks.resend("whe_1", "dlv_1")
    assert webhooks.trigger("job.failed", "job_1") == "evt_1"
    webhooks.delete("whe_1")

    assert api.paths == [
        "GET /v1/webhook-endpoints/whe%2F1",
        "PATCH /v1/webhook-endpoints/whe_1",
        "POST /v1/webhook-endpoints/whe_1/disable",
        "POST /v1/webhook-endpoints/whe_1/ping",
        "POST /v1/webhook-secret/rotate",
        "POST /v1/webhook-endpoints/whe_1/deliveries/dlv_1/resend",
        "POST /v1/events",
        "DELETE /v1/webhook-endpoints/whe_1",
    ]


def test_a_job_and_a_batch_may_name_an_address() -> None:
    api = ScriptedApi([answer(202, {"id": "job_1", "status": "queued"})])
    api.client().submit(b"x", document_type="id_card", webhook_url="https://shop.example/")
    assert b"https://shop.example/" in api.requests[0].content

    api = ScriptedApi([answer(202, {"id": "bat_1", "status": "open"})])
    api.client().batches.create(document_type="id_card", webhook_url="https://shop.example/")
    assert json.loads(api.requests[0].content)["webhook_url"] == "https://shop.example/"


def signed(secret: str, body: bytes = BODY) -> dict[str, str]:
    now = int(time.time())
    return {
        "Webhook-Id": "evt_1",
        "WEBHOOK-TIMESTAMP": str(now),
        "webhook-signature": sign([secret], "evt_1", now, body),
    }


def test_the_clients_own_secret_verifies() -> None:
    secret = new_secret()
    client = ScriptedApi([answer(200)]).client(webhook_secret=secret)

    event = client.webhooks.verify(signed(secret), BODY)

    assert (event.id, event.type, event.data) == ("evt_1", "job.succeeded", {"job_id": "job_1"})
    assert event.timestamp == datetime(2026, 11, 24, tzinfo=UTC)


def test_without_a_secret_nothing_is_verified() -> None:
    client = ScriptedApi([answer(200)]).client()

    with pytest.raises(ValueError, match="webhook_secret"):
        client.webhooks.verify({}, b"")
    for none in ("not base64!", "", "whsec_", ["whsec_"]):
        with pytest.raises(ValueError, match="whsec_"):
            verify(signed(new_secret()), BODY, none)


@pytest.mark.parametrize(
    "change",
    [
        {"Webhook-Id": ""},
        {"WEBHOOK-TIMESTAMP": "now"},
        {"WEBHOOK-TIMESTAMP": "-5"},
        {"WEBHOOK-TIMESTAMP": "9" * 400},
        {"webhook-signature": "v2,xxx"},
        {"webhook-signature": "ü"},
    ],
)
def test_headers_that_make_no_sense_are_refused(change: dict[str, str]) -> None:
    secret = new_secret()

    with pytest.raises(WebhookVerificationError):
        verify(signed(secret) | change, BODY, secret)


def test_a_signed_body_that_is_no_json_is_refused() -> None:
    secret = new_secret()

    with pytest.raises(WebhookVerificationError, match="no JSON"):
        verify(signed(secret, b"hello"), b"hello", secret)


def test_the_same_calls_are_awaited() -> None:
    event = {"id": "evt_1", "type": "job.failed", "data": {}}
    api = ScriptedApi(
        [answer(201, ENDPOINT), answer(200, ENDPOINT), answer(200, {"delivered": True}), answer(202, {"recovered": 1}),
         answer(200, {"data": [event], "next": "1"}), answer(204)]
    )  # fmt: skip

    async def use() -> tuple[Endpoint, str]:
        transport = httpx.MockTransport(api)
        async with AsyncClient("kz_test", "http://api.test", transport=transport) as client:
            endpoint = await client.webhooks.create("https://shop.example/")
            await client.webhooks.get(endpoint.id)
            assert (await client.webhooks.ping(endpoint.id))["delivered"]
            assert await client.webhooks.recover(endpoint.id, datetime(2026, 11, 23, tzinfo=UTC)) == 1
            _, place = await client.webhooks.events()
            await client.webhooks.delete(endpoint.id)
            return endpoint, place

    endpoint, place = asyncio.run(use())

    assert (endpoint.id, place) == ("whe_1", "1")
