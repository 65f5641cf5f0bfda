"""The sweeper: what waits without a message gets one."""

import hashlib
import time
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select, update

from shared.clock import utc_now
from shared.database.engine import transaction
from shared.database.jobs import claim_job, erase_job
from shared.database.lines import mark_published
from shared.database.tables import jobs
from shared.domain.errors import DatabaseUnavailableError, ImageLostError
from shared.domain.job import JobErrorCode, JobStatus
from shared.limits import keys
from shared.queues import Publisher, QueueName
from shared.settings import Settings
from shared.storage import ImageStore, image_key
from tests.factories import make_client, make_job
from tests.fakes import FakeClock
from worker.leases import LeaseKeeper
from worker.recovery import RecoveryService


class Sweeping:
    """A sweeper, and what it looks at."""

    def __init__(self, settings: Settings, engine: Engine, redis: Redis, store: ImageStore) -> None:
        self.engine, self.redis, self.store, self.clock = engine, redis, store, FakeClock()
        self.client_id, _ = make_client(engine)
        self.service = RecoveryService(
            engine=engine, redis=redis, publisher=Publisher(settings), store=store, clock=self.clock
        )

    def job(self, **changes: Any) -> str:
        return make_job(self.engine, self.client_id, created_at=self.clock(), **changes).id

    def claim(self, job_id: str, worker: str = "gone") -> None:
        now = self.clock()
        with transaction(self.engine) as connection:
            assert claim_job(connection, job_id, token=now.isoformat(), worker=worker, now=now, lease_until=now + LEASE)

    def read(self, job_id: str) -> Any:
        with transaction(self.engine) as connection:
            return connection.execute(select(jobs).where(jobs.c.id == job_id)).one()

    def messages(self, queue: QueueName) -> int:
        return int(str(self.redis.llen(queue)))

    def set(self, job_id: str, **values: object) -> None:
        with transaction(self.engine) as connection:
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


LEASE = timedelta(seconds=20)


@pytest.fixture
def sweeping(settings: Settings, engine: Engine, redis_client: Redis, store: ImageStore) -> Sweeping:
    return Sweeping(settings, engine, redis_client, store)


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


def test_a_message_on_its_way_is_left_alone_unless_redis_has_forgotten_everything(sweeping: Sweeping) -> None:
    sweeping.service.sweep()
    job_id = sweeping.job()
    sweeping.set(job_id, published_at=sweeping.clock())
    sweeping.clock.forward(seconds=5)

    before = sweeping.service.sweep()
    sweeping.redis.flushall()
    after = [sweeping.service.sweep() for _ in range(2)]

    assert (before, after) == (0, [1, 0])
    assert sweeping.messages(QueueName.INTERACTIVE) == 1


