"""The accounts a call may be made with, read anew every few seconds: a change takes effect while running."""

import threading
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import Engine

from shared.clock import Clock
from shared.database.accounts import Account, list_accounts
from shared.database.engine import transaction
from shared.database.stops import Stop, lift_due_stops, list_stops, put_stop, take_probe
from shared.domain.job import WaitingOn
from shared.domain.quota import Billing, StopReason
from shared.domain.retry import RetryPolicy
from worker.providers.protocol import Credentials

log = structlog.get_logger(__name__)

_FRESH_SECONDS = 3.0


class AccountPool:
    """Knows the accounts and what stops them. Safe to share between threads."""

    def __init__(
        self,
        engine: Engine,
        secret_key: str,
        *,
        order: Sequence[Billing] = tuple(Billing),
        policy: RetryPolicy | None = None,
        clock: Clock,
    ) -> None:
        """Take the database and the key that opens account secrets; `order` says whom to use first."""
        self._engine = engine
        self._secret_key = secret_key
        self._order = [*order, *(billing for billing in Billing if billing not in order)]
        self._policy = policy or RetryPolicy()
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: list[Account] = []
        self._stops: list[Stop] = []
        self._read_at = float("-inf")

    def usable(self, endpoint: str) -> list[Account]:
        """Accounts that may call an endpoint now, in the order in which they are preferred.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        accounts, stops = self._read()
        stopped = {stop.account_id for stop in stops if stop.concerns(endpoint)}
        usable = [account for account in accounts if not account.paused and account.id not in stopped]
        return sorted(usable, key=lambda account: self._order.index(account.billing))

    def probe(self, endpoint: str) -> Account | None:
        """A stopped account that one call may try again; the caller is the only one to get it.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        accounts, _ = self._read()
        by_id = {account.id: account for account in accounts if not account.paused}
        for stop in self._due_probes(endpoint):
            if stop.account_id in by_id:
                with transaction(self._engine) as connection:
                    wait = self._probe_wait(stop.reason)
                    taken = take_probe(connection, stop, now=self._clock(), next_after=wait)
                self.forget()
                if taken:
                    return by_id[stop.account_id]
        return None

    def has_probe(self, endpoint: str) -> bool:
        """Whether a stopped account may be tried again.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        return bool(self._due_probes(endpoint))

    def waiting_on(self, endpoint: str) -> WaitingOn:
        """What jobs of an endpoint wait for that no account may call: the one that ends first."""
        _, stops = self._read()
        ends = [(stop.until is None, stop.reason.waiting_on) for stop in stops if stop.concerns(endpoint)]
        return min(ends, default=(True, WaitingOn.PROVIDER_OUTAGE))[1]

    def stop(
        self,
        account_id: str,
        endpoint: str,
        reason: StopReason,
        *,
        detail: str,
        upstream_code: str | None = None,
        until: datetime | None = None,
    ) -> None:
        """Stop calling an endpoint of an account (EVERY_ENDPOINT: all of them), in every worker.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        now = self._clock()
        probe_at = None if until is not None else now + self._probe_wait(reason)
        stop = Stop(account_id, endpoint, reason, upstream_code, detail, now, until, probe_at)
        with transaction(self._engine) as connection:
            is_new = put_stop(connection, stop)
        self.forget()
        if is_new:
            log.error(
                "endpoint_stopped",
                account_id=account_id,
                endpoint=endpoint or "all",
                reason=reason,
                upstream_code=upstream_code,
                detail=detail,
                until=None if until is None else until.isoformat(),
            )

    def lift_due(self) -> None:
        """Lift the stops whose time is over.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        with transaction(self._engine) as connection:
            lifted = lift_due_stops(connection, self._clock())
        if lifted:
            self.forget()
        for stop in lifted:
            log.info("endpoint_resumed", account_id=stop.account_id, endpoint=stop.endpoint, reason=stop.reason)

    def forget(self) -> None:
        """Read anew at the next question."""
        with self._lock:
            self._read_at = float("-inf")

    def credentials(self, account: Account) -> Credentials:
        """What the provider wants to see.

        Raises:
            SecretUnreadableError: the secret was sealed with another key.
        """
        return Credentials(account.base_url, account.api_key, account.open_secret(self._secret_key))

    def _read(self) -> tuple[list[Account], list[Stop]]:
        with self._lock:
            if time.monotonic() - self._read_at > _FRESH_SECONDS:
                with transaction(self._engine) as connection:
                    self._accounts, self._stops = list_accounts(connection), list_stops(connection)
                self._read_at = time.monotonic()
            return self._accounts, self._stops

    def _due_probes(self, endpoint: str) -> list[Stop]:
        now = self._clock()
        _, stops = self._read()
        return [
            stop for stop in stops if stop.concerns(endpoint) and stop.probe_at is not None and stop.probe_at <= now
        ]

    def _probe_wait(self, reason: StopReason) -> timedelta:
        if reason is StopReason.OUTAGE:
            return self._policy.outage_wait
        return self._policy.quota_probe_wait if reason.is_quota else self._policy.probe_wait
