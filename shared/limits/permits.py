"""Permits: the leave to make one call now.

A permit names an instant; its holder waits for it and calls at once, with everything else prepared. Calls of all
processes are one interval apart (`shared.domain.quota.paced_interval`), so no window of one second sees more than
the limit, whether the provider counts sliding seconds, fixed seconds, or a bucket.

When Redis is away there is no permit and so no call (fail closed).

Weakness: the spread between permit and arrival is assumed to stay under `permit_jitter_seconds`. A slower network now
and then earns an error 18, which pauses the endpoint for a second.
"""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from shared.domain.job import WaitingOn
from shared.domain.quota import Quota, paced_interval
from shared.limits import keys
from shared.metrics import PERMIT_LATENESS_SECONDS, PERMIT_WAIT_SECONDS

_SCRIPT = (Path(__file__).parent / "book.lua").read_text(encoding="utf-8")
_REFUND = (Path(__file__).parent / "refund.lua").read_text(encoding="utf-8")
_WINDOW = timedelta(seconds=1)
_COUNTER_LIFE = timedelta(hours=48)
_EPOCH = date(1970, 1, 1)
_LONGEST_SPREAD = 0.02
"""Seconds by which those who wait for a free slot are spread."""


class LimiterUnavailableError(Exception):
    """Redis does not answer: nobody may call."""


@dataclass(frozen=True)
class Permit:
    """One call may be made now at this account.

    `waited_seconds` is what it took to get here, `day` the provider's day it counts on, in days since 1970-01-01.
    """

    account_id: str
    endpoint: str
    waited_seconds: float
    day: int


@dataclass(frozen=True)
class NoPermit:
    """No call may be made; there may be a turn after `retry_after`, None: when the provider's day turns."""

    waiting_on: WaitingOn
    retry_after: timedelta | None


@dataclass(frozen=True)
class _Slot:
    """A booked turn: its instant by `time.monotonic`, and the provider's day it lies on."""

    instant: float
    day: int


_HAND_BACK = NoPermit(WaitingOn.WORKER, timedelta(0))


@dataclass(frozen=True)
class Candidate:
    """An account that could make the call."""

    account_id: str
    quota: Quota


