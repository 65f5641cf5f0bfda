"""Accounts and the access tokens given to them.

Tokens live in memory: after a restart every old one is unknown (error 110), which is what a vendor's revocation looks
like to a client. A new token leaves the older ones valid, as Baidu documents.
"""

import hmac
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sandbox.clock import Clock
from sandbox.faults import Fault, FaultError

# An expired token is told apart from an unknown one (111, not 110) for this long.
REMEMBERED_AFTER_EXPIRY = timedelta(days=1)


@dataclass(frozen=True)
class Account:
    """One set of credentials and what it may do.

    Attributes:
        qps: calls a second at each endpoint; below 1, one call in 1/qps seconds.
        day_limit: calls a day (Asia/Shanghai) at each endpoint; None: no limit.
        endpoints: names of the endpoints it may call; None: all.
    """

    api_key: str
    secret_key: str
    app_id: str = "10000001"
    qps: float = 2.0
    day_limit: int | None = None
    endpoints: frozenset[str] | None = None


class CredentialsError(Exception):
    """The key or the secret is wrong; the text is the vendor's description."""


@dataclass(frozen=True)
class _Grant:
    account: Account
    expires_at: datetime


class TokenOffice:
    """Gives tokens to accounts and recognizes them again; safe to use from many threads."""

    def __init__(self, accounts: Iterable[Account], *, lifetime: timedelta, clock: Clock) -> None:
        self._accounts = {account.api_key: account for account in accounts}
        self._lifetime = lifetime
        self._clock = clock
        self._grants: dict[str, _Grant] = {}
        self._lock = threading.Lock()

    def issue(self, api_key: str, secret_key: str) -> dict[str, object]:
        """A new token, in the body Baidu answers.

        Raises:
            CredentialsError: no such key, or not its secret.
        """
        account = self._accounts.get(api_key)
        if account is None:
            raise CredentialsError("unknown client id")
        if not hmac.compare_digest(account.secret_key.encode(), secret_key.encode()):
            raise CredentialsError("Client authentication failed")
        now = self._clock()
        seconds = int(self._lifetime.total_seconds())
        expires_at = now + self._lifetime
        suffix = f"282335-{account.app_id}"
        token = f"24.{secrets.token_hex(16)}.{seconds}.{int(expires_at.timestamp())}.{suffix}"
        with self._lock:
            self._forget_old(now)
            self._grants[token] = _Grant(account, expires_at)
        return {
            "refresh_token": f"25.{secrets.token_hex(16)}.315360000.{int(now.timestamp()) + 315360000}.{suffix}",
            "expires_in": seconds,
            "session_key": secrets.token_urlsafe(24),
            "access_token": token,
            "scope": "public brain_all_scope vis-ocr_ocr brain_ocr_scope brain_ocr_idcard wise_adapt",
            "session_secret": secrets.token_hex(16),
        }

    def account_of(self, token: str) -> Account:
        """The account a token was given to.

        Raises:
            FaultError: the token is unknown or has expired.
        """
        with self._lock:
            grant = self._grants.get(token)
        if grant is None:
            raise FaultError(Fault.TOKEN_UNKNOWN)
        if self._clock() >= grant.expires_at:
            raise FaultError(Fault.TOKEN_EXPIRED)
        return grant.account

    def _forget_old(self, now: datetime) -> None:
        limit = now - REMEMBERED_AFTER_EXPIRY
        self._grants = {token: grant for token, grant in self._grants.items() if grant.expires_at > limit}
