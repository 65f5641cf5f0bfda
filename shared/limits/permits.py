"""Permits: the leave to make one call at an instant.

Calls of all processes are one interval apart (`shared.domain.quota.paced_interval`), so no window of one second sees
more than the limit, whether the provider counts sliding seconds, fixed seconds, or a bucket; one that counts calls in
flight has a limit of its own. A booked slot leaves time to record the attempt; its holder waits for the instant and
sends at once. A holder that wakes too late gives the slot up: sent late, the call would crowd the next ones.

Those of one lane and endpoint stand in one line in each process, and only the first of it asks Redis: however many
wait, a slot costs one question a process.

When Redis is away there is no permit and so no call (fail closed).

Weakness: the spread between permit and arrival is measured by probes of the network, not seen at the provider
(`shared.limits.spread`). A call that arrives later than all probes did may earn an error 18; a few of them slow the
lane down (`slow_down.lua`).
"""

import random
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from shared.domain.job import Lane, WaitingOn
from shared.domain.quota import LEARNT_GROWTH_PER_MINUTE, Quota, paced_interval
from shared.limits import keys
from shared.limits.spread import SpreadMeter
from shared.metrics import PERMIT_LATENESS_SECONDS, PERMIT_WAIT_SECONDS

_WINDOW = timedelta(seconds=1)
_COUNTER_LIFE = timedelta(hours=48)
_EPOCH = date(1970, 1, 1)
_LEAD = timedelta(milliseconds=15)
"""A slot is at least so far away: time to record the attempt."""
_BULK_REACH = timedelta(milliseconds=50)
"""Bulk books a slot so shortly before it begins: late enough to leave it to a person, early enough not to miss it."""
_SETTLE_SECONDS = 0.25
"""Attempts of permits given just before Redis lost its counts are in Postgres after this."""
_LONGEST_SPREAD = 0.01
"""Seconds by which the processes that wait for the same slot are spread."""
_SLOWEST_QPS = 0.5
HOPELESS_REFUSALS = 5
"""So many refusals in a row at the slowest pace are no matter of pace."""


class LimiterUnavailableError(Exception):
    """Redis does not answer: nobody may call."""


@dataclass(frozen=True)
class Candidate:
    """An account that could make the call."""

    account_id: str
    quota: Quota


@dataclass(frozen=True)
class Permit:
    """One call may be made at this account at an instant (`time.monotonic`).

    `waited_seconds` is what it took to get here, the wait for the instant included; `quota_day` the provider's day it
    counts on; `used_up` names accounts found without calls left on the way, with what they lack.
    """

    id: str
    account_id: str
    endpoint: str
    lane: Lane
    instant: float
    waited_seconds: float
    quota_day: date
    used_up: tuple["UsedUp", ...] = ()


@dataclass(frozen=True)
class NoPermit:
    """No call may be made; there may be a turn after `retry_after`, None: not before an account has quota again."""

    waiting_on: WaitingOn
    retry_after: timedelta | None
    used_up: tuple["UsedUp", ...] = ()


@dataclass(frozen=True)
class UsedUp:
    """An account without calls left, on a provider's day or (None) in all."""

    account_id: str
    day: date | None


_HAND_BACK = NoPermit(WaitingOn.WORKER, timedelta(0))


