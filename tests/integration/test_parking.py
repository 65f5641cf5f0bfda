"""What stops an endpoint of an account stops no job for good: it waits in line, unharmed, and goes on by itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select

from shared.database.accounts import set_paused, set_quota
from shared.database.engine import transaction
from shared.database.stops import Stop, list_stops
from shared.database.tables import events
from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode, JobStatus, WaitingOn
from shared.domain.quota import SHANGHAI, Billing, Quota, StopReason, end_of_day
from shared.domain.retry import FailureKind
from shared.limits import keys
from shared.settings import Settings
from shared.storage import ImageStore
from tests.factories import make_account
from tests.fakes import FakeProvider, recognition
from tests.integration.recognition_bench import Bench

USED_UP = ProviderError(FailureKind.QUOTA_USED_UP, "error 17", upstream_code="17")
ALL_USED_UP = ProviderError(FailureKind.TOTAL_USED_UP, "error 19", upstream_code="19")
NO_PERMISSION = ProviderError(
    FailureKind.MISCONFIGURED, "error 6", upstream_code="6", error_code=JobErrorCode.PROVIDER_MISCONFIGURED
)
THROTTLED = ProviderError(FailureKind.THROTTLED, "error 18", upstream_code="18")
READ = recognition(name="测样丽")


@pytest.fixture
def bench(settings: Settings, engine: Engine, redis_client: Redis, store: ImageStore) -> Bench:
    bench = Bench(settings, engine, redis_client, store)
    # Stops end with the day of Valkey's clock, so ours must show the same.
    bench.clock.now = datetime.fromtimestamp(redis_client.time()[0], UTC)
    return bench


def stops(bench: Bench) -> list[Stop]:
    with transaction(bench.engine) as connection:
        return list_stops(connection)


def event_types(bench: Bench) -> list[str]:
    with transaction(bench.engine) as connection:
        return list(
            connection.execute(
                select(events.c.type).where(events.c.type.like("quota.%")).order_by(events.c.id)
            ).scalars()
        )


def run(bench: Bench, service: Any, jobs: int = 1) -> list[WaitingOn | None]:
    """What so many new jobs wait for after an attempt."""
    made = [bench.job() for _ in range(jobs)]
    for job in made:
        service.run_attempt(job.id)
    return [bench.read(job.id).waiting_on for job in made]


def second_account(bench: Bench, **changes: Any) -> str:
    account_id = make_account(bench.engine, bench.settings, "http://second.invalid", name="second", **changes)
    bench.redis.set(keys.pace(account_id, "idcard"), "1")
    return account_id


def test_error_17_stops_the_endpoint_until_the_day_turns_and_later_jobs_are_not_called_for(bench: Bench) -> None:
    provider = FakeProvider(USED_UP)

    waiting = run(bench, bench.service(provider), jobs=3)

    assert len(provider.calls) == 1
    assert waiting == [WaitingOn.UPSTREAM_DAILY_QUOTA] * 3
    assert [(stop.reason, stop.until) for stop in stops(bench)] == [
        (StopReason.DAILY_QUOTA, end_of_day(bench.clock.now.astimezone(SHANGHAI).date()))
    ]


def test_parking_loses_no_attempt_and_names_no_time_of_its_own(bench: Bench) -> None:
    job = bench.job()

    bench.service(FakeProvider(USED_UP)).run_attempt(job.id)

    parked = bench.read(job.id)
    assert (parked.status, parked.failed_attempts, parked.not_before) == (JobStatus.QUEUED, 0, None)


def test_a_parked_job_goes_on_when_the_day_has_turned(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider(USED_UP, READ)
    service = bench.service(provider)
    service.run_attempt(job.id)

    bench.clock.forward(hours=24)
    bench.accounts.lift_due()
    service.run_attempt(job.id)

    assert bench.read(job.id).status is JobStatus.SUCCEEDED
    assert event_types(bench) == ["quota.exhausted", "quota.restored"]


def test_exhaustion_is_told_once_however_many_jobs_find_it(bench: Bench) -> None:
    with transaction(bench.engine) as connection:
        set_quota(connection, "sandbox", "idcard", Quota(qps=1000, day_limit=1))

    run(bench, bench.service(FakeProvider()), jobs=5)

    assert event_types(bench) == ["quota.exhausted"]


def test_the_total_limit_is_not_passed_by_one_call_even_when_redis_forgets(bench: Bench) -> None:
    with transaction(bench.engine) as connection:
        set_quota(connection, "sandbox", "idcard", Quota(qps=1000, total_limit=3))
    provider = FakeProvider()
    service = bench.service(provider)

    waiting = run(bench, service, jobs=2)
    bench.redis.delete(keys.total_count(bench.account_id, "idcard"))
    waiting += run(bench, service, jobs=3)

    assert len(provider.calls) == 3
    assert waiting[3:] == [WaitingOn.UPSTREAM_TOTAL_QUOTA] * 2
    assert [stop.reason for stop in stops(bench)] == [StopReason.TOTAL_QUOTA]


def test_a_used_up_total_is_tried_again_by_one_call_an_hour(bench: Bench) -> None:
    provider = FakeProvider(ALL_USED_UP, ALL_USED_UP, READ)
    service = bench.service(provider)
    run(bench, service, jobs=3)
    calls = [len(provider.calls)]

    for _ in range(2):
        bench.clock.forward(hours=1, seconds=1)
        run(bench, service, jobs=3)
        calls.append(len(provider.calls))

    assert calls == [1, 2, 5]  # the last trial succeeds: the two jobs behind it run as well
    assert stops(bench) == []


def test_a_misconfigured_endpoint_is_stopped_and_no_job_fails(bench: Bench) -> None:
    provider = FakeProvider(NO_PERMISSION)

    waiting = run(bench, bench.service(provider), jobs=4)

    assert len(provider.calls) == 1
    assert waiting == [WaitingOn.PROVIDER_OUTAGE] * 4
    assert [(stop.endpoint, stop.reason, stop.upstream_code) for stop in stops(bench)] == [
        ("idcard", StopReason.MISCONFIGURED, "6")
    ]


def test_other_endpoints_of_a_misconfigured_one_go_on(bench: Bench) -> None:
    provider = FakeProvider(NO_PERMISSION, READ)
    service = bench.service(provider)
    run(bench, service)

    bank_card = bench.job(document_type="bank_card")
    service.run_attempt(bank_card.id)

    assert bench.read(bank_card.id).status is JobStatus.SUCCEEDED


def test_a_repaired_account_is_used_again_without_waiting_for_the_next_trial(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider(NO_PERMISSION, READ)
    service = bench.service(provider)
    service.run_attempt(job.id)

    with transaction(bench.engine) as connection:
        set_paused(connection, "sandbox", paused=False)  # as any `kazheng accounts set` does
    bench.accounts.forget()
    service.run_attempt(job.id)

    assert bench.read(job.id).status is JobStatus.SUCCEEDED


def test_an_account_repaired_in_the_provider_s_console_is_found_by_one_trial(bench: Bench) -> None:
    provider = FakeProvider(NO_PERMISSION, READ)
    service = bench.service(provider)
    run(bench, service, jobs=2)

    bench.clock.forward(seconds=61)
    run(bench, service)

    assert len(provider.calls) == 2
    assert stops(bench) == []


def test_keys_the_provider_refuses_stop_the_whole_account(bench: Bench) -> None:
    class Locked(FakeProvider):
        def fetch_token(self, credentials: object) -> tuple[str, float]:
            self.token_fetches += 1
            raise ProviderError(FailureKind.MISCONFIGURED, "invalid_client", called=False)

    provider = Locked()

    waiting = run(bench, bench.service(provider), jobs=3)

    assert waiting == [WaitingOn.PROVIDER_OUTAGE] * 3
    assert (provider.token_fetches, provider.calls) == (1, [])
    assert [stop.endpoint for stop in stops(bench)] == [""]


def test_error_18_at_the_slowest_pace_is_no_matter_of_pace(bench: Bench) -> None:
    with transaction(bench.engine) as connection:
        set_quota(connection, "sandbox", "idcard", Quota(qps=0.5))
    provider = FakeProvider(THROTTLED)
    service = bench.service(provider)

    for _ in range(8):
        bench.redis.set(keys.pace(bench.account_id, "idcard"), "1")  # its time has come
        bench.redis.delete(keys.pause(bench.account_id, "idcard"))
        run(bench, service)

    assert len(provider.calls) == 5
    assert [stop.reason for stop in stops(bench)] == [StopReason.UNCLAIMED]


def test_an_empty_account_hands_its_load_to_the_other(bench: Bench) -> None:
    second_account(bench)
    with transaction(bench.engine) as connection:
        set_quota(connection, "sandbox", "idcard", Quota(qps=1000, day_limit=1))
    provider = FakeProvider()
    service = bench.service(provider)

    waiting = run(bench, service, jobs=4)

    assert waiting == [None] * 4
    assert len(provider.calls) == 4


def test_an_account_without_a_token_hands_its_load_to_the_other(bench: Bench) -> None:
    second_account(bench)

    class HalfLocked(FakeProvider):
        def fetch_token(self, credentials: Any) -> tuple[str, float]:
            if "second" not in credentials.base_url:
                raise ProviderError(FailureKind.MISCONFIGURED, "invalid_client", called=False)
            return super().fetch_token(credentials)

    waiting = run(bench, bench.service(HalfLocked()), jobs=2)

    assert waiting == [None, None]


def test_the_free_account_goes_first_where_both_could(bench: Bench) -> None:
    paid = second_account(bench, billing=Billing.POSTPAID)
    job = bench.job()

    bench.service(FakeProvider()).run_attempt(job.id)

    assert [attempt.account_id for attempt in bench.attempts(job.id)] == [bench.account_id]
    assert paid != bench.account_id


@pytest.mark.parametrize(
    ("billing", "error", "counted"),
    [
        (Billing.FREE, FailureKind.BAD_INPUT, True),  # the free allowance may drain on failures
        (Billing.POSTPAID, FailureKind.BAD_INPUT, False),  # only successful calls are paid
        (Billing.FREE, FailureKind.THROTTLED, False),  # refused at the door
        (Billing.POSTPAID, FailureKind.REFRESH_TOKEN, False),
    ],
)
def test_what_a_failed_call_counts_depends_on_who_pays(
    settings: Settings,
    engine: Engine,
    redis_client: Redis,
    store: ImageStore,
    billing: Billing,
    error: FailureKind,
    counted: bool,
) -> None:
    bench = Bench(settings, engine, redis_client, store)
    make_account(engine, settings, "http://provider.invalid", billing=billing)
    job = bench.job()

    bench.service(FakeProvider(ProviderError(error, "refused", upstream_code="1"))).run_attempt(job.id)

    day_counts = [int(str(bench.redis.get(key))) for key in bench.redis.keys("kz:*:idcard:day:*")]
    assert {attempt.counted for attempt in bench.attempts(job.id)} == {counted}
    assert sum(day_counts) == int(counted)


def test_a_call_without_an_answer_counts_for_it_may_have_been_made(bench: Bench) -> None:
    make_account(bench.engine, bench.settings, "http://provider.invalid", billing=Billing.POSTPAID)
    silent = ProviderError(FailureKind.RETRY_SOON, "timeout", upstream_code="timeout", answered=False)
    job = bench.job()

    bench.service(FakeProvider(silent)).run_attempt(job.id)

    assert [attempt.counted for attempt in bench.attempts(job.id)] == [True]


def test_a_stop_ends_by_itself_a_moment_after_its_time(bench: Bench) -> None:
    run(bench, bench.service(FakeProvider(USED_UP)))
    until = stops(bench)[0].until
    assert until is not None

    bench.clock.now = until - timedelta(seconds=1)
    bench.accounts.lift_due()
    early = len(stops(bench))
    bench.clock.now = until
    bench.accounts.lift_due()

    assert (early, stops(bench)) == (1, [])
