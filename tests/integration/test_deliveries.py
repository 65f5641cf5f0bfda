"""Deliveries: never lost, never twice after success, never in each other's way."""

import json
import re
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from sqlalchemy import Engine
from standardwebhooks import Webhook

from shared.database.endpoints import enable_endpoint, rotate_secret
from shared.database.engine import transaction
from shared.database.jobs import erase_job
from shared.domain.webhook import RETRY_DELAYS, DeliveryStatus, DisabledReason, EventType, Outcome, Payload
from shared.sending import Sender
from shared.settings import Settings
from tests.fakes import FakeClock
from tests.integration.webhook_bench import FIELD, WebhookBench
from tests.receivers import (
    Behavior,
    answers,
    answers_as,
    cuts_off,
    drips_body,
    drips_headers,
    floods,
    floods_headers,
    hangs,
    hangs_up,
    receiver,
    redirects,
    speaks_no_http,
)


@pytest.fixture
def bench(settings: Settings, engine: Engine) -> WebhookBench:
    return WebhookBench(settings, engine)


def test_the_end_of_a_job_is_told_once_thin_and_signed(bench: WebhookBench) -> None:
    with receiver() as there:
        endpoint = bench.register(there.url)
        bench.clock.now = datetime.now(UTC)
        job = bench.succeeded(client_reference_id="测样丽")

        assert bench.deliver(endpoint) == 1
        assert bench.deliver(endpoint) == 0

    (request,) = there.seen
    said = Webhook(bench.secret).verify(request.body, request.headers)
    assert said == json.loads(request.body)
    assert said["type"] == "job.succeeded"
    assert datetime.fromisoformat(said["timestamp"]) == bench.clock()
    assert said["data"] == {
        "job_id": job.id,
        "status": "succeeded",
        "document_type": "id_card",
        "links": {"job": f"/v1/jobs/{job.id}", "result": f"/v1/jobs/{job.id}/result"},
    }
    assert "测样丽" not in request.body.decode()
    assert request.headers["content-type"] == "application/json"
    (delivery,) = bench.log(endpoint)
    assert (delivery.status, delivery.job_id) == (DeliveryStatus.SUCCEEDED, job.id)
    assert [attempt["status_code"] for attempt in delivery.attempts] == [200]


def test_a_full_payload_holds_the_fields(bench: WebhookBench) -> None:
    with receiver() as there:
        endpoint = bench.register(there.url, payload=Payload.FULL)
        bench.succeeded(client_reference_id="order-7", metadata={"desk": "3"})
        bench.deliver(endpoint)

    data = json.loads(there.seen[0].body)["data"]
    assert data["fields"] == {"name": FIELD}
    assert (data["client_reference_id"], data["metadata"], data["checks"]) == ("order-7", {"desk": "3"}, [])


def test_deliveries_of_one_endpoint_share_a_connection(bench: WebhookBench) -> None:
    with receiver() as there:
        endpoint = bench.register(there.url)
        for _ in range(5):
            bench.canceled()
        bench.deliver(endpoint)

    assert len(there.seen) == 5
    assert len(there.connections) == 1
    assert there.event_ids == sorted(there.event_ids)


def test_a_connection_the_receiver_closed_costs_no_attempt(bench: WebhookBench) -> None:
    def closes(handler: BaseHTTPRequestHandler) -> None:
        answers(200)(handler)
        handler.close_connection = True  # without saying so

    with receiver(closes) as there:
        endpoint = bench.register(there.url)
        for _ in range(4):
            bench.canceled()
        bench.deliver(endpoint)

    assert [delivery.status for delivery in bench.log(endpoint)] == [DeliveryStatus.SUCCEEDED] * 4
    assert [len(delivery.attempts) for delivery in bench.log(endpoint)] == [1] * 4


