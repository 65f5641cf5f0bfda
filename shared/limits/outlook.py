"""What each account has left at each endpoint, and when a job that waits may start: for people, read and not written.

Figures of one moment; between two looks they move. Without Redis there is none: `RedisError` is the caller's to catch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone

from redis import Redis

from shared.database.accounts import Account
from shared.database.stops import Stop
from shared.domain.job import WaitingOn
from shared.domain.quota import LEARNT_GROWTH_PER_MINUTE, Billing, end_of_day, quota_day
from shared.limits import keys
from shared.limits.spread import margin_of

_EPOCH = date(1970, 1, 1)
_SLOWED = 0.995


@dataclass(frozen=True)
class QuotaState:
    """One endpoint of one account. Limits None: there is none; counts None: nothing was called yet.

    `pace` is the calls a second that are made at most: the limit, less the margin, times the learnt share. `state` is
    `open`, `slowed` (refusals taught a smaller share), `paused` (by the operator), or a StopReason.
    """

    account_id: str
    account: str
    endpoint: str
    billing: Billing
    qps: float
    pace: float
    learnt_share: float
    calls_last_second: int
    in_flight: int
    in_flight_limit: int | None
    used_today: int | None
    day_limit: int | None
    used_in_all: int | None
    total_limit: int | None
    day_ends_at: datetime
    state: str
    stop: Stop | None

    @property
    def is_open(self) -> bool:
        """Whether calls are made."""
        return self.state in ("open", "slowed")

    @property
    def left_today(self) -> int | None:
        """Calls left on the provider's day; None: no limit."""
        return None if self.day_limit is None else max(0, self.day_limit - (self.used_today or 0))


@dataclass(frozen=True)
class Outlook:
    """How the line of one endpoint moves. `pace` in calls a second; `reopens_at` None: it is open, or nobody knows."""

    pace: float
    left_today: int | None
    day_ends_at: datetime
    waiting_on: WaitingOn | None
    reopens_at: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether any account may call it."""
        return self.waiting_on is None

    def starts_at(self, position: int, now: datetime) -> datetime | None:
        """When a job at this place in line may start, from 1; None: nobody knows."""
        if self.pace <= 0 or (not self.is_open and self.reopens_at is None):
            return None
        begin, ahead = (now if self.is_open else max(now, self.reopens_at or now)), position
        if self.is_open and self.left_today is not None and position > self.left_today:
            begin, ahead = self.day_ends_at, position - self.left_today
        return begin + timedelta(seconds=ahead / self.pace)


def read_quotas(
    redis: Redis,
    accounts: Sequence[Account],
    stops: Sequence[Stop],
    endpoints: Sequence[str],
    *,
    initial_margin: float,
    zone: timezone,
) -> list[QuotaState]:
    """Each endpoint of each account, by endpoint and then in the given order of accounts.

    Args:
        initial_margin: seconds of spread reckoned with where none is measured.
        zone: where the provider's day turns.

    Raises:
        RedisError: Redis does not answer.
    """
    seconds = int(redis.time()[0])
    today = quota_day(datetime.fromtimestamp(seconds, UTC), zone)
    places = [(account, endpoint) for endpoint in endpoints for account in accounts]
    pipeline = redis.pipeline(transaction=False)
    for account, endpoint in places:
        pipeline.get(keys.day_counts(account.id, endpoint) + str((today - _EPOCH).days))
        pipeline.get(keys.total_count(account.id, endpoint))
        pipeline.zcount(keys.in_flight(account.id, endpoint), seconds * 1_000_000, "+inf")
        pipeline.hgetall(keys.learnt(account.id, endpoint))
        pipeline.get(keys.second_counts(account.id, endpoint) + str(seconds - 1))
    for account in accounts:
        pipeline.hgetall(keys.spread(account.id))
    said = pipeline.execute()
    margins = {
        account.id: margin_of(told, initial_margin)
        for account, told in zip(accounts, said[5 * len(places) :], strict=True)
    }
    states = []
    for number, (account, endpoint) in enumerate(places):
        day_count, total, flying, learnt, second = said[5 * number : 5 * number + 5]
        quota = account.quota(endpoint)
        share = _share_now(learnt, seconds)
        stop = next((stop for stop in stops if stop.account_id == account.id and stop.concerns(endpoint)), None)
        states.append(
            QuotaState(
                account_id=account.id,
                account=account.name,
                endpoint=endpoint,
                billing=account.billing,
                qps=quota.qps,
                pace=share * quota.qps / (1 + margins[account.id]),
                learnt_share=share,
                calls_last_second=int(second or 0),
                in_flight=int(flying),
                in_flight_limit=quota.in_flight_limit,
                used_today=None if day_count is None else int(day_count),
                day_limit=quota.day_limit,
                used_in_all=None if total is None else int(total),
                total_limit=quota.total_limit,
                day_ends_at=end_of_day(today, zone),
                state=_state(account, stop, share),
                stop=stop,
            )
        )
    return states


def outlook_of(states: Sequence[QuotaState], endpoint: str) -> Outlook:
    """How the line of an endpoint moves, from the states of all accounts there."""
    here = [state for state in states if state.endpoint == endpoint]
    calling = [state for state in here if state.is_open]
    day_ends_at = min((state.day_ends_at for state in here), default=datetime.max.replace(tzinfo=UTC))
    if calling:
        lefts = [state.left_today for state in calling]
        left = None if None in lefts else sum(left for left in lefts if left is not None)
        return Outlook(sum(state.pace for state in calling), left, day_ends_at, None, None)
    stops = [state.stop for state in here if state.stop is not None and state.state != "paused"]
    ends = [stop.until for stop in stops if stop.until is not None]
    first = min(stops, key=lambda stop: (stop.until is None, stop.until or stop.since), default=None)
    waiting_on = WaitingOn.PROVIDER_OUTAGE if first is None else first.reason.waiting_on
    return Outlook(sum(state.pace for state in here), None, day_ends_at, waiting_on, min(ends, default=None))


def _share_now(learnt: Mapping[str, str], seconds: float) -> float:
    """The share of the pace in use now, as `book.lua` reckons it."""
    if "share" not in learnt:
        return 1.0
    grown = float(learnt["share"]) + (seconds - float(learnt["at"]) / 1e6) * LEARNT_GROWTH_PER_MINUTE / 60
    cap = float(learnt["cap"]) if float(learnt.get("cap_until", 0)) / 1e6 > seconds else 1.0
    return max(0.0, min(cap, grown))


def _state(account: Account, stop: Stop | None, share: float) -> str:
    if account.paused:
        return "paused"
    if stop is not None:
        return stop.reason.value
    return "slowed" if share < _SLOWED else "open"
