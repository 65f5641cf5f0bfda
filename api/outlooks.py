"""How the lines move, looked up once a second for all who ask: what polls and `/v1/quotas` tell people."""

import threading
import time
from collections.abc import Sequence

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from shared.database.accounts import list_accounts
from shared.database.engine import transaction
from shared.database.stops import list_stops
from shared.domain.documents import DOCUMENT_TYPES
from shared.limits.outlook import Outlook, QuotaState, outlook_of, read_quotas
from shared.settings import Settings

log = structlog.get_logger(__name__)

_FRESH_SECONDS = 1.0
ENDPOINTS = sorted({document.endpoint for document in DOCUMENT_TYPES.values()})


class Outlooks:
    """Knows what is left and how fast the lines move. Safe to share between threads."""

    def __init__(self, engine: Engine, redis: Redis, settings: Settings) -> None:
        """Take where it looks."""
        self._engine = engine
        self._redis = redis
        self._initial_margin = settings.permit_jitter_seconds
        self._zone = settings.quota_zone
        self._lock = threading.Lock()
        self._states: Sequence[QuotaState] = ()
        self._looked_at = float("-inf")

    def outlook(self, endpoint: str) -> Outlook | None:
        """How the line of an endpoint moves; None while Redis is away.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        try:
            return outlook_of(self.states(), endpoint)
        except RedisError as error:
            log.info("no_outlook", error=type(error).__name__)
            return None

    def states(self) -> Sequence[QuotaState]:
        """Each endpoint of each account, at most a second old.

        Raises:
            RedisError: Redis is away.
            DatabaseUnavailableError: Postgres is away.
        """
        with self._lock:
            if time.monotonic() - self._looked_at > _FRESH_SECONDS:
                with transaction(self._engine) as connection:
                    accounts, stops = list_accounts(connection), list_stops(connection)
                self._states = read_quotas(
                    self._redis, accounts, stops, ENDPOINTS, initial_margin=self._initial_margin, zone=self._zone
                )
                self._looked_at = time.monotonic()
            return self._states
