"""A provider that does not answer costs no job its attempts: all wait, and one call every few seconds tries."""

from datetime import UTC, datetime

import pytest
from redis import Redis
from sqlalchemy import Engine

from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode, JobStatus, WaitingOn
from shared.domain.quota import StopReason
from shared.domain.retry import FailureKind
from shared.settings import Settings
from shared.storage import ImageStore
from tests.fakes import FakeProvider, recognition
from tests.integration.recognition_bench import Bench
from tests.integration.test_parking import run, stops

NO_CONNECTION = ProviderError(FailureKind.UNREACHABLE, "refused", called=False, answered=False)
SILENT = ProviderError(FailureKind.RETRY_SOON, "timeout", upstream_code="timeout", answered=False)
STUMBLED = ProviderError(FailureKind.RETRY_SOON, "error 2", upstream_code="2")
NO_CARD = ProviderError(FailureKind.BAD_INPUT, "error 216633", error_code=JobErrorCode.NOT_AN_ID_CARD)
READ = recognition(name="测样丽")


@pytest.fixture
def bench(settings: Settings, engine: Engine, redis_client: Redis, store: ImageStore) -> Bench:
    bench = Bench(settings, engine, redis_client, store)
    bench.clock.now = datetime.fromtimestamp(redis_client.time()[0], UTC)
    return bench


def test_a_job_outlasts_an_outage_however_long(bench: Bench) -> None:
    service, job = bench.service(FakeProvider(NO_CONNECTION)), bench.job()

    for _ in range(12):
        service.run_attempt(job.id)
        bench.clock.forward(seconds=6)

    waiting = bench.read(job.id)
    assert (waiting.status, waiting.failed_attempts) == (JobStatus.QUEUED, 0)
    assert waiting.waiting_on is WaitingOn.PROVIDER_OUTAGE


@pytest.mark.parametrize("failure", [NO_CONNECTION, SILENT])
def test_five_calls_in_a_row_without_an_answer_stop_the_endpoint(bench: Bench, failure: ProviderError) -> None:
    provider = FakeProvider(failure)

    waiting = run(bench, bench.service(provider), jobs=8)

    assert len(provider.calls) == 5
    assert [stop.reason for stop in stops(bench)] == [StopReason.OUTAGE]
    assert waiting[5:] == [WaitingOn.PROVIDER_OUTAGE] * 3


def test_an_answer_in_between_is_no_outage(bench: Bench) -> None:
    provider = FakeProvider(SILENT, SILENT, SILENT, SILENT, STUMBLED, SILENT, SILENT, SILENT, SILENT, READ)

    run(bench, bench.service(provider), jobs=10)

    assert len(provider.calls) == 10
    assert stops(bench) == []


def test_who_tries_whether_it_is_over_loses_no_attempt(bench: Bench) -> None:
    provider = FakeProvider(SILENT)
    service = bench.service(provider)
    run(bench, service, jobs=5)
    job = bench.job()

    for _ in range(10):
        bench.clock.forward(seconds=6)
        service.run_attempt(job.id)

    assert len(provider.calls) == 15
    assert bench.read(job.id).failed_attempts == 0


@pytest.mark.parametrize("answer", [READ, NO_CARD, STUMBLED])
def test_any_answer_ends_the_stop(bench: Bench, answer: object) -> None:
    provider = FakeProvider(*[SILENT] * 5, answer)  # type: ignore[arg-type]
    service = bench.service(provider)
    run(bench, service, jobs=5)

    bench.clock.forward(seconds=6)
    run(bench, service)

    assert stops(bench) == []


def test_a_token_endpoint_that_is_down_costs_no_attempt(bench: Bench) -> None:
    class TokenLess(FakeProvider):
        def fetch_token(self, credentials: object) -> tuple[str, float]:
            self.token_fetches += 1
            raise SILENT

    provider = TokenLess()
    service = bench.service(provider)

    waiting = run(bench, service, jobs=4)

    assert waiting == [WaitingOn.PROVIDER_OUTAGE] * 4
    assert (provider.token_fetches, provider.calls) == (1, [])
    assert [(stop.reason, stop.endpoint) for stop in stops(bench)] == [(StopReason.OUTAGE, "")]
