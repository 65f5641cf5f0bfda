"""How far apart permit and arrival may drift: the margin that keeps two calls from arriving in one slot.

Two things are measured, and each adds to the margin:

- the network: the spread of round trips of a request that asks the provider for nothing (`Provider.warm_up`), over
  the last hundred. One way spreads no more than both ways do. The longest few of the hundred are left out: a margin for
  the rarest delay would cost more calls than it saves, and for a refusal one call must be late and a later one early.
- this machine: how late threads wake for their instant. Those later than nearly all others give their slot up.

Every process shares what it measured: processes with different ways to the provider spread more than each alone.
Until enough is known, the setting holds; for a process that does not know its own lateness yet, for its own calls.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping

import structlog
from redis import Redis
from redis.exceptions import RedisError

from shared.limits import keys

log = structlog.get_logger(__name__)

_ROUND_TRIPS = 100
_ENOUGH = 30
_LATENESSES = 200
_NEARLY_ALL = 0.96
_FORGET_SECONDS = 600
_SHARE_SECONDS = 2.0
_LEAST_LATENESS = 0.002
_LARGEST_MARGIN = 0.5


class SpreadMeter:
    """Measures, shares and tells. Safe to share between threads."""

    def __init__(self, redis: Redis, *, process: str, initial_seconds: float, probe_seconds: float) -> None:
        """Take where to share it and the name of this process there.

        Args:
            initial_seconds: the margin until enough is measured, and the most that is given to late threads.
            probe_seconds: how often, in the whole fleet, an account's network is probed; 0: never.
        """
        self._redis = redis
        self._process = process
        self._initial = initial_seconds
        self._probe_seconds = probe_seconds
        self._lock = threading.Lock()
        self._round_trips: dict[str, deque[tuple[float, float]]] = {}
        self._lateness: deque[float] = deque(maxlen=_LATENESSES)
        self._latest = initial_seconds
        self._margins: dict[str, float] = {}
        self._shared_at: dict[str, float] = {}
        self._probed_at: dict[str, float] = {}

    def is_probe_due(self, account_id: str) -> bool:
        """Whether it is this process's turn to probe the network; True to one asker only."""
        now = time.monotonic()
        with self._lock:
            if self._probe_seconds <= 0 or now - self._probed_at.get(account_id, -1e9) < self._probe_seconds:
                return False
            self._probed_at[account_id] = now
        try:
            life = max(1, int(self._probe_seconds * 1000))
            return bool(self._redis.set(keys.spread_probe(account_id), "1", px=life, nx=True))
        except RedisError:
            return False

    def observe_round_trip(self, account_id: str, seconds: float) -> None:
        """Take one round trip to the account's provider."""
        with self._lock:
            trips = self._round_trips.setdefault(account_id, deque(maxlen=_ROUND_TRIPS))
            trips.append((time.monotonic(), seconds))

    def observe_lateness(self, seconds: float) -> None:
        """Take how late a thread woke for its instant."""
        with self._lock:
            self._lateness.append(max(0.0, seconds))
            if len(self._lateness) >= _ENOUGH:
                ordered = sorted(self._lateness)
                nearly_all = ordered[int(len(ordered) * 0.995)]
                self._latest = min(max(_LEAST_LATENESS, nearly_all), max(_LEAST_LATENESS, self._initial))

    def latest(self) -> float:
        """Seconds after its instant up to which a call is still sent."""
        return self._latest

    def margin(self, account_id: str) -> float:
        """Seconds of spread to reckon with."""
        now = time.monotonic()
        with self._lock:
            is_due = now - self._shared_at.get(account_id, -1e9) > _SHARE_SECONDS
            if is_due:
                self._shared_at[account_id] = now
        if is_due:
            self._share(account_id)
        return self._margins.get(account_id, self._initial)

    def _share(self, account_id: str) -> None:
        """Tell the other processes what was measured here, and reckon with what they tell."""
        now = time.monotonic()
        with self._lock:
            trips = [trip for at, trip in self._round_trips.get(account_id, ()) if now - at < _FORGET_SECONDS]
            trips.sort()
            knows_itself = len(self._lateness) >= _ENOUGH
        said = " ".join(f"{trip:.5f}" for trip in (self._latest if knows_itself else 0.0, *trips))
        try:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.hset(keys.spread(account_id), self._process, f"{time.time():.0f} {said}")
            pipeline.expire(keys.spread(account_id), _FORGET_SECONDS)
            pipeline.hgetall(keys.spread(account_id))
            told: dict[str, str] = pipeline.execute()[-1]
            for process, text in told.items():
                if time.time() - float(text.split()[0]) > _FORGET_SECONDS:
                    self._redis.hdel(keys.spread(account_id), process)
        except RedisError:
            return
        margin = margin_of(told, self._initial)
        if not knows_itself:
            margin = max(margin, self._initial)
        if abs(margin - self._margins.get(account_id, -1)) > 0.01:
            log.info("margin_changed", account_id=account_id, margin_ms=round(margin * 1000, 1))
        self._margins[account_id] = margin


def margin_of(told: Mapping[str, str], initial_seconds: float) -> float:
    """The margin that follows from what all processes told (the hash `keys.spread`), in seconds.

    What was told longer ago than ten minutes, by a process that is gone, is left out; until enough is known, it is
    `initial_seconds`.
    """
    now, latest = time.time(), 0.0
    trips: list[float] = []
    for text in told.values():
        at, late, *measured = map(float, text.split())
        if now - at <= _FORGET_SECONDS:
            latest = max(latest, late)
            trips.extend(measured)
    if len(trips) < _ENOUGH:
        return initial_seconds
    trips.sort()
    longest = trips[int((len(trips) - 1) * _NEARLY_ALL)]
    return min(_LARGEST_MARGIN, longest - trips[0] + latest)
