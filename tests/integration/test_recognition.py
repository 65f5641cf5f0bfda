"""One attempt of a job, on real Postgres and Valkey, with a scripted provider."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select

from shared.database.accounts import set_quota
from shared.database.engine import transaction
from shared.database.jobs import erase_job
from shared.database.tables import jobs
from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode, JobStatus, WaitingOn
from shared.domain.quota import Quota
from shared.domain.retry import FailureKind
from shared.limits import keys
from shared.settings import Settings
from shared.storage import ImageStore
from tests.fakes import FakeProvider, recognition
from tests.integration.recognition_bench import Bench

STUMBLE = ProviderError(FailureKind.RETRY_SOON, "the provider answered error 2", upstream_code="2")


@pytest.fixture
def bench(settings: Settings, engine: Engine, redis_client: Redis, store: ImageStore) -> Bench:
    return Bench(settings, engine, redis_client, store)


def test_a_read_card_is_a_result_with_checks(bench: Bench) -> None:
    job = bench.job()
    read = recognition(
        name="测样丽", sex="女", birth_date="1990-03-07", address="样例路1号", id_number="999999199003070012"
    )

    bench.service(FakeProvider(read)).run_attempt(job.id)

    ended, result = bench.read(job.id), bench.result(job.id)
    assert (ended.status, ended.calls, ended.billed_calls, ended.error_code) == (JobStatus.SUCCEEDED, 1, 1, None)
    assert result is not None
    assert result["fields"]["name"]["value"] == "测样丽"
    assert {check["code"]: check["status"] for check in result["checks"]} == {
        "id_number.checksum": "passed",
        "id_number.birth_date": "passed",
        "id_number.sex": "failed",
    }
    assert result["image"]["sha256"] == job.image_sha256
    assert [(attempt.number, attempt.outcome, attempt.billed) for attempt in bench.attempts(job.id)] == [
        (1, "succeeded", True)
    ]


def test_a_second_message_makes_no_second_call(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider()
    service = bench.service(provider)

    service.run_attempt(job.id)
    service.run_attempt(job.id)

    assert len(provider.calls) == 1


def test_fifty_messages_at_once_make_one_call(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider()
    service = bench.service(provider)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(service.run_attempt, [job.id] * 50))

    assert len(provider.calls) == 1
    assert bench.read(job.id).status is JobStatus.SUCCEEDED


def test_a_message_for_an_unknown_job_is_nothing(bench: Bench) -> None:
    provider = FakeProvider()

    bench.service(provider).run_attempt("job_00000000000000000000000000")

    assert provider.calls == []


def test_a_stumble_is_tried_again_after_a_pause(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider(STUMBLE, recognition(name="测样丽"))
    service = bench.service(provider)

    service.run_attempt(job.id)
    waiting = bench.read(job.id)
    service.run_attempt(job.id)  # too early
    calls_before_its_time = len(provider.calls)
    bench.clock.forward(seconds=10)
    service.run_attempt(job.id)

    assert (waiting.status, waiting.waiting_on) == (JobStatus.QUEUED, WaitingOn.RETRY_BACKOFF)
    assert waiting.not_before is not None
    assert waiting.not_before > bench.clock.now - timedelta(seconds=10)
    assert calls_before_its_time == 1
    assert bench.read(job.id).status is JobStatus.SUCCEEDED
    assert [attempt.outcome for attempt in bench.attempts(job.id)] == ["retry_soon", "succeeded"]


def test_a_provider_that_always_stumbles_fails_the_job(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider(STUMBLE)
    service = bench.service(provider)

    for _ in range(5):
        service.run_attempt(job.id)
        bench.clock.forward(minutes=10)

    ended = bench.read(job.id)
    assert (ended.status, ended.error_code, ended.failed_attempts) == (JobStatus.FAILED, "provider_failed", 3)
    assert len(provider.calls) == 3


def test_a_picture_of_something_else_fails_at_once_with_its_code(bench: Bench) -> None:
    refusal = ProviderError(
        FailureKind.BAD_INPUT, "error 216633", upstream_code="216633", error_code=JobErrorCode.NOT_AN_ID_CARD
    )
    job = bench.job()

    bench.service(FakeProvider(refusal)).run_attempt(job.id)

    ended = bench.read(job.id)
    assert (ended.status, ended.error_code) == (JobStatus.FAILED, "not_an_id_card")
    assert bench.result(job.id) is None


def test_error_18_costs_no_attempt_and_slows_the_endpoint(bench: Bench) -> None:
    throttled = ProviderError(FailureKind.THROTTLED, "error 18", upstream_code="18")
    job = bench.job()

    bench.service(FakeProvider(throttled)).run_attempt(job.id)

    waiting = bench.read(job.id)
    assert (waiting.status, waiting.waiting_on) == (JobStatus.QUEUED, WaitingOn.UPSTREAM_QPS)
    assert waiting.failed_attempts == 0
    assert float(str(bench.redis.hget(keys.learnt(bench.account_id, "idcard"), "share"))) < 1


def test_our_own_day_count_is_not_passed_by_one_call(bench: Bench) -> None:
    with transaction(bench.engine) as connection:
        set_quota(connection, "sandbox", "idcard", Quota(qps=1000, day_limit=3))
    waiting, provider = [bench.job() for _ in range(6)], FakeProvider()
    service = bench.service(provider)

    for job in waiting:
        service.run_attempt(job.id)

    statuses = [bench.read(job.id).status for job in waiting]
    assert len(provider.calls) == 3
    assert statuses.count(JobStatus.SUCCEEDED) == 3
    assert {bench.read(job.id).waiting_on for job in waiting[3:]} == {WaitingOn.UPSTREAM_DAILY_QUOTA}


def test_the_day_count_is_rebuilt_from_attempts_when_redis_lost_it(bench: Bench) -> None:
    with transaction(bench.engine) as connection:
        set_quota(connection, "sandbox", "idcard", Quota(qps=1000, day_limit=2))
    provider = FakeProvider()
    service = bench.service(provider)
    for _ in range(3):
        service.run_attempt(bench.job().id)
        bench.redis.delete("kz:none", *bench.redis.keys("kz:*:day:*"))

    assert len(provider.calls) == 2


def test_a_refused_token_is_replaced_once_and_costs_no_attempt(bench: Bench) -> None:
    refused = ProviderError(FailureKind.REFRESH_TOKEN, "error 110", upstream_code="110")
    job, provider = bench.job(), FakeProvider(refused, recognition(name="测样丽"))

    bench.service(provider).run_attempt(job.id)

    ended = bench.read(job.id)
    assert provider.calls == ["token-1", "token-2"]
    assert (ended.status, ended.failed_attempts, ended.calls) == (JobStatus.SUCCEEDED, 0, 2)


def test_a_token_refused_twice_parks_the_job_for_the_operator(bench: Bench) -> None:
    refused = ProviderError(FailureKind.REFRESH_TOKEN, "error 110", upstream_code="110")
    job, provider = bench.job(), FakeProvider(refused)

    bench.service(provider).run_attempt(job.id)

    assert len(provider.calls) == 2
    assert bench.read(job.id).waiting_on is WaitingOn.PROVIDER_OUTAGE


def test_without_redis_nothing_is_called_and_nothing_is_lost(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider()
    nowhere = Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)

    bench.service(provider, redis=nowhere).run_attempt(job.id)

    waiting = bench.read(job.id)
    assert provider.calls == []
    assert (waiting.status, waiting.waiting_on, waiting.failed_attempts) == (JobStatus.QUEUED, WaitingOn.WORKER, 0)


def test_without_an_account_the_job_waits_for_the_operator(bench: Bench) -> None:
    with transaction(bench.engine) as connection:
        connection.exec_driver_sql("UPDATE accounts SET paused = true")
    job = bench.job()

    bench.service(FakeProvider()).run_attempt(job.id)

    assert bench.read(job.id).waiting_on is WaitingOn.PROVIDER_OUTAGE


def test_a_lost_image_fails_the_job_without_a_call(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider()
    assert job.image_key is not None
    bench.store.delete(job.image_key)

    bench.service(provider).run_attempt(job.id)

    assert bench.read(job.id).error_code == "image_lost"
    assert provider.calls == []


def test_an_altered_image_fails_the_job_without_a_call(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider()
    assert job.image_key is not None
    bench.store.put(job.image_key, b"something else")

    bench.service(provider).run_attempt(job.id)

    assert bench.read(job.id).error_code == "image_lost"
    assert provider.calls == []


def test_an_expired_job_is_not_called_for(bench: Bench) -> None:
    job, provider = bench.job(expires_at=bench.clock.now - timedelta(seconds=1)), FakeProvider()

    bench.service(provider).run_attempt(job.id)

    ended = bench.read(job.id)
    assert (ended.status, ended.error_code) == (JobStatus.EXPIRED, "expired")
    assert provider.calls == []


class SlowProvider(FakeProvider):
    """Lets something happen while the call runs."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def recognize(self, *args: Any, **kwargs: Any) -> Any:
        self._meanwhile()
        return super().recognize(*args, **kwargs)


