"""What the tests of permits share: one endpoint of one account, and short ways to ask for it."""

import threading
from datetime import date, timedelta

from redis import Redis

from shared.domain.job import Lane
from shared.domain.quota import Quota
from shared.limits import keys
from shared.limits.permits import Candidate, Limiter, NoPermit, Permit
from shared.limits.spread import SpreadMeter

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


def called_before(redis: Redis) -> Redis:
    """A Valkey in which the endpoint has been called before: slots are given at once."""
    redis.set(keys.pace(ACCOUNT, ENDPOINT), "1")
    return redis


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
