"""An image is paid for once: equal jobs of a client are answered from the first, and never across clients."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select

from shared.database.engine import transaction
from shared.database.jobs import Job, erase_job
from shared.database.tables import jobs
from shared.domain.job import JobStatus, WaitingOn
from shared.domain.retry import FailureKind
from shared.settings import Settings
from shared.storage import ImageStore
from tests.factories import make_client, make_picture
from tests.fakes import FakeProvider, recognition
from tests.integration.recognition_bench import Bench
from worker.recognition import RecognitionService


class CacheBench(Bench):
    """Jobs that may be answered from earlier ones."""

    def job(self, **changes: Any) -> Job:
        return super().job(**{"cache": True, **changes})

    def run(self, service: RecognitionService, **changes: Any) -> Job:
        job = self.job(**changes)
        service.run_attempt(job.id)
        self.clock.forward(seconds=1)
        with transaction(self.engine) as connection:
            row = connection.execute(select(jobs.c.client_id).where(jobs.c.id == job.id)).scalar_one()
        self.client_id, mine = row, self.client_id
        try:
            return self.read(job.id)
        finally:
            self.client_id = mine


@pytest.fixture
def bench(settings: Settings, engine: Engine, redis_client: Redis, store: ImageStore) -> CacheBench:
    return CacheBench(settings, engine, redis_client, store)


def test_an_equal_image_is_answered_without_a_call(bench: CacheBench) -> None:
    provider = FakeProvider()
    service = bench.service(provider)

    first, second, third = (bench.run(service) for _ in range(3))

    assert len(provider.calls) == 1
    assert [job.status for job in (first, second, third)] == [JobStatus.SUCCEEDED] * 3
    assert [job.cache_source for job in (first, second, third)] == [None, first.id, first.id]
    assert (second.calls, second.billed_calls) == (0, 0)
    results = [bench.result(job.id) for job in (first, second)]
    assert results[0] is not None
    assert results[1] is not None
    assert {**results[0], "job_id": ""} == {**results[1], "job_id": ""}


@pytest.mark.parametrize(
    "changes",
    [
        {"options": {"side": "back"}},
        {"document_type": "bank_card"},
        {"content": make_picture((641, 400))},
        {"cache": False},
    ],
    ids=["options", "type", "bytes", "cache off"],
)
def test_what_is_not_equal_is_called_for(bench: CacheBench, changes: dict[str, Any]) -> None:
    provider = FakeProvider(recognition(name="测样丽", issuing_authority="样例局", card_number="6222020000000000017"))
    service = bench.service(provider)
    bench.run(service)

    other = bench.run(service, **changes)

    assert (len(provider.calls), other.cache_source) == (2, None)


def test_another_client_pays_for_itself(bench: CacheBench) -> None:
    provider = FakeProvider()
    service = bench.service(provider)
    bench.run(service)
    bench.client_id, _ = make_client(bench.engine, "another")

    theirs = bench.run(service)

    assert (len(provider.calls), theirs.cache_source) == (2, None)


def test_an_answer_is_too_old_after_the_window_and_copies_do_not_prolong_it(bench: CacheBench) -> None:
    provider = FakeProvider()
    service = bench.service(provider)
    bench.run(service)

    bench.clock.forward(days=20)
    copy = bench.run(service)
    bench.clock.forward(days=11)
    late = bench.run(service)

    assert (copy.cache_source is None, late.cache_source is None) == (False, True)
    assert len(provider.calls) == 2


def test_an_erased_answer_is_not_given(bench: CacheBench) -> None:
    provider = FakeProvider()
    service = bench.service(provider)
    first = bench.run(service)
    with transaction(bench.engine) as connection:
        erase_job(connection, first.id, client_id=bench.client_id, now=bench.clock())

    assert bench.run(service).cache_source is None
    assert len(provider.calls) == 2


def test_equal_images_at_the_same_time_make_one_call(bench: CacheBench) -> None:
    class Slow(FakeProvider):
        def recognize(self, *args: Any, **kwargs: Any) -> Any:
            called.set()
            assert others_are_done.wait(10)
            return super().recognize(*args, **kwargs)

    called, others_are_done = threading.Event(), threading.Event()
    provider = Slow()
    service = bench.service(provider)
    made = [bench.job() for _ in range(6)]

    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(service.run_attempt, made[0].id)
        assert called.wait(10)
        for job in made[1:]:
            service.run_attempt(job.id)
        waiting = [bench.read(job.id).waiting_on for job in made[1:]]
        others_are_done.set()
        first.result()
    bench.clock.forward(seconds=3)
    for job in made[1:]:
        service.run_attempt(job.id)

    assert waiting == [WaitingOn.DUPLICATE] * 5
    assert {bench.read(job.id).status for job in made} == {JobStatus.SUCCEEDED}
    assert len(provider.calls) == 1


def test_twenty_claims_at_once_make_one_call(bench: CacheBench) -> None:
    provider = FakeProvider()
    service = bench.service(provider)
    made = [bench.job() for _ in range(20)]

    while {bench.read(job.id).status for job in made} != {JobStatus.SUCCEEDED}:
        with ThreadPoolExecutor(10) as pool:
            list(pool.map(service.run_attempt, [job.id for job in made]))
        bench.clock.forward(seconds=3)

    assert len(provider.calls) == 1


def test_who_waited_for_one_that_failed_tries_itself(bench: CacheBench) -> None:
    from shared.domain.errors import ProviderError

    provider = FakeProvider(ProviderError(FailureKind.BAD_INPUT, "error 216633"), recognition(name="测样丽"))
    service = bench.service(provider)

    first, second = bench.run(service), bench.run(service)

    assert (first.status, second.status) == (JobStatus.FAILED, JobStatus.SUCCEEDED)


def test_expiry_is_judged_anew(bench: CacheBench) -> None:
    provider = FakeProvider(recognition(issuing_authority="样例局", issue_date="2016-01-01", expiry_date="2026-12-01"))
    service = bench.service(provider)
    back = {"options": {"side": "back"}}

    first = bench.run(service, **back)
    bench.clock.forward(days=25)
    later = bench.run(service, **back)

    results = [bench.result(job.id) for job in (first, later)]
    found = [
        [check["status"] for check in result["checks"] if "expir" in check["code"]] for result in results if result
    ]
    assert (later.cache_source, found) == (first.id, [["passed"], ["failed"]])


def test_no_window_no_cache(bench: CacheBench) -> None:
    provider = FakeProvider()
    service = bench.service(provider, cache_life=timedelta(0))

    bench.run(service)
    bench.run(service)

    assert len(provider.calls) == 2
