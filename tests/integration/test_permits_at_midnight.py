"""A call counts on the provider's day on which it is made, whenever it was booked.

The real script runs on a real Valkey; only midnight is moved, to a moment of the test's choice.
"""

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest
from redis import Redis

from shared.domain.job import Lane, WaitingOn
from shared.domain.quota import Quota
from shared.limits import keys
from shared.limits.permits import Candidate, Limiter, NoPermit, Permit
from shared.limits.spread import SpreadMeter

ACCOUNT, ENDPOINT = "acc_1", "idcard"
SOON = timedelta(seconds=5)
_SHANGHAI = "28800"

MoveMidnight = Callable[[float], Limiter]


@pytest.fixture
def midnight_in(redis_client: Redis) -> MoveMidnight:
    """A limiter for whose provider the day turns in so many seconds, and has turned a day before."""
    redis_client.set(keys.pace(ACCOUNT, ENDPOINT), "1")

    def move(seconds: float) -> Limiter:
        now = int(redis_client.time()[0])
        return Limiter(
            redis_client,
            spread=SpreadMeter(redis_client, process="tests", initial_seconds=0.05, probe_seconds=0),
            count_calls=lambda *_: 0,
            stopping=threading.Event(),
            day_offset=timedelta(seconds=-now - seconds + 20_000 * 86_400),
        )

    return move


def take(limiter: Limiter, *, qps: float, day_limit: int | None = None) -> Permit | NoPermit:
    return limiter.book([Candidate(ACCOUNT, Quota(qps, day_limit))], ENDPOINT, Lane.INTERACTIVE, longest_wait=SOON)


def counts(redis: Redis) -> list[int]:
    """Calls counted on each day, oldest first."""
    return [int(str(redis.get(name))) for name in sorted(redis.keys(f"{keys.day_counts(ACCOUNT, ENDPOINT)}*"))]


def test_a_call_booked_before_midnight_for_after_it_counts_on_the_new_day(
    midnight_in: MoveMidnight, redis_client: Redis
) -> None:
    limiter = midnight_in(2)

    for _ in range(2):
        take(limiter, qps=0.4)  # the second slot lies more than two seconds behind the first

    assert counts(redis_client) == [1, 1]


def test_the_new_day_s_quota_is_not_passed_by_calls_booked_the_day_before(midnight_in: MoveMidnight) -> None:
    limiter = midnight_in(2)

    taken = [take(limiter, qps=0.4, day_limit=1) for _ in range(3)]

    assert [isinstance(outcome, Permit) for outcome in taken] == [True, True, False]
    refusal = taken[2]
    assert isinstance(refusal, NoPermit)
    assert (refusal.waiting_on, refusal.retry_after) == (WaitingOn.UPSTREAM_DAILY_QUOTA, None)


def test_a_call_of_yesterday_given_back_today_gives_today_nothing(
    midnight_in: MoveMidnight, redis_client: Redis
) -> None:
    limiter = midnight_in(2)
    yesterday, today = take(limiter, qps=0.4), take(limiter, qps=0.4)
    assert isinstance(yesterday, Permit)
    assert isinstance(today, Permit)

    limiter.give_back(yesterday)

    assert counts(redis_client) == [0, 1]


def test_a_call_given_back_after_redis_lost_its_count_does_not_stand_for_the_count(
    midnight_in: MoveMidnight, redis_client: Redis
) -> None:
    limiter = midnight_in(3600)
    permit = take(limiter, qps=50)
    assert isinstance(permit, Permit)
    redis_client.flushall()

    limiter.give_back(permit)

    assert counts(redis_client) == []
