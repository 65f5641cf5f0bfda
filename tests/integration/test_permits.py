"""Permits on a real Valkey: never closer than the pace, never more than the day's quota, none without Redis."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise

import pytest
from redis import Redis

from shared.domain.job import Lane, WaitingOn
from shared.limits import keys
from shared.limits.connection import connect
from shared.limits.permits import LimiterUnavailableError, NoPermit, Permit
from shared.settings import Settings
from tests.integration.permit_tools import (
    ACCOUNT,
    ENDPOINT,
    LATER,
    SOON,
    Counts,
    book,
    called_before,
    candidate,
    limiter,
    permit_of,
)


@pytest.fixture
def redis(redis_client: Redis) -> Redis:
    """A Valkey in which the endpoint has been called before: slots are given at once."""
    return called_before(redis_client)


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def second_client(settings: Settings) -> Iterator[Redis]:
    client = connect(settings)
    yield client
    client.close()


def test_slots_of_all_processes_are_one_interval_apart(redis: Redis, second_client: Redis) -> None:
    taken: list[float] = []
    limiters = [limiter(redis), limiter(second_client)]

    def take(number: int) -> None:
        for _ in range(5):
            taken.append(permit_of(book(limiters[number % 2], candidate(qps=100))).instant)  # noqa: PERF401

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(take, range(6)))

    ordered = sorted(taken)
    gaps = [later - earlier for earlier, later in pairwise(ordered)]
    assert len(taken) == 30
    # Each process tells the server's clock within half a round trip; no slot was given twice, none left out.
    assert sum(gaps) >= 29 * 0.0102 - 0.01


def test_a_lost_state_is_silent_for_one_window(redis_client: Redis) -> None:
    began = time.monotonic()

    permit = permit_of(book(limiter(redis_client)))

    assert permit.instant - began >= 1


def test_an_absurd_state_counts_as_lost(redis: Redis) -> None:
    redis.set(keys.pace(ACCOUNT, ENDPOINT), str(int((time.time() + 86_400) * 1e6)))

    assert isinstance(book(limiter(redis)), Permit)


def test_a_booked_slot_leaves_time_to_record_the_attempt(redis: Redis) -> None:
    shared = limiter(redis)
    book(shared)  # the first one counts the day
    time.sleep(0.05)
    began = time.monotonic()

    permit = permit_of(book(shared))

    assert permit.instant - began >= 0.01


def test_the_day_s_quota_is_not_passed_by_one(redis: Redis) -> None:
    shared = limiter(redis)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _: book(shared, candidate(qps=1000, day_limit=7)), range(20)))

    refused = [outcome for outcome in outcomes if isinstance(outcome, NoPermit)]
    assert sum(isinstance(outcome, Permit) for outcome in outcomes) == 7
    assert {(refusal.waiting_on, refusal.retry_after) for refusal in refused} == {
        (WaitingOn.UPSTREAM_DAILY_QUOTA, None)
    }


def test_a_day_without_a_counter_begins_with_what_postgres_knows(redis: Redis) -> None:
    counts = Counts(used=5)
    shared = limiter(redis, counts=counts)

    outcomes = [book(shared, candidate(qps=1000, day_limit=7)) for _ in range(4)]

    assert [isinstance(outcome, Permit) for outcome in outcomes] == [True, True, False, False]
    assert len(counts.asked) == 1


def test_the_total_begins_with_what_postgres_knows(redis: Redis) -> None:
    counts = Counts(used=5)
    shared = limiter(redis, counts=counts)

    outcomes = [book(shared, candidate(qps=1000, total_limit=6)) for _ in range(2)]

    assert [isinstance(outcome, Permit) for outcome in outcomes] == [True, False]
    assert None in counts.asked


def test_a_permit_given_back_may_be_used_again(redis: Redis) -> None:
    shared, only = limiter(redis), candidate(qps=1000, day_limit=1)
    permit = permit_of(book(shared, only))

    shared.give_back(permit)

    assert isinstance(book(shared, only), Permit)


def test_nobody_waits_longer_than_allowed(redis: Redis) -> None:
    shared = limiter(redis)
    book(shared, candidate(qps=0.1))

    refusal = book(shared, candidate(qps=0.1), longest_wait=timedelta(seconds=1))

    assert isinstance(refusal, NoPermit)
    assert refusal.waiting_on is WaitingOn.UPSTREAM_QPS
    assert refusal.retry_after is not None
    assert refusal.retry_after > timedelta(seconds=1)


def test_a_pause_stops_every_process(redis: Redis, second_client: Redis) -> None:
    limiter(redis).pause(ACCOUNT, ENDPOINT, timedelta(seconds=30))

    assert isinstance(book(limiter(second_client), longest_wait=timedelta(seconds=1)), NoPermit)


def test_a_pause_is_waited_for_not_asked_about_again_and_again(redis: Redis) -> None:
    shared = limiter(redis)
    book(shared)
    shared.pause(ACCOUNT, ENDPOINT, timedelta(seconds=0.4))
    before = redis.info("commandstats")["cmdstat_evalsha"]["calls"]

    permit = book(shared)

    assert isinstance(permit, Permit)
    assert redis.info("commandstats")["cmdstat_evalsha"]["calls"] - before < 10


def test_calls_in_flight_are_limited_where_the_provider_counts_those(redis: Redis) -> None:
    shared, only = limiter(redis), candidate(qps=1000, in_flight_limit=2)
    first, second = (permit_of(book(shared, only)) for _ in range(2))

    refusal = book(shared, only, longest_wait=timedelta(seconds=0.1))
    shared.end(first, taken=True, counted=True)

    assert isinstance(refusal, NoPermit)
    assert isinstance(book(shared, only), Permit)
    assert second.id != first.id


def test_a_call_without_an_answer_stays_in_flight(redis: Redis) -> None:
    shared, only = limiter(redis), candidate(qps=1000, in_flight_limit=1)
    permit = permit_of(book(shared, only))

    shared.end(permit, taken=False, counted=True, answered=False, still_flying=True)

    assert isinstance(book(shared, only, longest_wait=timedelta(seconds=0.1)), NoPermit)


def test_a_call_that_nobody_ended_is_given_up_for_lost(redis: Redis) -> None:
    shared, only = limiter(redis), candidate(qps=1000, in_flight_limit=1)
    book(shared, only)
    redis.zadd(keys.in_flight(ACCOUNT, ENDPOINT), {"dead": 1})
    redis.zremrangebyrank(keys.in_flight(ACCOUNT, ENDPOINT), -1, -1)

    assert isinstance(book(shared, only), Permit)


# --- lanes ---


def test_bulk_leaves_the_slots_behind_the_next_one_to_people(redis: Redis) -> None:
    shared, slow = limiter(redis), candidate(qps=0.5)
    book(shared, slow)

    waiting = book(shared, slow, lane=Lane.BULK, longest_wait=timedelta(seconds=1))
    person = book(shared, slow)

    assert isinstance(waiting, NoPermit)
    assert isinstance(person, Permit)


def test_who_waits_in_bulk_gets_the_slot_that_nobody_else_takes(redis: Redis) -> None:
    shared = limiter(redis)
    book(shared, candidate(qps=5))

    assert isinstance(book(shared, candidate(qps=5), lane=Lane.BULK), Permit)


def test_bulk_keeps_its_share_under_a_flood_of_people(redis: Redis) -> None:
    """Each ask of bulk comes after each booking of a person, who all book further ahead than bulk may reach."""
    shared, lanes = limiter(redis), []
    crowded = candidate(qps=20)

    for _ in range(60):
        lanes.append(permit_of(book(shared, crowded, longest_wait=LATER)).lane)
        waiting = book(shared, crowded, lane=Lane.BULK, longest_wait=timedelta(seconds=0))
        lanes += [Lane.BULK] if isinstance(waiting, Permit) else []

    share = lanes[10:].count(Lane.BULK) / len(lanes[10:])
    assert 0.08 <= share <= 0.12


def test_more_people_than_threads_can_wait_for_go_back_to_postgres(redis: Redis) -> None:
    shared, slow = limiter(redis, most_waiting=2), candidate(qps=0.2)
    held = [book(shared, slow, longest_wait=LATER) for _ in range(2)]

    surplus = book(shared, slow, longest_wait=LATER)
    shared.abandon(permit_of(held[0]))

    assert isinstance(surplus, NoPermit)
    assert surplus.waiting_on is WaitingOn.UPSTREAM_QPS
    assert isinstance(book(shared, slow, longest_wait=LATER), Permit)


def test_a_line_of_one_endpoint_holds_up_no_other(redis: Redis) -> None:
    shared, slow = limiter(redis, most_waiting=1), candidate(qps=0.2)
    redis.set(keys.pace(ACCOUNT, "bankcard"), "1")
    book(shared, slow, longest_wait=LATER)

    other = shared.book([slow], "bankcard", Lane.INTERACTIVE, longest_wait=SOON)

    assert isinstance(other, Permit)


def test_those_who_wait_are_served_in_the_order_they_came(redis: Redis) -> None:
    shared, served = limiter(redis), []
    book(shared, candidate(qps=10))
    threads = []

    def wait(number: int) -> None:
        permit_of(book(shared, candidate(qps=10), lane=Lane.BULK))
        served.append(number)

    for number in range(4):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(shared._line(Lane.BULK, ENDPOINT)) + len(served) <= number:
            time.sleep(0.001)
    for thread in threads:
        thread.join()

    assert served == sorted(served)


# --- the pool ---


def test_the_account_that_is_free_is_used(redis: Redis) -> None:
    redis.set(keys.pace("acc_2", ENDPOINT), "1")
    shared = limiter(redis)
    shared.pause(ACCOUNT, ENDPOINT, timedelta(seconds=30))

    permit = permit_of(book(shared, candidate(), candidate(account_id="acc_2")))

    assert permit.account_id == "acc_2"


def test_where_both_could_go_the_first_one_does(redis: Redis) -> None:
    redis.set(keys.pace("acc_2", ENDPOINT), "1")

    permit = permit_of(book(limiter(redis), candidate(account_id="acc_2"), candidate()))

    assert permit.account_id == "acc_2"


def test_the_account_that_can_go_soonest_goes(redis: Redis) -> None:
    redis.set(keys.pace("acc_2", ENDPOINT), "1")
    shared, accounts = limiter(redis), (candidate(qps=0.5), candidate(qps=0.5, account_id="acc_2"))

    taken = [permit_of(book(shared, *accounts)).account_id for _ in range(2)]

    assert taken == [ACCOUNT, "acc_2"]


def test_an_empty_account_is_named_while_another_takes_its_load(redis: Redis) -> None:
    redis.set(keys.pace("acc_2", ENDPOINT), "1")

    permit = permit_of(book(limiter(redis), candidate(day_limit=0), candidate(account_id="acc_2")))

    assert permit.account_id == "acc_2"
    assert [account.account_id for account in permit.used_up] == [ACCOUNT]
    assert permit.used_up[0].day is not None


# --- stopping, and Redis away ---


def test_a_stopping_process_waits_for_nothing(redis: Redis, stopping: threading.Event) -> None:
    stopping.set()

    assert isinstance(book(limiter(redis, stopping)), NoPermit)


def test_a_permit_whose_process_stops_is_given_back(redis: Redis, stopping: threading.Event) -> None:
    shared, only = limiter(redis, stopping), candidate(qps=0.5, day_limit=2)
    book(shared, only)
    permit = permit_of(book(shared, only))

    stopping.set()
    sent = shared.wait(permit)
    stopping.clear()

    assert not sent
    assert isinstance(book(shared, only), Permit)


def test_a_permit_whose_instant_was_missed_is_given_back(redis: Redis) -> None:
    shared, only = limiter(redis), candidate(day_limit=1)
    permit = permit_of(book(shared, only))

    time.sleep(max(0.0, permit.instant - time.monotonic()) + 0.1)

    assert not shared.wait(permit)
    assert isinstance(book(shared, only), Permit)


def test_without_redis_there_is_no_permit() -> None:
    nowhere = Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)

    with pytest.raises(LimiterUnavailableError):
        book(limiter(nowhere))
