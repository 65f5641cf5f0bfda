"""Permits on a real Valkey: never closer than the pace, never more than the day's quota, none without Redis."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import pairwise

import pytest
from redis import Redis

from shared.domain.job import WaitingOn
from shared.domain.quota import Quota
from shared.limits import keys
from shared.limits.connection import connect
from shared.limits.permits import Candidate, Limiter, LimiterUnavailableError, NoPermit, Permit, _Slot
from shared.settings import Settings

ACCOUNT, ENDPOINT = "acc_1", "idcard"
SOON = timedelta(seconds=5)


class Counts:
    """What Postgres would say of the calls of a day."""

    def __init__(self, used: int = 0) -> None:
        self.used, self.asked = used, 0

    def __call__(self, account_id: str, endpoint: str, day: date) -> int:
        self.asked += 1
        return self.used


@pytest.fixture
def redis(redis_client: Redis) -> Redis:
    """A Valkey in which the endpoint has been called before: slots are given at once."""
    redis_client.set(keys.pace(ACCOUNT, ENDPOINT), "1")
    return redis_client


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


def limiter(redis: Redis, stopping: threading.Event, counts: Counts | None = None) -> Limiter:
    return Limiter(redis, jitter_seconds=0.02, count_calls=counts or Counts(), stopping=stopping)


def candidate(qps: float = 50, day_limit: int | None = None, account_id: str = ACCOUNT) -> Candidate:
    return Candidate(account_id, Quota(qps, day_limit))


@pytest.fixture
def second_client(settings: Settings) -> Iterator[Redis]:
    client = connect(settings)
    yield client
    client.close()


def test_slots_of_all_processes_are_one_interval_apart(
    redis: Redis, second_client: Redis, stopping: threading.Event
) -> None:
    taken: list[float] = []
    lock = threading.Lock()
    limiters = [limiter(redis, stopping), limiter(second_client, stopping)]

    def take(number: int) -> None:
        for _ in range(5):
            slot = limiters[number % 2]._book(candidate(qps=100), ENDPOINT, 5.0)
            assert isinstance(slot, _Slot)
            with lock:
                taken.append(slot.instant)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(take, range(6)))

    # The last slot's end by the server's own count: no slot was given twice, none was left out.
    ends_at = float(str(redis.get(keys.pace(ACCOUNT, ENDPOINT))))
    assert len(taken) == 30
    assert ends_at >= 30 * 10_200
    ordered = sorted(taken)
    gaps = [later - earlier for earlier, later in pairwise(ordered)]
    assert sum(gaps) >= 29 * 0.0102 - 0.005


def test_a_lost_state_is_silent_for_one_window(redis_client: Redis, stopping: threading.Event) -> None:
    booked = limiter(redis_client, stopping)._book(candidate(), ENDPOINT, 5.0)

    assert isinstance(booked, _Slot)
    seconds, microseconds = redis_client.time()
    next_slot = int(str(redis_client.get(keys.pace(ACCOUNT, ENDPOINT)))) / 1e6
    assert next_slot - (int(seconds) + int(microseconds) / 1e6) > 0.5


def test_an_absurd_state_counts_as_lost(redis: Redis, stopping: threading.Event) -> None:
    redis.set(keys.pace(ACCOUNT, ENDPOINT), str(int((time.time() + 86_400) * 1e6)))

    permit = limiter(redis, stopping).acquire([candidate()], ENDPOINT, longest_wait=SOON)

    assert isinstance(permit, Permit)


def test_the_day_s_quota_is_not_passed_by_one(redis: Redis, stopping: threading.Event) -> None:
    shared = limiter(redis, stopping)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(
            pool.map(
                lambda _: shared.acquire([candidate(qps=1000, day_limit=7)], ENDPOINT, longest_wait=SOON), range(20)
            )
        )

    assert sum(isinstance(outcome, Permit) for outcome in outcomes) == 7
    refused = [outcome for outcome in outcomes if isinstance(outcome, NoPermit)]
    assert {(refusal.waiting_on, refusal.retry_after) for refusal in refused} == {
        (WaitingOn.UPSTREAM_DAILY_QUOTA, None)
    }


def test_a_day_without_a_counter_begins_with_what_postgres_knows(redis: Redis, stopping: threading.Event) -> None:
    counts = Counts(used=5)
    shared = limiter(redis, stopping, counts)

    outcomes = [shared.acquire([candidate(qps=1000, day_limit=7)], ENDPOINT, longest_wait=SOON) for _ in range(4)]

    assert [isinstance(outcome, Permit) for outcome in outcomes] == [True, True, False, False]
    assert counts.asked == 1


def test_a_permit_given_back_may_be_used_again(redis: Redis, stopping: threading.Event) -> None:
    shared = limiter(redis, stopping)
    only = [candidate(qps=1000, day_limit=1)]
    permit = shared.acquire(only, ENDPOINT, longest_wait=SOON)
    assert isinstance(permit, Permit)

    shared.refund(permit)

    assert isinstance(shared.acquire(only, ENDPOINT, longest_wait=SOON), Permit)


def test_nobody_waits_longer_than_allowed(redis: Redis, stopping: threading.Event) -> None:
    shared = limiter(redis, stopping)
    shared.acquire([candidate(qps=0.1)], ENDPOINT, longest_wait=SOON)

    refusal = shared.acquire([candidate(qps=0.1)], ENDPOINT, longest_wait=timedelta(seconds=1))

    assert isinstance(refusal, NoPermit)
    assert refusal.waiting_on is WaitingOn.UPSTREAM_QPS
    assert refusal.retry_after is not None
    assert refusal.retry_after > timedelta(seconds=1)


def test_a_pause_stops_every_process(redis: Redis, second_client: Redis, stopping: threading.Event) -> None:
    limiter(redis, stopping).pause(ACCOUNT, ENDPOINT, timedelta(seconds=30))

    refusal = limiter(second_client, stopping).acquire([candidate()], ENDPOINT, longest_wait=timedelta(seconds=1))

    assert isinstance(refusal, NoPermit)


def test_the_account_that_is_free_is_used(redis: Redis, stopping: threading.Event) -> None:
    redis.set(keys.pace("acc_2", ENDPOINT), "1")
    shared = limiter(redis, stopping)
    shared.pause(ACCOUNT, ENDPOINT, timedelta(seconds=30))

    permit = shared.acquire([candidate(), candidate(account_id="acc_2")], ENDPOINT, longest_wait=SOON)

    assert isinstance(permit, Permit)
    assert permit.account_id == "acc_2"


def test_bulk_leaves_the_slots_behind_the_next_one(redis: Redis, stopping: threading.Event) -> None:
    shared = limiter(redis, stopping)
    shared.acquire([candidate(qps=2)], ENDPOINT, longest_wait=SOON)

    booked = shared._book_any([candidate(qps=2)], ENDPOINT, 0.05)

    assert isinstance(booked, NoPermit)


def test_who_waits_for_a_slot_gets_it(redis: Redis, stopping: threading.Event) -> None:
    shared = limiter(redis, stopping)
    horizon = timedelta(milliseconds=20)
    shared.acquire([candidate(qps=5)], ENDPOINT, longest_wait=SOON)

    permit = shared.acquire([candidate(qps=5)], ENDPOINT, longest_wait=SOON, horizon=horizon)

    assert isinstance(permit, Permit)


def test_a_stopping_process_waits_for_nothing_and_gives_its_call_back(redis: Redis, stopping: threading.Event) -> None:
    shared = limiter(redis, stopping)
    stopping.set()

    refusal = shared.acquire([candidate(day_limit=1)], ENDPOINT, longest_wait=SOON)

    stopping.clear()
    assert isinstance(refusal, NoPermit)
    assert isinstance(shared.acquire([candidate(day_limit=1)], ENDPOINT, longest_wait=SOON), Permit)


def test_without_redis_there_is_no_permit(stopping: threading.Event) -> None:
    nowhere = Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)

    with pytest.raises(LimiterUnavailableError):
        limiter(nowhere, stopping).acquire([candidate()], ENDPOINT, longest_wait=SOON)


def test_a_pause_is_waited_for_not_asked_about_again_and_again(redis: Redis, stopping: threading.Event) -> None:
    shared = limiter(redis, stopping)
    shared.acquire([candidate()], ENDPOINT, longest_wait=SOON)
    shared.pause(ACCOUNT, ENDPOINT, timedelta(seconds=0.4))
    before = redis.info("commandstats")["cmdstat_evalsha"]["calls"]

    permit = shared.acquire([candidate()], ENDPOINT, longest_wait=SOON)

    assert isinstance(permit, Permit)
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] - before < 10
