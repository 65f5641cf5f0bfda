"""Permits on a real Valkey: never closer than the pace, never more than the day's quota, none without Redis."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from itertools import pairwise

import pytest
from redis import Redis

from shared.domain.job import Lane, WaitingOn
from shared.domain.quota import Quota
from shared.limits import keys
from shared.limits.connection import connect
from shared.limits.permits import Candidate, Limiter, LimiterUnavailableError, NoPermit, Permit
from shared.limits.spread import SpreadMeter
from shared.settings import Settings

ACCOUNT, ENDPOINT = "acc_1", "idcard"
SOON = timedelta(seconds=5)
LATER = timedelta(seconds=60)


class Counts:
    """What Postgres would say of the calls of a day, or of all days."""

    def __init__(self, used: int = 0) -> None:
        self.used = used
        self.asked: list[date | None] = []

    def __call__(self, account_id: str, endpoint: str, day: date | None) -> int:
        self.asked.append(day)
        return self.used


@pytest.fixture
def redis(redis_client: Redis) -> Redis:
    """A Valkey in which the endpoint has been called before: slots are given at once."""
    redis_client.set(keys.pace(ACCOUNT, ENDPOINT), "1")
    return redis_client


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


def limiter(
    redis: Redis, stopping: threading.Event | None = None, counts: Counts | None = None, *, most_waiting: int = 1000
) -> Limiter:
    return Limiter(
        redis,
        spread=SpreadMeter(redis, process="tests", initial_seconds=0.02, probe_seconds=0),
        count_calls=counts or Counts(),
        stopping=stopping or threading.Event(),
        most_waiting=most_waiting,
    )


def candidate(qps: float = 50, day_limit: int | None = None, account_id: str = ACCOUNT, **limits: int) -> Candidate:
    return Candidate(account_id, Quota(qps, day_limit, **limits))


def book(
    shared: Limiter, *candidates: Candidate, lane: Lane = Lane.INTERACTIVE, longest_wait: timedelta = SOON
) -> Permit | NoPermit:
    return shared.book(list(candidates) or [candidate()], ENDPOINT, lane, longest_wait=longest_wait)


def permit_of(booked: Permit | NoPermit) -> Permit:
    assert isinstance(booked, Permit)
    return booked


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

    shared.end(permit, taken=False, counted=True, unanswered=True)

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


# --- what refusals teach ---


def refuse(shared: Limiter, redis: Redis, *, after: int = 0, qps: float = 50) -> bool:
    """A refusal after so many calls were taken, a while after the last cut."""
    redis.hset(keys.learnt(ACCOUNT, ENDPOINT), "taken", after)
    if redis.hexists(keys.learnt(ACCOUNT, ENDPOINT), "cut_at"):
        redis.hset(keys.learnt(ACCOUNT, ENDPOINT), "cut_at", str(int((time.time() - 60) * 1e6)))
    redis.delete(keys.pause(ACCOUNT, ENDPOINT))
    redis.set(keys.pace(ACCOUNT, ENDPOINT), "1")
    return shared.slow_down(permit_of(book(shared, candidate(qps))), qps)


def share(redis: Redis) -> float:
    return float(str(redis.hget(keys.learnt(ACCOUNT, ENDPOINT), "share")))


def test_the_first_refusal_slows_the_lane_a_little_and_at_once(redis: Redis) -> None:
    refuse(limiter(redis), redis)

    assert share(redis) == pytest.approx(0.98)


def test_refusals_without_calls_between_them_slow_it_a_lot_and_are_remembered(redis: Redis) -> None:
    shared = limiter(redis)

    for _ in range(3):
        refuse(shared, redis)

    assert share(redis) == pytest.approx(0.98 * 0.9 * 0.9, abs=0.002)
    assert float(str(redis.hget(keys.learnt(ACCOUNT, ENDPOINT), "cap"))) == pytest.approx(0.97 * 0.98 * 0.9, abs=0.002)
    assert redis.exists(keys.pause(ACCOUNT, ENDPOINT))


def test_a_refusal_in_a_thousand_calls_slows_it_a_little(redis: Redis) -> None:
    shared = limiter(redis)

    refuse(shared, redis)
    refuse(shared, redis, after=1000)

    assert share(redis) == pytest.approx(0.98 * 0.98, abs=0.002)


def test_refusals_of_calls_that_were_under_way_together_count_once(redis: Redis) -> None:
    shared = limiter(redis)
    permits = [permit_of(book(shared)) for _ in range(5)]

    for permit in permits:
        shared.slow_down(permit, 50)

    assert share(redis) == pytest.approx(0.98)


def test_the_pace_creeps_back(redis: Redis) -> None:
    shared, full = limiter(redis), candidate(qps=10)
    refuse(shared, redis, qps=10)
    redis.hset(keys.learnt(ACCOUNT, ENDPOINT), "share", "0.5")
    two_minutes_ago = (int(redis.time()[0]) - 120) * 1_000_000
    redis.hset(keys.learnt(ACCOUNT, ENDPOINT), "at", str(two_minutes_ago))
    first, second = (permit_of(book(shared, full)).instant for _ in range(2))

    assert second - first == pytest.approx(0.102 / 0.52, rel=0.05)


def test_a_share_that_was_too_much_is_not_tried_again_within_the_hour(redis: Redis) -> None:
    shared = limiter(redis)
    refuse(shared, redis)
    refuse(shared, redis)
    cap = float(str(redis.hget(keys.learnt(ACCOUNT, ENDPOINT), "cap")))
    redis.hset(keys.learnt(ACCOUNT, ENDPOINT), "at", "1")  # long enough ago to have crept back to the whole
    redis.delete(keys.pause(ACCOUNT, ENDPOINT))

    first, second = (permit_of(book(shared, candidate(qps=10))).instant for _ in range(2))

    assert second - first == pytest.approx(0.102 / cap, rel=0.05)


def test_refusals_in_a_row_at_the_slowest_pace_are_hopeless(redis: Redis) -> None:
    shared = limiter(redis)

    verdicts = [refuse(shared, redis, qps=0.5) for _ in range(5)]

    assert verdicts == [False, False, False, False, True]


def test_a_call_that_is_taken_ends_the_row(redis: Redis) -> None:
    shared = limiter(redis)
    for _ in range(4):
        refuse(shared, redis, qps=0.5)

    shared.end(permit_of(book(shared)), taken=True, counted=True)

    assert not refuse(shared, redis, qps=0.5)


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
