"""Feeding on real servers: in turns, in a window, and only where somebody may call."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, select, text, update

from shared.database.accounts import set_paused, set_quota
from shared.database.engine import transaction
from shared.database.lines import count_ahead, count_queued, remember_first_message, take_turns
from shared.database.stops import Stop, put_stop
from shared.database.tables import jobs
from shared.domain.job import Lane, WaitingOn
from shared.domain.quota import Quota, StopReason
from shared.limits import keys
from shared.queues import Publisher, QueueName
from shared.settings import Settings
from tests.factories import make_account, make_client, make_job
from tests.fakes import FakeClock
from worker.accounts import AccountPool
from worker.feeding import Feeder

ENDPOINT = "idcard"


class Feeding:
    """A feeder, and what it looks at. At 2 calls a second, seven bulk jobs wait in the broker."""

    def __init__(self, settings: Settings, engine: Engine, redis: Redis) -> None:
        self.engine, self.redis, self.clock = engine, redis, FakeClock()
        self.client_id, _ = make_client(engine)
        self.account_id = make_account(engine, settings, "http://provider.invalid", qps=2)
        self.accounts = AccountPool(engine, settings.require_secret_key(), clock=self.clock)
        self.feeder = Feeder(
            engine=engine,
            redis=redis,
            publisher=Publisher(settings),
            accounts=self.accounts,
            worker="alive:1",
            clock=self.clock,
        )

    def job(self, client_id: str | None = None, **changes: Any) -> str:
        values: dict[str, Any] = {"lane": Lane.BULK, "created_at": self.clock()} | changes
        return make_job(self.engine, client_id or self.client_id, **values).id

    def set(self, job_id: str, **values: object) -> None:
        with transaction(self.engine) as connection:
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))

    def sent(self, queue: QueueName = QueueName.BULK) -> int:
        return int(str(self.redis.llen(queue)))

    def published(self) -> list[Any]:
        with transaction(self.engine) as connection:
            return list(connection.execute(select(jobs).where(jobs.c.published_at.is_not(None)).order_by(jobs.c.id)))

    def work_off(self) -> None:
        """As if workers had finished all that was sent."""
        self.redis.delete(*QueueName)
        with transaction(self.engine) as connection:
            connection.execute(
                update(jobs).where(jobs.c.published_at.is_not(None)).values(status="canceled", published_at=None)
            )

    def turns(self, most: int, last: dict[str, str] | None = None) -> list[Any]:
        with transaction(self.engine) as connection:
            return take_turns(connection, Lane.BULK, ENDPOINT, most=most, last_turns=last or {})


@pytest.fixture
def feeding(settings: Settings, engine: Engine, redis_client: Redis) -> Feeding:
    return Feeding(settings, engine, redis_client)


def test_the_broker_holds_a_window_however_many_jobs_wait(feeding: Feeding) -> None:
    ids = [feeding.job() for _ in range(30)]

    fed = [feeding.feeder.feed() for _ in range(3)]

    assert fed == [7, 0, 0]
    assert feeding.sent() == 7
    assert [row.id for row in feeding.published()] == ids[:7]


@pytest.mark.parametrize(("worker", "fed"), [("alive:1", 0), ("dead:1", 7)])
def test_claims_of_a_dead_worker_do_not_hold_up_the_line(feeding: Feeding, worker: str, fed: int) -> None:
    for _ in range(20):
        feeding.job()
    feeding.feeder.feed()
    feeding.feeder.tell_alive()
    for row in feeding.published():
        feeding.set(row.id, status="processing", claim_token="t", claimed_by=worker, published_at=None)

    assert feeding.feeder.feed() == fed


def test_calls_in_flight_make_room_for_those_that_follow(feeding: Feeding) -> None:
    for _ in range(30):
        feeding.job()
    feeding.feeder.feed()
    feeding.redis.zadd(keys.in_flight(feeding.account_id, ENDPOINT), {"a": 1e16, "b": 1e16})

    assert feeding.feeder.feed() == 2


def test_the_window_follows_the_pace(feeding: Feeding) -> None:
    with transaction(feeding.engine) as connection:
        set_quota(connection, "sandbox", ENDPOINT, Quota(qps=10))
    for _ in range(40):
        feeding.job()

    assert feeding.feeder.feed() == 19


def test_one_client_s_backlog_delays_another_s_by_a_window_only(feeding: Feeding) -> None:
    late, _ = make_client(feeding.engine, "late")
    for _ in range(30):
        feeding.job()
    feeding.feeder.feed()
    mine = [feeding.job(late) for _ in range(3)]
    feeding.work_off()

    feeding.feeder.feed()

    assert set(mine) <= {row.id for row in feeding.published()}


def test_every_client_gets_the_same_share_over_many_small_feeds(feeding: Feeding) -> None:
    clients = [make_client(feeding.engine, f"client {number}")[0] for number in range(3)]
    for client_id in clients:
        for _ in range(40):
            feeding.job(client_id)
    served: Counter[str] = Counter()

    for _ in range(10):
        feeding.feeder.feed()
        served.update(row.client_id for row in feeding.published())
        feeding.work_off()

    assert sum(served.values()) == 70
    assert max(served.values()) - min(served.values()) <= 1


def test_the_batches_of_a_client_take_turns(feeding: Feeding) -> None:
    for batch in ("bat_1", "bat_2", "-"):
        for _ in range(10):
            feeding.job(batch_id=batch)

    first = feeding.turns(6)

    assert Counter(job.batch_id for job in first) == {"bat_1": 2, "bat_2": 2, "-": 2}


def test_a_client_with_many_batches_gets_no_more_than_one_with_one(feeding: Feeding) -> None:
    other, _ = make_client(feeding.engine, "other")
    for number in range(5):
        for _ in range(3):
            feeding.job(batch_id=f"bat_{number}")
    for _ in range(15):
        feeding.job(other)

    taken = feeding.turns(10)

    assert Counter(job.client_id for job in taken) == {feeding.client_id: 5, other: 5}


def test_turns_go_on_behind_the_last_one(feeding: Feeding) -> None:
    clients = sorted(make_client(feeding.engine, f"client {number}")[0] for number in range(3))
    for client_id in clients:
        feeding.job(client_id)

    after_first = feeding.turns(1, {"": clients[0]})
    after_last = feeding.turns(2, {"": clients[2]})

    assert [job.client_id for job in after_first] == [clients[1]]
    assert [job.client_id for job in after_last] == clients[:2]


def test_a_client_with_little_leaves_its_share_to_the_others(feeding: Feeding) -> None:
    other, _ = make_client(feeding.engine, "other")
    feeding.job(other)
    for _ in range(20):
        feeding.job()

    assert len(feeding.turns(10)) == 10


def test_an_endpoint_that_nobody_may_call_is_not_fed(feeding: Feeding) -> None:
    feeding.job()
    bank_card = feeding.job(document_type="bank_card")
    stop = Stop(
        feeding.account_id, ENDPOINT, StopReason.DAILY_QUOTA, "17", "", feeding.clock(), feeding.clock.now, None
    )
    with transaction(feeding.engine) as connection:
        put_stop(connection, Stop(**{**vars(stop), "until": feeding.clock.now + timedelta(hours=3)}))

    feeding.feeder.feed()

    assert [row.id for row in feeding.published()] == [bank_card]


def test_jobs_go_on_oldest_first_when_the_day_has_turned(feeding: Feeding) -> None:
    ids = [feeding.job() for _ in range(10)]
    until = feeding.clock.now + timedelta(hours=3)
    with transaction(feeding.engine) as connection:
        stop = Stop(feeding.account_id, ENDPOINT, StopReason.DAILY_QUOTA, "17", "", feeding.clock(), until, None)
        put_stop(connection, stop)
    before = feeding.feeder.feed()

    feeding.clock.forward(hours=3)
    feeding.feeder.feed()

    assert before == 0
    assert [row.id for row in feeding.published()] == ids[:7]


def test_one_job_may_try_a_stopped_endpoint(feeding: Feeding) -> None:
    for _ in range(5):
        feeding.job()
    with transaction(feeding.engine) as connection:
        stop = Stop(
            feeding.account_id,
            ENDPOINT,
            StopReason.MISCONFIGURED,
            "6",
            "",
            feeding.clock(),
            None,
            feeding.clock.now + timedelta(seconds=60),
        )
        put_stop(connection, stop)
    before = feeding.feeder.feed()
    feeding.clock.forward(seconds=61)

    fed = [feeding.feeder.feed() for _ in range(2)]

    assert (before, fed) == (0, [1, 0])


def test_with_all_accounts_paused_nothing_is_fed(feeding: Feeding) -> None:
    with transaction(feeding.engine) as connection:
        set_paused(connection, "sandbox", paused=True)
    feeding.job()

    assert feeding.feeder.feed() == 0


def test_a_parked_job_is_fed_when_its_time_has_come(feeding: Feeding) -> None:
    job_id = feeding.job(lane=Lane.INTERACTIVE)
    feeding.set(job_id, not_before=feeding.clock.now + timedelta(seconds=10), waiting_on=WaitingOn.RETRY_BACKOFF)

    early = feeding.feeder.feed()
    feeding.clock.forward(seconds=11)

    assert (early, feeding.feeder.feed(), feeding.sent(QueueName.INTERACTIVE)) == (0, 1, 1)


def test_people_s_jobs_put_back_in_line_are_fed_few_at_a_time(feeding: Feeding) -> None:
    for _ in range(10):
        feeding.job(lane=Lane.INTERACTIVE)

    assert feeding.feeder.feed() == 3


def test_the_first_message_is_not_remembered_over_a_worker_that_was_quicker(feeding: Feeding) -> None:
    job_id = feeding.job()
    feeding.set(job_id, claim_count=1)

    with transaction(feeding.engine) as connection:
        remember_first_message(connection, job_id, feeding.clock())

    assert feeding.published() == []


def test_only_older_jobs_of_the_same_endpoint_and_lane_are_ahead(feeding: Feeding) -> None:
    older = feeding.job()
    feeding.job(document_type="bank_card")
    feeding.job(lane=Lane.INTERACTIVE)
    job = make_job(feeding.engine, feeding.client_id, lane=Lane.BULK)

    with transaction(feeding.engine) as connection:
        assert count_ahead(connection, job) == 1
        assert count_queued(connection)[(ENDPOINT, Lane.BULK)] == 2
    assert older < job.id


@pytest.mark.parametrize("statement", ["_CLIENTS", "_BATCHES", "_JOBS", "_READY"])
def test_feeding_reads_its_index_and_no_more(feeding: Feeding, statement: str) -> None:
    """At a size where reading the whole table would be cheap for the planner to refuse."""
    from shared.database import lines

    with transaction(feeding.engine) as connection:
        connection.execute(
            text(
                "INSERT INTO jobs (id, client_id, document_type, endpoint, options, lane, status, image_sha256,"
                " image_bytes, image_format, image_width, image_height, created_at)"
                " SELECT 'job_' || n, :client_id, 'id_card', 'idcard', '{}', 'bulk', 'queued', '', 1, 'JPEG', 1, 1,"
                " now() FROM generate_series(1, 20000) AS n"
            ),
            {"client_id": feeding.client_id},
        )
    with feeding.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE jobs"))
        given = {
            "lane": "bulk",
            "endpoint": ENDPOINT,
            "client_id": feeding.client_id,
            "batch_id": "-",
            "after": "",
            "most": 50,
            "endpoints": [ENDPOINT],
            "lanes": ["bulk"],
        }
        plan = "\n".join(row[0] for row in connection.execute(text(f"EXPLAIN {getattr(lines, statement).text}"), given))

    assert "Index Only Scan using ix_jobs_ready" in plan
    assert "Seq Scan" not in plan
