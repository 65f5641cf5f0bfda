"""The sweeper: what waits without a message gets one."""

from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select, update

from shared.database.engine import transaction
from shared.database.jobs import claim_job
from shared.database.lines import mark_published
from shared.database.tables import jobs
from shared.queues import Publisher, QueueName
from shared.settings import Settings
from tests.factories import make_client, make_job
from tests.fakes import FakeClock
from worker.recovery import RecoveryService


class Sweeping:
    """A sweeper, and what it looks at."""

    def __init__(self, settings: Settings, engine: Engine, redis: Redis) -> None:
        self.engine, self.redis, self.clock = engine, redis, FakeClock()
        self.client_id, _ = make_client(engine)
        self.service = RecoveryService(engine=engine, redis=redis, publisher=Publisher(settings), clock=self.clock)

    def job(self, **changes: Any) -> str:
        return make_job(self.engine, self.client_id, created_at=self.clock(), **changes).id

    def messages(self, queue: QueueName) -> int:
        return int(str(self.redis.llen(queue)))

    def set(self, job_id: str, **values: object) -> None:
        with transaction(self.engine) as connection:
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


@pytest.fixture
def sweeping(settings: Settings, engine: Engine, redis_client: Redis) -> Sweeping:
    return Sweeping(settings, engine, redis_client)


def test_sweeping_twice_sends_no_second_message(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    sweeping.set(job_id, published_at=sweeping.clock() - timedelta(minutes=1))

    swept = [sweeping.service.sweep() for _ in range(2)]

    assert swept == [1, 0]


def test_a_queue_that_nobody_reads_gets_no_second_copy_of_all_that_stands_in_it(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    sweeping.set(job_id, published_at=sweeping.clock() - timedelta(minutes=1))
    sweeping.redis.rpush(QueueName.INTERACTIVE, *["a message"] * 200)

    assert sweeping.service.sweep() == 0


def test_a_job_put_back_in_line_is_not_marked_by_a_message_sent_before(sweeping: Sweeping) -> None:
    job_id, looked_up_at = sweeping.job(), sweeping.clock()
    sweeping.set(job_id, not_before=sweeping.clock() + timedelta(seconds=2), published_at=None)

    with transaction(sweeping.engine) as connection:
        mark_published(connection, [job_id], looked_up_at)
        published_at = connection.execute(select(jobs.c.published_at).where(jobs.c.id == job_id)).scalar_one()

    assert published_at is None


def test_a_message_holds_nothing_but_the_id(sweeping: Sweeping) -> None:
    job_id = sweeping.job(client_reference_id="reference-of-somebody")
    sweeping.set(job_id, published_at=sweeping.clock() - timedelta(minutes=1))

    sweeping.service.sweep()

    message = str(sweeping.redis.lindex(QueueName.INTERACTIVE, 0))
    assert job_id in message
    assert "reference-of-somebody" not in message
    assert len(message) < 1500


def test_a_message_that_was_lost_is_sent_again(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    with transaction(sweeping.engine) as connection:
        mark_published(connection, [job_id], sweeping.clock())

    early = sweeping.service.sweep()
    sweeping.clock.forward(seconds=31)

    assert (early, sweeping.service.sweep()) == (0, 1)


def test_a_job_whose_worker_is_gone_is_published(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    now = sweeping.clock()
    with transaction(sweeping.engine) as connection:
        claim_job(connection, job_id, token="t", worker="gone", now=now, lease_until=now + timedelta(seconds=120))

    early = sweeping.service.sweep()
    sweeping.clock.forward(seconds=121)

    assert (early, sweeping.service.sweep()) == (0, 1)


def test_without_redis_the_sweep_waits(settings: Settings, engine: Engine) -> None:
    client_id, _ = make_client(engine)
    make_job(engine, client_id)
    nowhere = Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)
    service = RecoveryService(engine=engine, redis=nowhere, publisher=Publisher(settings), clock=FakeClock())

    assert service.sweep() == 0