class _Line:
    """Who waits in this process for one endpoint in one lane; the first of it asks for a slot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: deque[threading.Event] = deque()
        self._booked = 0

    def __len__(self) -> int:
        return len(self._turns) + self._booked

    def count_booked(self, change: int) -> None:
        """Count those whose slot is booked and has not come."""
        with self._lock:
            self._booked += change

    @contextmanager
    def turn(self) -> Iterator[threading.Event]:
        """A place in line; the event is set once it is the first one."""
        mine = threading.Event()
        with self._lock:
            self._turns.append(mine)
            self._turns[0].set()
        try:
            yield mine
        finally:
            with self._lock:
                self._turns.remove(mine)
                if self._turns:
                    self._turns[0].set()


class Limiter:
    """Asks for turns. Safe to share between threads and, through Redis, between machines."""

    def __init__(
        self,
        redis: Redis,
        *,
        spread: SpreadMeter,
        count_calls: Callable[[str, str, date | None], int],
        stopping: threading.Event,
        bulk_share: float = 0.1,
        day_offset: timedelta = timedelta(hours=8),
        call_life: timedelta = timedelta(seconds=60),
        most_waiting: int = 1000,
    ) -> None:
        """Take the parts it works with.

        Args:
            redis: a client that never repeats a command.
            spread: tells the margin to keep.
            count_calls: how many calls (account, endpoint, provider's day; None: in all) Postgres knows of.
            stopping: set when the process shuts down: nobody waits for a slot any more.
            bulk_share: share of the slots kept for bulk, 0 to 1.
            day_offset: the provider's zone.
            call_life: after so long a call that nobody ended is no longer counted as in flight.
            most_waiting: interactive jobs that may wait in this process for one endpoint; more wait in Postgres.
        """
        self._redis = redis
        self._spread = spread
        self._count_calls = count_calls
        self._stopping = stopping
        self._bulk_every = round(1 / bulk_share) if bulk_share > 0 else 0
        self._day_offset = day_offset
        self._call_life = call_life
        self._most_waiting = most_waiting
        self._book = redis.register_script(_script("book"))
        self._end = redis.register_script(_script("end"))
        self._slow_down = redis.register_script(_script("slow_down"))
        self._lines: dict[tuple[Lane, str], _Line] = {}
        self._lines_lock = threading.Lock()

    def book(
        self, candidates: list[Candidate], endpoint: str, lane: Lane, *, longest_wait: timedelta
    ) -> Permit | NoPermit:
        """Wait until a slot is within reach, and book it: the soonest, at the first account that has it.

        Args:
            candidates: in the order in which accounts are preferred.
            longest_wait: how long to wait in all, up to the slot itself.

        Raises:
            LimiterUnavailableError: Redis does not answer.
        """
        started = time.monotonic()
        deadline = started + longest_wait.total_seconds()
        line = self._line(lane, endpoint)
        if lane is Lane.INTERACTIVE and len(line) >= self._most_waiting:
            pace = sum(candidate.quota.qps for candidate in candidates)
            return NoPermit(WaitingOn.UPSTREAM_QPS, timedelta(seconds=len(line) / pace))
        with line.turn() as turn:
            while not turn.wait(max(0.0, min(0.5, deadline - time.monotonic()))):
                if self._stopping.is_set():
                    return _HAND_BACK
                if time.monotonic() >= deadline:
                    return NoPermit(WaitingOn.UPSTREAM_QPS, timedelta(seconds=1))
            while True:
                if self._stopping.is_set():
                    return _HAND_BACK
                offered = self._ask(candidates, endpoint, lane, deadline, started)
                if isinstance(offered, Permit):
                    line.count_booked(1)
                    return offered
                if offered.retry_after is None:
                    return offered
                pause = offered.retry_after.total_seconds()
                if time.monotonic() + pause >= deadline:
                    return offered
                # Not all processes at the same instant, or the same one would win every time.
                self._stopping.wait(max(0.002, pause) + random.uniform(0, _LONGEST_SPREAD))  # noqa: S311

    def wait(self, permit: Permit) -> bool:
        """Wait for a permit's instant. False: it passed, or the process stops; the permit is given back."""
        stopped = self._stopping.wait(max(0.0, permit.instant - time.monotonic()))
        late = time.monotonic() - permit.instant
        self._line(permit.lane, permit.endpoint).count_booked(-1)
        PERMIT_LATENESS_SECONDS.observe(max(0.0, late))
        self._spread.observe_lateness(late)
        if stopped or late > self._spread.latest():
            self.give_back(permit)
            return False
        PERMIT_WAIT_SECONDS.labels(permit.endpoint).observe(permit.waited_seconds)
        return True

    def abandon(self, permit: Permit) -> None:
        """Give a permit back whose instant was not waited for."""
        self._line(permit.lane, permit.endpoint).count_booked(-1)
        self.give_back(permit)

    def give_back(self, permit: Permit) -> None:
        """The call was not made: it is taken back from the counts. Best effort: a lost word wastes, never exceeds."""
        self.end(permit, taken=False, counted=False, answered=None)

    def end(
        self, permit: Permit, *, taken: bool, counted: bool, answered: bool | None = True, still_flying: bool = False
    ) -> int:
        """The call is over; best effort.

        Args:
            taken: the provider let it in.
            counted: it uses up quota.
            answered: the provider said something; None: it was not called.
            still_flying: the provider may still be at work on it.

        Returns:
            Calls in a row, of all workers, that got no answer; 0 as well when Redis is away.
        """
        account_id, endpoint = permit.account_id, permit.endpoint
        day = (permit.quota_day - _EPOCH).days
        try:
            silent = self._end(
                keys=[
                    keys.in_flight(account_id, endpoint),
                    keys.learnt(account_id, endpoint),
                    keys.day_counts(account_id, endpoint) + str(day),
                    keys.total_count(account_id, endpoint),
                ],
                args=[
                    permit.id,
                    int(taken),
                    int(not counted),
                    int(still_flying),
                    "" if answered is None else int(answered),
                ],
            )
        except RedisError:
            return 0
        return int(silent)

    def slow_down(self, permit: Permit, qps: float) -> bool:
        """The provider refused a call for its rate. True: it does so at the slowest pace again and again.

        Args:
            qps: the limit the account is said to have.
        """
        slowest = min(1.0, _SLOWEST_QPS / qps)
        try:
            millionths, refusals = self._slow_down(
                keys=[
                    keys.pause(permit.account_id, permit.endpoint),
                    keys.learnt(permit.account_id, permit.endpoint),
                ],
                args=[slowest, LEARNT_GROWTH_PER_MINUTE / 60e6],
            )
        except RedisError:
            return False
        return int(refusals) >= HOPELESS_REFUSALS and int(millionths) <= slowest * 1.1e6

    def pause(self, account_id: str, endpoint: str, length: timedelta) -> None:
        """Stop all calls of all workers for a while; best effort."""
        try:
            self._redis.set(keys.pause(account_id, endpoint), "1", px=max(1, int(length.total_seconds() * 1000)))
        except RedisError:
            return

    def _line(self, lane: Lane, endpoint: str) -> _Line:
        with self._lines_lock:
            return self._lines.setdefault((lane, endpoint), _Line())

    def _ask(
        self, candidates: list[Candidate], endpoint: str, lane: Lane, deadline: float, started: float
    ) -> Permit | NoPermit:
        """The next slot, or why there is none yet."""
        remaining = max(0.0, deadline - time.monotonic())
        reach = min(remaining, _BULK_REACH.total_seconds()) if lane is Lane.BULK else remaining
        call_id = secrets.token_hex(8)
        while True:
            try:
                asked = time.monotonic()
                answer, wait, number, day, answers, *more = self._book(
                    keys=[key for candidate in candidates for key in _keys(candidate.account_id, endpoint)],
                    args=[
                        int(reach * 1e6),
                        _LEAD // timedelta.resolution,
                        _WINDOW // timedelta.resolution,
                        int(self._day_offset.total_seconds()),
                        call_id,
                        self._call_life // timedelta.resolution,
                        lane.value,
                        self._bulk_every,
                        LEARNT_GROWTH_PER_MINUTE / 60e6,
                        *(limit for candidate in candidates for limit in self._limits(candidate)),
                    ],
                )
                answered = time.monotonic()
            except RedisError as error:
                raise LimiterUnavailableError(type(error).__name__) from error
            if answer != "uncounted":
                break
            self._count(candidates[int(number) - 1].account_id, endpoint, int(day), in_all=answers == "total")
        empty_day = int(more[0]) if more else int(day)
        used_up = _used_up(candidates, str(answers), _EPOCH + timedelta(days=empty_day))
        if answer == "go":
            # The server's now lies somewhere in the round trip: the middle is off by half of it at most.
            instant = (asked + answered) / 2 + int(wait) / 1e6
            return Permit(
                call_id,
                candidates[int(number) - 1].account_id,
                endpoint,
                lane,
                instant,
                max(0.0, instant - started),
                _EPOCH + timedelta(days=int(day)),
                used_up,
            )
        if int(wait) < 0:
            is_daily = any(account.day is not None for account in used_up)
            reason = WaitingOn.UPSTREAM_DAILY_QUOTA if is_daily else WaitingOn.UPSTREAM_TOTAL_QUOTA
            return NoPermit(reason, None, used_up)
        return NoPermit(WaitingOn.UPSTREAM_QPS, timedelta(microseconds=int(wait)), used_up)

    def _limits(self, candidate: Candidate) -> tuple[int, int, int, int]:
        quota = candidate.quota
        interval = paced_interval(quota.qps, self._spread.margin(candidate.account_id))
        return (
            interval // timedelta.resolution,
            -1 if quota.day_limit is None else quota.day_limit,
            -1 if quota.total_limit is None else quota.total_limit,
            -1 if quota.in_flight_limit is None else quota.in_flight_limit,
        )

    def _count(self, account_id: str, endpoint: str, day: int, *, in_all: bool) -> None:
        """Give a counter what Postgres knows; the first process to do so wins."""
        self._stopping.wait(_SETTLE_SECONDS)
        used = self._count_calls(account_id, endpoint, None if in_all else _EPOCH + timedelta(days=day))
        try:
            if in_all:
                self._redis.set(keys.total_count(account_id, endpoint), used, nx=True)
            else:
                self._redis.set(keys.day_counts(account_id, endpoint) + str(day), used, nx=True, ex=_COUNTER_LIFE)
        except RedisError as error:
            raise LimiterUnavailableError(type(error).__name__) from error


def _script(name: str) -> str:
    return (Path(__file__).parent / f"{name}.lua").read_text(encoding="utf-8")


def _keys(account_id: str, endpoint: str) -> list[str]:
    return [
        keys.pace(account_id, endpoint),
        keys.pause(account_id, endpoint),
        keys.day_counts(account_id, endpoint),
        keys.total_count(account_id, endpoint),
        keys.in_flight(account_id, endpoint),
        keys.learnt(account_id, endpoint),
        keys.second_counts(account_id, endpoint),
    ]


def _used_up(candidates: list[Candidate], answers: str, day: date) -> tuple[UsedUp, ...]:
    return tuple(
        UsedUp(candidate.account_id, day if answer == "d" else None)
        for candidate, answer in zip(candidates, answers, strict=True)
        if answer in "dt"
    )