def test_a_message_that_was_lost_is_sent_again(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    with transaction(sweeping.engine) as connection:
        mark_published(connection, [job_id], sweeping.clock())

    early = sweeping.service.sweep()
    sweeping.clock.forward(seconds=31)

    assert (early, sweeping.service.sweep()) == (0, 1)


def test_a_job_whose_worker_is_gone_is_ready_again(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    sweeping.claim(job_id)

    early = sweeping.service.sweep()
    sweeping.clock.forward(seconds=21)

    assert (early, sweeping.service.sweep(), sweeping.service.sweep()) == (0, 1, 0)
    row = sweeping.read(job_id)
    assert (row.status, row.published_at, row.crashes) == (JobStatus.QUEUED, None, 0)
    assert [event["event"] for event in row.history] == ["claimed", "worker_lost"]


def test_a_lease_that_is_renewed_is_not_taken_away(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    keeper = LeaseKeeper(engine=sweeping.engine, lease=LEASE, longest_task=timedelta(seconds=60), clock=sweeping.clock)
    sweeping.claim(job_id)

    with keeper.keeping(sweeping.read(job_id).claim_token, since=time.monotonic()):
        sweeping.clock.forward(seconds=15)
        time.sleep(1.1)
        renewed = keeper.renew()
        sweeping.clock.forward(seconds=15)

        assert (renewed, sweeping.service.sweep()) == (1, 0)
    assert keeper.renew() == 0


def test_a_task_that_hangs_is_not_kept_alive(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    keeper = LeaseKeeper(engine=sweeping.engine, lease=LEASE, longest_task=timedelta(seconds=1), clock=sweeping.clock)
    sweeping.claim(job_id)

    with keeper.keeping(sweeping.read(job_id).claim_token, since=time.monotonic()):
        time.sleep(1.1)
        assert keeper.renew() == 0


def test_a_keeper_knows_what_is_surely_still_its_own(sweeping: Sweeping) -> None:
    kept, taken = sweeping.job(), sweeping.job()
    keeper = LeaseKeeper(engine=sweeping.engine, lease=LEASE, longest_task=timedelta(seconds=60), clock=sweeping.clock)
    sweeping.claim(kept)
    sweeping.clock.forward(seconds=1)  # the claims' tokens are made of the time
    sweeping.claim(taken)
    tokens = [sweeping.read(job_id).claim_token for job_id in (kept, taken)]
    sweeping.set(taken, claim_token="another")
    claimed_at = time.monotonic()

    with keeper.keeping(tokens[0], since=claimed_at), keeper.keeping(tokens[1], since=claimed_at):
        before = [keeper.safe_until(token) for token in tokens]
        time.sleep(1.1)
        keeper.renew()

        assert keeper.safe_until(tokens[0]) > before[0] > claimed_at
        assert keeper.safe_until(tokens[1]) <= time.monotonic()
    assert keeper.safe_until(tokens[0]) < claimed_at


def crash(sweeping: Sweeping, job_id: str, worker: str) -> None:
    """A worker claims the job, takes its image in hand, and dies."""
    sweeping.claim(job_id, worker)
    sweeping.redis.sadd(keys.preparing(worker), job_id)
    sweeping.clock.forward(seconds=21)
    sweeping.service.sweep()


def test_a_job_that_kills_three_workers_is_poisoned(sweeping: Sweeping) -> None:
    job_id, waits = sweeping.job(), []

    for worker in ("first", "second", "third"):
        waits.append(sweeping.read(job_id).status)
        crash(sweeping, job_id, worker)

    row = sweeping.read(job_id)
    assert waits == [JobStatus.QUEUED] * 3
    assert (row.status, row.error_code, row.crashes) == (JobStatus.FAILED, JobErrorCode.POISONED, 3)
    assert [event["worker"] for event in row.history if event["event"] == "worker_lost"] == ["first", "second", "third"]


def test_a_job_that_only_waited_in_workers_that_died_is_not_blamed(sweeping: Sweeping) -> None:
    bystander = sweeping.job()

    for worker in ("first", "second", "third", "fourth"):
        sweeping.claim(bystander, worker)
        sweeping.clock.forward(seconds=21)
        sweeping.service.sweep()

    row = sweeping.read(bystander)
    assert (row.status, row.crashes) == (JobStatus.QUEUED, 0)


def test_one_death_is_counted_once(sweeping: Sweeping) -> None:
    job_id = sweeping.job()
    crash(sweeping, job_id, "worker")

    sweeping.claim(job_id, "worker")
    sweeping.clock.forward(seconds=21)
    sweeping.service.sweep()

    assert sweeping.read(job_id).crashes == 1


def test_a_job_not_started_in_time_expires_although_nobody_claims_it(sweeping: Sweeping) -> None:
    now = sweeping.clock()
    late, early = sweeping.job(expires_at=now + timedelta(seconds=5)), sweeping.job(expires_at=now + timedelta(hours=1))
    sweeping.set(late, not_before=now + timedelta(days=1))

    sweeping.clock.forward(seconds=6)
    sweeping.service.sweep()

    assert (sweeping.read(late).status, sweeping.read(early).status) == (JobStatus.EXPIRED, JobStatus.QUEUED)
    assert sweeping.read(late).error_code == JobErrorCode.EXPIRED


def test_after_an_outage_of_postgres_the_living_are_given_time(sweeping: Sweeping, monkeypatch: Any) -> None:
    job_id = sweeping.job()
    sweeping.claim(job_id)
    sweeping.clock.forward(seconds=21)

    def away(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr("worker.recovery.rows.expire_due", away)
        with pytest.raises(DatabaseUnavailableError):
            sweeping.service.sweep()

    assert (sweeping.service.sweep(), sweeping.service.sweep()) == (0, 1)


def test_an_erasure_cut_short_is_finished(sweeping: Sweeping) -> None:
    job = make_job(sweeping.engine, sweeping.client_id, store=sweeping.store)
    with transaction(sweeping.engine) as connection:
        key = erase_job(connection, job.id, client_id=sweeping.client_id, now=sweeping.clock())
    assert key is not None

    sweeping.service.purge()

    assert sweeping.read(job.id).image_key is None
    with pytest.raises(ImageLostError):
        sweeping.store.get(key, sha256=job.image_sha256 or "")


def test_images_without_a_job_are_erased_after_a_day_and_no_others(sweeping: Sweeping) -> None:
    kept = make_job(sweeping.engine, sweeping.client_id, store=sweeping.store)
    day = utc_now()
    orphan = image_key("job_without_a_row", day)
    sweeping.store.put(orphan, b"bytes")

    def is_there(key: str) -> bool:
        try:
            sweeping.store.get(key, sha256=hashlib.sha256(b"bytes").hexdigest())
        except ImageLostError as error:
            return "altered" in str(error)
        return True

    sweeping.clock.now = day + timedelta(hours=23)
    sweeping.service.purge()
    early = is_there(orphan)
    sweeping.clock.now = day + timedelta(days=3)
    sweeping.service.purge()

    assert (early, is_there(orphan), is_there(str(kept.image_key))) == (True, False, True)


def test_without_redis_nothing_is_sent_again(settings: Settings, engine: Engine, store: ImageStore) -> None:
    client_id, _ = make_client(engine)
    make_job(engine, client_id)
    nowhere = Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)
    service = RecoveryService(
        engine=engine, redis=nowhere, publisher=Publisher(settings), store=store, clock=FakeClock()
    )

    assert service.sweep() == 0
