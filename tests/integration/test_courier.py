"""Events get their place and reach whoever wants them; workers are called for what is due."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from shared.clock import utc_now
from shared.database.batches import cancel_waiting
from shared.database.deliveries import find_due
from shared.database.delivery_log import sweep_endpoints, sweep_events
from shared.database.engine import transaction
from shared.database.events import list_events, place_events
from shared.database.jobs import cancel_job, claim_job, erase_job, fail_job, release_job
from shared.database.operating import Selection, fail_jobs
from shared.database.recovery import expire_due, find_abandoned, take_back
from shared.domain.errors import DatabaseUnavailableError
from shared.domain.job import JobErrorCode, WaitingOn
from shared.domain.webhook import EventType
from shared.queues import QueueName, TaskName
from shared.settings import Settings
from tests.factories import make_account, make_client
from tests.integration.webhook_bench import WebhookBench
from worker.deliveries import Courier
from worker.quota_watch import QuotaWatch


@pytest.fixture
def bench(settings: Settings, engine: Engine) -> WebhookBench:
    return WebhookBench(settings, engine)


class Broker:
    """Remembers what was sent, or takes nothing."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.sent: list[tuple[TaskName, QueueName, dict[str, str]]] = []
        self.is_away = is_away

    def publish(self, task: TaskName, queue: QueueName, **arguments: str) -> bool:
        if not self.is_away:
            self.sent.append((task, queue, arguments))
        return not self.is_away


def courier(bench: WebhookBench, broker: Broker) -> Courier:
    return Courier(engine=bench.engine, publisher=broker, clock=bench.clock)  # type: ignore[arg-type]


def types(bench: WebhookBench) -> list[str]:
    return [event.type.value for event in bench.events()]


def claim(bench: WebhookBench, job_id: str) -> None:
    now = bench.clock()
    with transaction(bench.engine) as connection:
        assert claim_job(connection, job_id, token="t", worker="w", now=now, lease_until=now)


def test_every_way_to_end_writes_its_event(bench: WebhookBench) -> None:
    now = bench.clock()
    bench.succeeded()
    failed, poisoned, expired, erased, ended = (bench.job(expires_at=now) for _ in range(5))
    claim(bench, failed.id)
    claim(bench, poisoned.id)
    with transaction(bench.engine) as connection:
        fail_job(connection, failed.id, "t", error=JobErrorCode.BLURRED, now=now, count_failure=True)
        bench.clock.forward(seconds=1)
        (abandoned,) = find_abandoned(connection, bench.clock(), most=9)
        take_back(connection, abandoned, bench.clock(), crashed=True, poisons=True)
        erase_job(connection, erased.id, client_id=bench.client_id, now=now)
        fail_jobs(connection, Selection(ids=[ended.id]), now)
        expire_due(connection, now, most=9)
    bench.canceled()

    told = {event.job_id: (event.type, event.data.get("error_code")) for event in bench.events()}
    assert told[failed.id] == (EventType.JOB_FAILED, "blurred")
    assert told[poisoned.id] == (EventType.JOB_FAILED, "poisoned")
    assert told[erased.id] == (EventType.JOB_CANCELED, "canceled")
    assert told[ended.id] == (EventType.JOB_FAILED, "failed_by_operator")
    assert told[expired.id] == (EventType.JOB_EXPIRED, "expired")
    assert len(told) == 7


def test_items_of_a_canceled_batch_are_told_one_by_one(bench: WebhookBench) -> None:
    jobs = [bench.job(batch_id="bat_" + "1" * 26, item_number=number) for number in range(1, 4)]
    with transaction(bench.engine) as connection:
        cancel_waiting(connection, "bat_" + "1" * 26, bench.clock(), most=10)

    assert {event.job_id for event in bench.events()} == {job.id for job in jobs}
    assert {event.data["batch_id"] for event in bench.events()} == {"bat_" + "1" * 26}