def test_a_failed_delivery_is_tried_by_the_schedule_under_one_id(bench: WebhookBench) -> None:
    waits = []
    with receiver(answers(500, body=b"out of order")) as there:
        endpoint = bench.register(there.url)
        bench.canceled()
        for _ in range(len(RETRY_DELAYS)):
            assert bench.deliver(endpoint) == 1
            waits.append(bench.forward_to_next(endpoint))
        assert bench.deliver(endpoint) == 1

    (delivery,) = bench.log(endpoint)
    assert delivery.status is DeliveryStatus.FAILED
    assert len(set(there.event_ids)) == 1
    assert len(there.seen) == len(delivery.attempts) == 10
    assert len({request.headers["webhook-timestamp"] for request in there.seen}) > 5
    assert {attempt["excerpt"] for attempt in delivery.attempts} == {"out of order"}
    # An endpoint that fails five times in a row has a pause of its own, which may be the longer one.
    for wait, planned in zip(waits[:4], RETRY_DELAYS, strict=False):
        assert planned * 0.8 <= wait <= planned * 1.2
    assert timedelta(days=2.5) < sum(waits, timedelta(0)) < timedelta(days=4)


@pytest.mark.parametrize(
    ("behavior", "error"),
    [
        (answers(500), "HTTP 500"),
        (answers(404), "HTTP 404"),
        (answers(799), "HTTP 799"),
        (answers(503, {"Retry-After": "-5, soon"}), "HTTP 503"),
        (answers(503, {"Retry-After": "Wed, 21 Oct 2099 07:28:00 -0000", "Date": "never"}), "HTTP 503"),
        (redirects("http://169.254.169.254/latest/meta-data"), "Redirects are not followed"),
        (hangs_up, "without an answer"),
        (speaks_no_http, "no HTTP"),
        (floods_headers, "exchange failed|no HTTP|without an answer"),
        (hangs, "No complete answer within"),
        (drips_headers, "No complete answer within"),
        (drips_body, "No complete answer within"),
    ],
    ids=lambda value: getattr(value, "__name__", "") or None,
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hostile_answers_are_failures_in_good_time(
    settings: Settings, engine: Engine, behavior: Behavior, error: str
) -> None:
    bench = WebhookBench(settings, engine, webhook_timeout_seconds=0.6)
    with receiver(behavior) as there:
        endpoint = bench.register(there.url)
        bench.canceled()
        bench.deliver(endpoint)

    (delivery,) = bench.log(endpoint)
    assert delivery.status is DeliveryStatus.PENDING
    assert delivery.next_attempt_at > bench.clock()
    assert re.search(error, delivery.attempts[0]["error"]), delivery.attempts
    assert bench.read(endpoint).health.failures == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("behavior", "excerpt"), [(floods, "x" * 500), (cuts_off, "half")])
def test_a_status_counts_though_nobody_wants_all_of_the_body(
    bench: WebhookBench, behavior: Behavior, excerpt: str
) -> None:
    with receiver(behavior) as there:
        endpoint = bench.register(there.url)
        bench.canceled()
        bench.deliver(endpoint)

    (delivery,) = bench.log(endpoint)
    assert delivery.status is DeliveryStatus.SUCCEEDED
    assert delivery.attempts[0]["excerpt"] == excerpt


def test_a_closed_door_is_told(bench: WebhookBench) -> None:
    with receiver() as there:
        endpoint = bench.register(there.url)
    bench.canceled()
    bench.deliver(endpoint)

    assert "No connection could be made" in bench.log(endpoint)[0].attempts[0]["error"]


@pytest.mark.parametrize(("asked", "waited"), [("7200", 7200), ("999999999", 86_400)])
def test_a_failure_may_ask_for_a_later_attempt_within_a_day(bench: WebhookBench, asked: str, waited: int) -> None:
    with receiver(answers(503, {"Retry-After": asked})) as there:
        endpoint = bench.register(there.url)
        bench.canceled()
        bench.deliver(endpoint)

    assert bench.forward_to_next(endpoint) == timedelta(seconds=waited)


