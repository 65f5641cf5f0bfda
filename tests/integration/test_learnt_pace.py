"""What refusals teach the limiter, on a real Valkey."""

import time

import pytest
from redis import Redis

from shared.limits import keys
from shared.limits.permits import Limiter
from tests.integration.permit_tools import ACCOUNT, ENDPOINT, book, called_before, candidate, limiter, permit_of


@pytest.fixture
def redis(redis_client: Redis) -> Redis:
    """A Valkey in which the endpoint has been called before: slots are given at once."""
    return called_before(redis_client)


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
