"""The sweeper: what waits without a message gets one."""

from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, update

from shared.database.engine import transaction
from shared.database.jobs import claim_job, get_job, mark_published
from shared.database.tables import jobs
from shared.domain.job import Lane
from shared.queues import Publisher, QueueName
from shared.settings import Settings
from tests.factories import make_client, make_job
from tests.fakes import FakeClock
from worker.recovery import RecoveryService

WINDOW = 5


class Sweeping:
    """A sweeper, and what it looks at."""

    def __init__(self, settings: Settings, engine: Engine, redis: Redis) -> None:
        self.engine, self.redis, self.clock = engine, redis, FakeClock()
        self.client_id, _ = make_client(engine)
        self.service = RecoveryService(
            engine=engine, redis=redis, publisher=Publisher(settings), window=WINDOW, clock=self.clock
        )

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


def test_a_job_whose_message_was_never_sent_gets_one(sweeping: Sweeping) -> None:
    sweeping.job()

    swept = sweeping.service.sweep()

    assert (swept, sweeping.messages(QueueName.INTERACTIVE)) == (1, 1)


def test_sweeping_twice_sends_no_second_message(sweeping: Sweeping) -> None:
    sweeping.job()
    sweeping.service.sweep()

    assert sweeping.service.sweep() == 0


def test_a_job_whose_time_has_not_come_is_left(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    sweeping.set(job_id, not_before=sweeping.clock() + timedelta(seconds=10))

    early = sweeping.service.sweep()
    sweeping.clock.forward(seconds=11)

    assert (early, sweeping.service.sweep()) == (0, 1)


def test_a_message_that_was_lost_is_sent_again(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    with transaction(sweeping.engine) as connection:
        mark_published(connection, [job_id], sweeping.clock())

    early = sweeping.service.sweep()
    sweeping.clock.forward(seconds=31)

    assert (early, sweeping.service.sweep()) == (0, 1)


def test_a_job_put_back_before_its_message_was_noted_gets_another(sweeping: Sweeping) -> None:
    job_id, looked_up_at = sweeping.job(), sweeping.clock()
    sweeping.set(job_id, not_before=sweeping.clock() + timedelta(seconds=2), published_at=None)

    with transaction(sweeping.engine) as connection:
        mark_published(connection, [job_id], looked_up_at)
    sweeping.clock.forward(seconds=3)

    assert sweeping.service.sweep() == 1


def test_messages_that_stand_in_line_are_not_lost(sweeping: Sweeping) -> None:
    for _ in range(3):
        sweeping.job()
    sweeping.service.sweep()
    sweeping.clock.forward(minutes=10)

    assert sweeping.service.sweep() == 0


def test_a_job_whose_worker_is_gone_is_published(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    now = sweeping.clock()
    with transaction(sweeping.engine) as connection:
        claim_job(connection, job_id, token="t", worker="gone", now=now, lease_until=now + timedelta(seconds=120))

    early = sweeping.service.sweep()
    sweeping.clock.forward(seconds=121)

    assert (early, sweeping.service.sweep()) == (0, 1)


def test_bulk_is_fed_in_a_window_oldest_first(sweeping: Sweeping) -> None:
    ids = [sweeping.job(lane=Lane.BULK) for _ in range(WINDOW + 3)]

    first, second = sweeping.service.sweep(), sweeping.service.sweep()

    with transaction(sweeping.engine) as connection:
        rows = [get_job(connection, job_id, client_id=sweeping.client_id) for job_id in ids]
        published = connection.execute(jobs.select().where(jobs.c.published_at.is_not(None)).order_by(jobs.c.id)).all()
    assert all(rows)
    assert (first, second, sweeping.messages(QueueName.BULK)) == (WINDOW, 0, WINDOW)
    assert [row.id for row in published] == ids[:WINDOW]


def test_a_message_holds_nothing_but_the_id(sweeping: Sweeping) -> None:
    job_id = sweeping.job(client_reference_id="reference-of-somebody")

    sweeping.service.sweep()

    message = str(sweeping.redis.lindex(QueueName.INTERACTIVE, 0))
    assert job_id in message
    assert "reference-of-somebody" not in message
    assert len(message) < 1500


def test_without_redis_the_sweep_waits(settings: Settings, engine: Engine) -> None:
    client_id, _ = make_client(engine)
    make_job(engine, client_id)
    nowhere = Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)
    service = RecoveryService(
        engine=engine, redis=nowhere, publisher=Publisher(settings), window=WINDOW, clock=FakeClock()
    )

    assert service.sweep() == 0
