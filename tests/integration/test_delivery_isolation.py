"""Pauses, shares and leases: an endpoint that does badly costs itself, not the others."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from shared.database.deliveries import claim_portion, take_back_lost
from shared.database.engine import transaction
from shared.domain.webhook import DeliveryStatus
from shared.settings import Settings
from tests.integration.webhook_bench import WebhookBench
from tests.receivers import (
    answers,
    answers_as,
    hangs,
    receiver,
)


@pytest.fixture
def bench(settings: Settings, engine: Engine) -> WebhookBench:
    return WebhookBench(settings, engine)


def test_five_failures_in_a_row_open_the_breaker_which_costs_no_attempt(bench: WebhookBench) -> None:
    with receiver(answers(500)) as there:
        endpoint = bench.register(there.url)
        for _ in range(20):
            bench.canceled()
        for _ in range(5):
            bench.deliver(endpoint)
        assert bench.deliver(endpoint) == 0
        assert bench.due() == []
        assert len(there.seen) == 5

        pauses = []
        for _ in range(7):
            pauses.append(bench.forward_to_next(endpoint).total_seconds())
            assert bench.deliver(endpoint) == 1

    assert pauses == [30, 60, 120, 240, 480, 600, 600]
    spent = [len(delivery.attempts) for delivery in bench.log(endpoint)]
    assert sum(spent) == 12
    assert bench.read(endpoint).disabled_at is None


def test_a_breaker_closes_with_the_first_success(bench: WebhookBench) -> None:
    status = [500]
    with receiver(answers_as(status)) as there:
        endpoint = bench.register(there.url)
        for _ in range(20):
            bench.canceled()
        for _ in range(5):
            bench.deliver(endpoint)
        status[0] = 200
        bench.forward_to_next(endpoint)
        bench.deliver(endpoint)

    assert len(there.seen) == 25
    assert bench.read(endpoint).health.failures == 0
    assert {delivery.status for delivery in bench.log(endpoint)} == {DeliveryStatus.SUCCEEDED}


def test_retry_after_is_honored_and_costs_no_attempt(bench: WebhookBench) -> None:
    with receiver(answers(429, {"Retry-After": "40"})) as there:
        endpoint = bench.register(there.url)
        bench.canceled()
        for _ in range(12):
            assert bench.deliver(endpoint) == 1
            assert bench.deliver(endpoint) == 0
            assert bench.forward_to_next(endpoint) == timedelta(seconds=40)

    assert bench.log(endpoint)[0].status is DeliveryStatus.PENDING


def test_a_jobs_own_address_that_is_gone_says_nothing_of_its_host(bench: WebhookBench) -> None:
    with receiver(answers(410)) as there:
        endpoint = bench.register(there.url, kind="job_urls")
        bench.sql("UPDATE webhook_secrets SET owner_id = :client", client=bench.client_id)
        for number in range(7):
            bench.canceled(webhook_url=f"{there.url}/{number}", webhook_endpoint_id=endpoint.id)
        while bench.deliver(endpoint):
            pass

    assert len(there.seen) == 7
    assert {delivery.status for delivery in bench.log(endpoint)} == {DeliveryStatus.FAILED}
    assert bench.read(endpoint).disabled_at is None
    assert bench.read(endpoint).health.failures == 0


def test_a_dead_workers_deliveries_are_sent_again_under_the_same_id(bench: WebhookBench) -> None:
    with receiver() as there:
        endpoint = bench.register(there.url)
        bench.canceled()
        bench.place()
        now = bench.clock()
        with transaction(bench.engine) as connection:
            portion = claim_portion(
                connection, endpoint.id, token="dead", now=now, lease_until=now + timedelta(seconds=60), most=20,
                at_a_time=4,
            )  # fmt: skip
        assert portion is not None
        assert bench.deliver(endpoint) == 0

        bench.clock.forward(seconds=61)
        with transaction(bench.engine) as connection:
            assert take_back_lost(connection, bench.clock()) == 1
        assert bench.deliver(endpoint) == 1

    assert there.event_ids == [portion.deliveries[0].event.id]


def test_an_endpoint_has_only_so_many_portions_under_way(bench: WebhookBench) -> None:
    endpoint = bench.register("https://cards.example/hook")
    for _ in range(100):
        bench.canceled()
    bench.place()
    now = bench.clock()

    def claims(token: str) -> bool:
        with transaction(bench.engine) as connection:
            portion = claim_portion(
                connection, endpoint.id, token=token, now=now, lease_until=now + timedelta(seconds=60), most=5,
                at_a_time=4,
            )  # fmt: skip
        return portion is not None

    assert [claims(f"first{number}") for number in range(2)] == [True, False]
    bench.sql("UPDATE webhook_endpoints SET succeeded_at = now()")
    assert [claims(str(number)) for number in range(5)] == [True] * 3 + [False] * 2
    bench.sql("UPDATE webhook_endpoints SET mean_ms = 5000")
    assert not claims("slow")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_endpoints_that_fail_hold_half_of_the_threads_at_most(settings: Settings, engine: Engine) -> None:
    bench = WebhookBench(settings, engine, webhook_threads=4, webhook_timeout_seconds=4)
    with receiver(hangs) as bad, receiver() as good:
        failing = [bench.register(bad.url) for _ in range(3)]
        healthy = bench.register(good.url)
        bench.sql("UPDATE webhook_endpoints SET failures = 1 WHERE url = :url", url=bad.url)
        bench.canceled()
        bench.place()
        threads = [threading.Thread(target=bench.service.deliver, args=(endpoint.id,)) for endpoint in failing[:2]]
        for thread in threads:
            thread.start()
        while len(bad.seen) < 2:
            threads[0].join(0.01)

        assert bench.service.deliver(failing[2].id) == 0
        assert bench.service.deliver(healthy.id) == 1
        for thread in threads:
            thread.join()

    (put_back,) = bench.log(failing[2])
    assert (put_back.status, put_back.attempts) == (DeliveryStatus.PENDING, [])
    bench.clock.forward(seconds=1)
    assert failing[2].id not in bench.due()
    bench.clock.forward(seconds=5)
    assert failing[2].id in bench.due()