def test_steps_are_written_only_for_who_asks(bench: WebhookBench) -> None:
    claim(bench, bench.job().id)
    assert types(bench) == []
    endpoint = bench.register("https://cards.example/", event_types=["job.started", "job.parked"])

    job = bench.job()
    claim(bench, job.id)
    for waiting_on in (WaitingOn.UPSTREAM_DAILY_QUOTA, WaitingOn.RETRY_BACKOFF):
        with transaction(bench.engine) as connection:
            release_job(
                connection, job.id, "t", waiting_on=waiting_on, not_before=None, count_failure=False, now=bench.clock()
            )
        claim(bench, job.id)

    assert types(bench) == ["job.started", "job.parked"]
    assert [delivery.event_type for delivery in bench.log(endpoint)] == ["job.started", "job.parked"]


@pytest.mark.parametrize(
    ("filters", "is_told"),
    [
        ({}, True),
        ({"event_types": ["job.canceled"]}, True),
        ({"event_types": ["job.failed"]}, False),
        ({"document_types": ["id_card", "bank_card"]}, True),
        ({"document_types": ["bank_card"]}, False),
        ({"batch_id": "bat_" + "1" * 26}, True),
        ({"batch_id": "bat_" + "2" * 26}, False),
    ],
)
def test_an_endpoint_gets_what_it_wants(bench: WebhookBench, filters: dict[str, Any], is_told: bool) -> None:
    endpoint = bench.register("https://cards.example/", **filters)
    bench.canceled(batch_id="bat_" + "1" * 26, item_number=1)
    bench.place()

    assert len(bench.log(endpoint)) == int(is_told)


def test_what_concerns_everybody_is_told_to_everybody_once(bench: WebhookBench, engine: Engine) -> None:
    other, _ = make_client(engine, "other")
    mine, theirs = bench.register("https://a.example/"), bench.register("https://b.example/", client_id=other)
    account = make_account(engine, bench.settings, "http://provider.invalid")
    bench.sql(
        "INSERT INTO account_quotas (account_id, endpoint, qps, day_limit) VALUES (:id, 'idcard', 2, 10)", id=account
    )
    watch = QuotaWatch(engine=engine, clock=bench.clock, zone=bench.settings.quota_zone)
    assert watch.look() == 0
    job = bench.job()
    for number in range(8):
        bench.sql(
            "INSERT INTO attempts (id, job_id, number, account_id, endpoint, quota_day, throttle_ms, started_at)"
            " VALUES (:id, :job, :number, :account, 'idcard', '2026-11-23', 0, now())",
            id=f"att_{number}", job=job.id, number=number, account=account,
        )  # fmt: skip
    assert watch.look() == 1
    assert watch.look() == 1
    bench.place()

    for endpoint in (mine, theirs):
        assert [delivery.event_type for delivery in bench.log(endpoint)] == [EventType.QUOTA_WARNING]
    (event,) = bench.events(other)
    assert event.data == {"account": "sandbox", "endpoint": "idcard", "quota": "day", "used": 8, "limit": 10}


def test_placing_twice_delivers_once(bench: WebhookBench) -> None:
    endpoint = bench.register("https://cards.example/")
    bench.canceled()
    bench.place()
    bench.sql("UPDATE events SET position = NULL")
    bench.place()

    assert len(bench.log(endpoint)) == 1


def test_an_event_that_becomes_visible_late_is_read_all_the_same(bench: WebhookBench, engine: Engine) -> None:
    """Ids are made before the commit: a reader must not have gone past one that was not there yet."""
    early = bench.job()
    held, committed = threading.Event(), threading.Event()

    def end_slowly() -> None:
        with transaction(engine) as connection:
            cancel_job(connection, early.id, client_id=bench.client_id, now=bench.clock())
            held.set()
            committed.wait(10)

    slow = threading.Thread(target=end_slowly)
    slow.start()
    held.wait(10)
    late = bench.canceled()
    (first,) = bench.events()
    committed.set()
    slow.join()
    (second,) = bench.events(after=first.position or 0)

    assert (first.job_id, second.job_id) == (late.id, early.id)
    assert second.id < first.id


def test_only_one_places_at_a_time(bench: WebhookBench, engine: Engine) -> None:
    bench.canceled()
    with transaction(engine) as one:
        assert place_events(one, bench.clock(), most=10) is not None
        with transaction(engine) as other:
            assert place_events(other, bench.clock(), most=10) is None
    with transaction(engine) as connection:
        assert len(list_events(connection, bench.client_id, after=0, limit=10)) == 1