def test_a_worker_whose_lease_ran_out_writes_nothing(bench: Bench) -> None:
    job, second = bench.job(), FakeProvider(recognition(name="second"))

    def taken_over() -> None:
        bench.lose_worker_of(job.id)
        bench.service(second).run_attempt(job.id)

    bench.service(SlowProvider(taken_over)).run_attempt(job.id)

    result, ended = bench.result(job.id), bench.read(job.id)
    assert result is not None
    assert result["fields"]["name"]["value"] == "second"
    assert (ended.status, ended.calls, ended.billed_calls) == (JobStatus.SUCCEEDED, 2, 2)


def test_a_job_erased_while_its_call_runs_leaves_no_result(bench: Bench) -> None:
    job = bench.job()

    def erase() -> None:
        with transaction(bench.engine) as connection:
            erase_job(connection, job.id, client_id=bench.client_id, now=bench.clock())

    bench.service(SlowProvider(erase)).run_attempt(job.id)

    assert bench.read(job.id).status is JobStatus.CANCELED
    assert bench.result(job.id) is None


def test_the_attempt_is_on_record_before_the_call(bench: Bench) -> None:
    job = bench.job()
    seen: list[Any] = []

    bench.service(SlowProvider(lambda: seen.extend(bench.attempts(job.id)))).run_attempt(job.id)

    assert [(attempt.number, attempt.outcome) for attempt in seen] == [(1, None)]


def test_a_stopping_worker_hands_its_job_back(bench: Bench) -> None:
    job, provider = bench.job(), FakeProvider()
    bench.stopping.set()

    bench.service(provider).run_attempt(job.id)

    assert bench.read(job.id).status is JobStatus.QUEUED
    assert provider.calls == []


def test_no_row_is_left_in_processing(bench: Bench) -> None:
    service = bench.service(FakeProvider(STUMBLE, recognition(name="测样丽")))

    for _ in range(4):
        service.run_attempt(bench.job().id)

    with transaction(bench.engine) as connection:
        processing = connection.execute(select(jobs.c.id).where(jobs.c.status == JobStatus.PROCESSING)).all()
    assert processing == []