def test_410_disables_the_endpoint_and_its_owner_is_told(bench: WebhookBench) -> None:
    with receiver(answers(410)) as there, receiver() as other:
        endpoint, witness = bench.register(there.url), bench.register(other.url)
        bench.canceled()
        bench.deliver(endpoint)
        bench.canceled()
        bench.deliver(endpoint)
        bench.deliver(witness)

    assert len(there.seen) == 1
    assert bench.read(endpoint).disabled_reason is DisabledReason.GONE
    told = [json.loads(request.body) for request in other.seen]
    assert sorted(event["type"] for event in told) == ["endpoint.disabled", "job.canceled", "job.canceled"]
    (news,) = [event["data"] for event in told if event["type"] == "endpoint.disabled"]
    assert (news["endpoint_id"], news["reason"]) == (endpoint.id, "gone")
    assert EventType.ENDPOINT_DISABLED in {event.type for event in bench.events()}


def test_a_job_erased_after_the_claim_is_not_sent_with_its_fields(
    bench: WebhookBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver() as there:
        endpoint = bench.register(there.url, payload=Payload.FULL)
        first, second = bench.succeeded(), bench.succeeded()
        send = Sender.send

        def erase_the_other(sender: Sender, *arguments: Any) -> Outcome:
            with transaction(bench.engine) as connection:
                erase_job(connection, second.id, client_id=bench.client_id, now=bench.clock())
            return send(sender, *arguments)

        monkeypatch.setattr(Sender, "send", erase_the_other)
        bench.deliver(endpoint)

    assert [json.loads(seen.body)["data"]["job_id"] for seen in there.seen] == [first.id]
    assert [delivery.status for delivery in bench.log(endpoint)] == [DeliveryStatus.SUCCEEDED, DeliveryStatus.CANCELED]


def test_days_of_failure_disable_and_enabling_brings_everything(bench: WebhookBench) -> None:
    status = [500]
    with receiver(answers_as(status)) as there:
        endpoint = bench.register(there.url)
        bench.canceled()
        bench.deliver(endpoint)
        for _ in range(30):
            bench.clock.forward(hours=5)
            bench.canceled()
            bench.deliver(endpoint)
            if bench.read(endpoint).disabled_at:
                break
        assert bench.read(endpoint).disabled_reason is DisabledReason.FAILING
        assert bench.clock() - FakeClock().now >= timedelta(days=5)
        assert bench.deliver(endpoint) == 0

        status[0] = 200
        with transaction(bench.engine) as connection:
            enable_endpoint(connection, endpoint.id, client_id=bench.client_id)
        before = len(there.seen)
        bench.clock.forward(days=2)
        bench.deliver(endpoint)

    assert len(there.seen) > before


def test_both_secrets_sign_while_one_is_rotated(bench: WebhookBench) -> None:
    bench.clock.now = datetime.now(UTC)
    with receiver() as there:
        endpoint = bench.register(there.url)
        before = bench.secret
        with transaction(bench.engine) as connection:
            after = rotate_secret(
                connection, endpoint.id, bench.settings.require_secret_key(),
                previous_until=bench.clock() + timedelta(hours=24),
            )  # fmt: skip
        bench.canceled()
        bench.deliver(endpoint)
        bench.clock.forward(hours=25)
        bench.canceled()
        bench.deliver(endpoint)

    first, second = there.seen
    for secret in (before, after):
        Webhook(secret).verify(first.body, first.headers)
    assert len(second.headers["webhook-signature"].split()) == 1


def test_an_erased_job_is_not_told_any_more_and_answers_about_it_are_forgotten(bench: WebhookBench) -> None:
    with receiver(answers(500, body="测样丽".encode())) as there:
        endpoint = bench.register(there.url, payload=Payload.FULL)
        job = bench.succeeded()
        bench.deliver(endpoint)
        assert bench.log(endpoint)[0].attempts[0]["excerpt"] == "测样丽"

        with transaction(bench.engine) as connection:
            erase_job(connection, job.id, client_id=bench.client_id, now=bench.clock())
        bench.clock.forward(days=1)
        bench.deliver(endpoint)

    assert len(there.seen) == 1
    (delivery,) = bench.log(endpoint)
    assert delivery.status is DeliveryStatus.CANCELED
    assert "excerpt" not in delivery.attempts[0]