class Limiter:
    """Asks for turns. Safe to share between threads and, through Redis, between machines."""

    def __init__(
        self,
        redis: Redis,
        *,
        jitter_seconds: float,
        count_calls: Callable[[str, str, date], int],
        stopping: threading.Event,
    ) -> None:
        """Take the parts it works with.

        Args:
            redis: a client that never repeats a command.
            jitter_seconds: spread between permit and arrival, kept as margin.
            count_calls: how many calls (account, endpoint, provider's day) Postgres knows of.
            stopping: set when the process shuts down: nobody waits for a slot any more.
        """
        self._redis = redis
        self._script = redis.register_script(_SCRIPT)
        self._refund = redis.register_script(_REFUND)
        self._jitter = jitter_seconds
        self._count_calls = count_calls
        self._stopping = stopping

    def acquire(
        self,
        candidates: list[Candidate],
        endpoint: str,
        *,
        longest_wait: timedelta,
        horizon: timedelta | None = None,
    ) -> Permit | NoPermit:
        """Wait for a turn at one of the accounts, the first that has one.

        Args:
            longest_wait: how long to wait in all.
            horizon: how far ahead a slot may be booked, None for all of the wait. A short one leaves the slots behind
                it to whoever is in more of a hurry.

        Raises:
            LimiterUnavailableError: Redis does not answer.
        """
        started = time.monotonic()
        deadline = started + longest_wait.total_seconds()
        while True:
            remaining = deadline - time.monotonic()
            reach = remaining if horizon is None else min(remaining, horizon.total_seconds())
            booked = self._book_any(candidates, endpoint, reach)
            if isinstance(booked, NoPermit):
                if booked.retry_after is None or booked.retry_after.total_seconds() >= remaining:
                    return booked
                # A slot can be booked as soon as it is within reach; one already there is hidden by a pause.
                pause = booked.retry_after.total_seconds()
                pause -= reach if pause > reach else 0
                # Not all at the same instant, or the same one would win every time.
                if self._stopping.wait(max(0.005, pause + random.uniform(0, _LONGEST_SPREAD))):  # noqa: S311
                    return _HAND_BACK
                continue
            candidate, slot = booked
            stopped = self._stopping.wait(max(0.0, slot.instant - time.monotonic()))
            late = time.monotonic() - slot.instant
            permit = Permit(candidate.account_id, endpoint, time.monotonic() - started, slot.day)
            if stopped:
                self.refund(permit)
                return _HAND_BACK
            PERMIT_LATENESS_SECONDS.observe(max(0.0, late))
            if late <= self._jitter:
                PERMIT_WAIT_SECONDS.labels(endpoint).observe(permit.waited_seconds)
                return permit
            # Sent so late, the call would crowd those of the next slots: give the slot up and book another.
            self.refund(permit)

    def pause(self, account_id: str, endpoint: str, length: timedelta) -> None:
        """Stop all calls of all workers for a while; best effort."""
        try:
            self._redis.set(keys.pause(account_id, endpoint), "1", px=max(1, int(length.total_seconds() * 1000)))
        except RedisError:
            return

    def refund(self, permit: Permit) -> None:
        """Take back from its day's count a call that was not made; best effort: a lost refund wastes, never exceeds."""
        try:
            self._refund(keys=[keys.day_counts(permit.account_id, permit.endpoint) + str(permit.day)])
        except RedisError:
            return

    def _book_any(
        self, candidates: list[Candidate], endpoint: str, wait_seconds: float
    ) -> tuple[Candidate, _Slot] | NoPermit:
        refusals: list[NoPermit] = []
        horizons = (0.0, wait_seconds) if len(candidates) > 1 else (wait_seconds,)
        for horizon in horizons:
            refusals = []
            for candidate in candidates:
                booked = self._book(candidate, endpoint, horizon)
                if not isinstance(booked, NoPermit):
                    return candidate, booked
                refusals.append(booked)
        # The soonest turn; a turn of the day is the furthest away.
        return min(refusals, key=lambda refusal: refusal.retry_after or timedelta.max)

    def _book(self, candidate: Candidate, endpoint: str, horizon_seconds: float) -> _Slot | NoPermit:
        """The next slot, or why there is none."""
        quota = candidate.quota
        interval = paced_interval(quota.qps, self._jitter)
        try:
            asked = time.monotonic()
            answer, microseconds, day = self._script(
                keys=[
                    keys.pace(candidate.account_id, endpoint),
                    keys.pause(candidate.account_id, endpoint),
                    keys.day_counts(candidate.account_id, endpoint),
                ],
                args=[
                    interval // timedelta.resolution,
                    max(0, int(horizon_seconds * 1e6)),
                    int(_WINDOW.total_seconds() * 1e6),
                    -1 if quota.day_limit is None else quota.day_limit,
                ],
            )
            # The server's now lies somewhere in the round trip: the end of it is the safe guess.
            answered = time.monotonic()
        except RedisError as error:
            raise LimiterUnavailableError(type(error).__name__) from error
        wait = timedelta(microseconds=int(microseconds))
        match answer:
            case "go":
                return _Slot((answered if wait else asked) + wait.total_seconds(), int(day))
            case "uncounted":
                self._count(candidate.account_id, endpoint, int(day))
                return self._book(candidate, endpoint, horizon_seconds)
            case "day_used_up":
                return NoPermit(WaitingOn.UPSTREAM_DAILY_QUOTA, None)
            case _:
                return NoPermit(WaitingOn.UPSTREAM_QPS, wait)

    def _count(self, account_id: str, endpoint: str, day: int) -> None:
        """Give a day its counter from what Postgres knows; the first process to do so wins."""
        used = self._count_calls(account_id, endpoint, _EPOCH + timedelta(days=day))
        try:
            self._redis.set(keys.day_counts(account_id, endpoint) + str(day), used, nx=True, ex=_COUNTER_LIFE)
        except RedisError as error:
            raise LimiterUnavailableError(type(error).__name__) from error
