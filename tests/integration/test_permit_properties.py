"""Whatever happens to those who ask for permits, the provider sees no window over the limit.

Real processes' worth of limiters on a real Valkey; Hypothesis picks who asks when, who dies with a slot booked, whose
clock is wrong, and when Redis loses everything. A permit's instant, on the server's own clock, stands for the arrival.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from shared.domain.job import Lane
from shared.domain.quota import Quota
from shared.limits import keys
from shared.limits.connection import connect
from shared.limits.permits import Candidate, Limiter, NoPermit, Permit
from shared.limits.spread import SpreadMeter
from shared.settings import Settings

ENDPOINT = "idcard"
QPS = 20.0
LONG = timedelta(seconds=30)

STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),  # which process
        st.sampled_from(["ask", "ask", "ask", "ask", "give back", "die", "flush", "pause", "wrong clock"]),
        st.sampled_from(list(Lane)),
    ),
    min_size=20,
    max_size=60,
)


@pytest.fixture
def redises(settings: Settings, redis_client: Redis) -> Iterator[list[Redis]]:
    clients = [connect(settings) for _ in range(3)]
    yield clients
    for client in clients:
        client.close()


def limiter(redis: Redis, calls: list[float] | None = None) -> Limiter:
    return Limiter(
        redis,
        spread=SpreadMeter(redis, process="tests", initial_seconds=0.0, probe_seconds=0),
        count_calls=lambda *_: len(calls or ()),
        stopping=threading.Event(),
    )


def slot_of(redis: Redis, account_id: str, interval: float) -> float:
    """The slot booked last, on the server's clock."""
    return int(str(redis.get(keys.pace(account_id, ENDPOINT)))) / 1e6 - interval


def most_in_a_second(slots: list[float]) -> int:
    """The fullest window of a second, open at its beginning."""
    ordered = sorted(slots)
    return max((number - bisect_left(ordered, slot - 1 + 1e-5) + 1 for number, slot in enumerate(ordered)), default=0)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_no_second_ever_holds_more_slots_than_the_limit(
    redises: list[Redis], redis_client: Redis, steps: list[tuple[int, str, Lane]]
) -> None:
    redis_client.flushall()
    redis_client.set(keys.pace("acc", ENDPOINT), "1")
    limiters, slots = [limiter(redis) for redis in redises], list[float]()
    last: Permit | None = None

    for process, step, lane in steps:
        match step:
            case "ask":
                asked = limiters[process].book([Candidate("acc", Quota(QPS))], ENDPOINT, lane, longest_wait=LONG)
                assert isinstance(asked, Permit)
                last = asked
                slots.append(slot_of(redis_client, "acc", 1 / QPS))
            case "give back" if last is not None:
                limiters[process].give_back(last)  # its count, never its slot
            case "die":
                limiters[process] = limiter(redises[process])  # with all the slots it had booked
            case "flush":
                redis_client.flushall()
            case "pause":
                limiters[process].pause("acc", ENDPOINT, timedelta(milliseconds=20))
            case "wrong clock":
                with patch("time.time", return_value=0.0):
                    asked = limiters[process].book([Candidate("acc", Quota(QPS))], ENDPOINT, lane, longest_wait=LONG)
                slots.append(slot_of(redis_client, "acc", 1 / QPS))
                assert isinstance(asked, Permit)

    assert most_in_a_second(slots) <= QPS


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(day_limit=st.integers(0, 15), askers=st.integers(1, 25), flush_after=st.integers(0, 25))
def test_no_day_ever_holds_more_calls_than_the_limit_though_redis_forgets(
    redises: list[Redis], redis_client: Redis, day_limit: int, askers: int, flush_after: int
) -> None:
    """What was called before the loss is what Postgres knows."""
    redis_client.flushall()
    redis_client.set(keys.pace("acc", ENDPOINT), "1")
    calls: list[float] = []
    limiters = [limiter(redis, calls) for redis in redises]
    only = Candidate("acc", Quota(500.0, day_limit))

    def ask(number: int) -> None:
        if isinstance(limiters[number % 3].book([only], ENDPOINT, Lane.INTERACTIVE, longest_wait=LONG), Permit):
            calls.append(0.0)

    for number in range(min(askers, flush_after)):
        ask(number)
    redis_client.delete(*redis_client.keys("kz:*:day:*") or ["none"])
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(max(0, askers - flush_after))))

    assert len(calls) == min(day_limit, askers)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cap=st.integers(1, 5), answered=st.lists(st.booleans(), min_size=5, max_size=30))
def test_no_more_calls_are_in_flight_than_the_limit(
    redises: list[Redis], redis_client: Redis, cap: int, answered: list[bool]
) -> None:
    redis_client.flushall()
    redis_client.set(keys.pace("acc", ENDPOINT), "1")
    limiters, flying = [limiter(redis) for redis in redises], list[Permit]()
    # So fast that no permit is refused for its slot.
    only = Candidate("acc", Quota(100_000.0, in_flight_limit=cap))

    for number, is_answered in enumerate(answered):
        asked = limiters[number % 3].book([only], ENDPOINT, Lane.INTERACTIVE, longest_wait=timedelta(milliseconds=25))
        if isinstance(asked, NoPermit):
            assert len(flying) == cap
        else:
            flying.append(asked)
        assert len(flying) <= cap
        if is_answered and flying:
            limiters[number % 3].end(flying.pop(0), taken=True, counted=True)