def test_a_worker_is_called_once_for_many_deliveries_of_an_endpoint(bench: WebhookBench) -> None:
    endpoint = bench.register("https://cards.example/")
    for _ in range(5):
        bench.canceled()
    broker = Broker()
    sender = courier(bench, broker)
    sender.round()
    sender.round()

    assert broker.sent == [(TaskName.DELIVER, QueueName.WEBHOOKS, {"endpoint_id": endpoint.id})]


def test_a_call_that_was_lost_is_made_again(bench: WebhookBench) -> None:
    bench.register("https://cards.example/")
    bench.canceled()
    courier(bench, Broker(is_away=True)).round()
    broker = Broker()
    sender = courier(bench, broker)
    sender.round()
    assert broker.sent == []

    bench.clock.forward(seconds=6)
    sender.round()
    assert len(broker.sent) == 1


def test_nobody_is_called_for_an_endpoint_that_is_paused_disabled_or_deleted(bench: WebhookBench) -> None:
    for column, value in (("paused_until", "'2027-01-01'"), ("deleted_at", "now()"), ("disabled_at", "now()")):
        endpoint = bench.register(f"https://{column.replace('_', '-')}.example/")
        bench.canceled()
        bench.place()
        reason = ", disabled_reason = 'client'" if column == "disabled_at" else ""
        bench.sql(f"UPDATE webhook_endpoints SET {column} = {value}{reason} WHERE id = :id", id=endpoint.id)

    assert bench.due() == []


def test_due_endpoints_are_all_found_however_many_deliveries_wait(bench: WebhookBench) -> None:
    endpoints = [bench.register(f"https://e{number}.example/") for number in range(30)]
    for _ in range(3):
        bench.canceled()
    bench.place()

    with transaction(bench.engine) as connection:
        first = find_due(connection, bench.clock(), most=20)
        second = find_due(connection, bench.clock(), most=20)

    assert len(first) == 20
    assert {*first, *second} == {endpoint.id for endpoint in endpoints}


def test_the_courier_outlives_an_outage_and_a_defect(bench: WebhookBench, monkeypatch: pytest.MonkeyPatch) -> None:
    sender, stopping = courier(bench, Broker()), threading.Event()
    troubles: list[Exception] = [DatabaseUnavailableError("away"), ZeroDivisionError()]

    def round_() -> bool:
        if troubles:
            raise troubles.pop(0)
        stopping.set()
        return False

    monkeypatch.setattr(sender, "round", round_)
    monkeypatch.setattr(stopping, "wait", lambda _seconds: None)
    sender.run(stopping)

    assert troubles == []


def test_what_is_not_sent_is_told_to_the_operator(bench: WebhookBench) -> None:
    assert "webhooks" not in {trouble.what for trouble in bench.troubles()}
    endpoint = bench.register("https://a.example/")
    bench.canceled()
    bench.clock.forward(minutes=3)
    unplaced = {trouble.what: trouble.seen for trouble in bench.troubles()}
    bench.clock.forward(minutes=-3)
    bench.place()
    bench.clock.forward(minutes=4)
    unsent = {trouble.what: trouble.seen for trouble in bench.troubles()}
    bench.sql("UPDATE webhook_endpoints SET failures = 1 WHERE id = :id", id=endpoint.id)

    assert "180 s ago" in unplaced["webhooks"]
    assert "240 s ago" in unsent["webhooks"]
    assert "webhooks" not in {trouble.what for trouble in bench.troubles()}


def test_old_events_and_deleted_endpoints_are_swept(bench: WebhookBench) -> None:
    kept, gone = bench.register("https://a.example/"), bench.register("https://b.example/")
    bench.canceled()
    bench.place()
    bench.sql("UPDATE webhook_endpoints SET deleted_at = now() WHERE id = :id", id=gone.id)
    with transaction(bench.engine) as connection:
        assert sweep_events(connection, utc_now() - timedelta(days=1), most=10) == 0
        assert sweep_endpoints(connection, most=10) == 2
        assert sweep_endpoints(connection, most=10) == 0
    assert len(bench.log(kept)) == 1
    with transaction(bench.engine) as connection:
        assert sweep_events(connection, utc_now() + timedelta(seconds=1), most=10) == 1
    assert bench.log(kept) == []
