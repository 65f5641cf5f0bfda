"""The provider's access token, fetched once for all workers.

Read from this process's memory for up to 30 s, then from Redis, then from the provider, by whoever holds the lock. A
token is renewed in the background while a tenth of its life is left; meanwhile all go on with the old one. A token the
provider refused is dropped only if it is still the one stored, so a late refusal can't throw away a newer token.

The lock saves fetches, it does not guard the truth: two fetches are harmless, for an older token stays valid beside a
newer one (https://ai.baidu.com/ai-doc/SPEECH/Pk38y8m7k). A holder that was paused beyond the lock's life can't put
its old token over a newer one: the one that expires later stays.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.fernet import Fernet, InvalidToken
from redis import Redis
from redis.exceptions import LockError, RedisError
from redis.lock import Lock

from shared.domain.errors import ProviderError
from shared.domain.retry import FailureKind
from shared.limits import keys
from shared.limits.permits import LimiterUnavailableError
from shared.metrics import TOKEN_FETCHES

log = structlog.get_logger(__name__)

_MEMORY_SECONDS = 30
_LOCK_SECONDS = 30
_LOCK_WAIT_SECONDS = 20
_FAILURE_SECONDS = 5
_EARLY = 0.1

_STORE = (Path(__file__).parent / "store_token.lua").read_text(encoding="utf-8")
_DROP = (Path(__file__).parent / "drop_token.lua").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Token:
    """An access token; times in seconds since 1970 by this machine's clock."""

    value: str
    fetched_at: float
    expires_at: float

    def is_valid(self, now: float) -> bool:
        """Whether it can still be used."""
        return now < self.expires_at - 30

    def is_old(self, now: float) -> bool:
        """Whether it is time to fetch the next one."""
        return now > self.expires_at - _EARLY * (self.expires_at - self.fetched_at)

    @property
    def fingerprint(self) -> str:
        """What tells tokens apart without giving them away."""
        return hashlib.sha256(self.value.encode()).hexdigest()[:16]


FetchToken = Callable[[], tuple[str, float]]
"""Asks the provider: the token and its life in seconds. Raises ProviderError."""


class TokenStore:
    """Gives the access token of an account. Safe to share between threads."""

    def __init__(self, redis: Redis, secret_key: str) -> None:
        """Take a Redis client and the key that seals tokens there."""
        self._redis = redis
        self._seal = Fernet(secret_key)
        self._memory: dict[str, tuple[Token, float]] = {}
        self._lock = threading.Lock()
        self._store = redis.register_script(_STORE)
        self._drop = redis.register_script(_DROP)

    def get(self, account_id: str, fetch: FetchToken) -> str:
        """A token that should work.

        Raises:
            ProviderError: the provider gives none.
            LimiterUnavailableError: Redis does not answer.
        """
        now = time.time()
        with self._lock:
            remembered = self._memory.get(account_id)
        if remembered and now - remembered[1] < _MEMORY_SECONDS and remembered[0].is_valid(now):
            return remembered[0].value
        try:
            token = self._read(account_id)
            if token is None or not token.is_valid(now):
                token = self._fetch_once(account_id, fetch)
            elif token.is_old(now):
                self._renew(account_id, fetch)
        except LockError as error:
            detail = "another worker is fetching the access token"
            raise ProviderError(FailureKind.RETRY_SOON, detail, called=False) from error
        except RedisError as error:
            raise LimiterUnavailableError(type(error).__name__) from error
        self._remember(account_id, token)
        return token.value

    def drop(self, account_id: str, refused: str) -> None:
        """Forget a token that the provider refused, unless a newer one is there; best effort."""
        with self._lock:
            remembered = self._memory.get(account_id)
            if remembered and remembered[0].value == refused:
                del self._memory[account_id]
        try:
            self._drop(keys=[keys.token(account_id)], args=[Token(refused, 0, 0).fingerprint])
        except RedisError:
            return

    def _remember(self, account_id: str, token: Token) -> None:
        with self._lock:
            self._memory[account_id] = (token, time.time())

    def _read(self, account_id: str) -> Token | None:
        sealed = self._redis.hget(keys.token(account_id), "sealed")
        if not sealed:
            return None
        try:
            return Token(**json.loads(self._seal.decrypt(str(sealed).encode())))
        except (InvalidToken, ValueError, TypeError):
            return None  # sealed with another key, or by another version: as good as none

    def _fetch_once(self, account_id: str, fetch: FetchToken) -> Token:
        """Fetch under the lock, or take what its holder fetched meanwhile."""
        lock = self._redis.lock(
            keys.token_lock(account_id),
            timeout=_LOCK_SECONDS,
            sleep=0.05,
            blocking_timeout=_LOCK_WAIT_SECONDS,
            raise_on_release_error=False,  # a slow fetch may outlast the lock: the token is good all the same
        )
        with lock:
            token = self._read(account_id)
            if token is not None and token.is_valid(time.time()):
                return token
            return self._fetch(account_id, fetch)

    def _renew(self, account_id: str, fetch: FetchToken) -> None:
        """Fetch the next token if nobody else does, and let nobody wait for it: the old one still works."""
        lock = self._redis.lock(keys.token_lock(account_id), timeout=_LOCK_SECONDS, blocking=False, thread_local=False)
        if lock.acquire():
            threading.Thread(
                target=self._renew_under, args=(lock, account_id, fetch), name="token-renewal", daemon=True
            ).start()

    def _renew_under(self, lock: Lock, account_id: str, fetch: FetchToken) -> None:
        try:
            self._remember(account_id, self._fetch(account_id, fetch))
        except ProviderError as error:
            log.warning("token_renewal_failed", account_id=account_id, kind=error.kind)
        except RedisError as error:
            log.warning("token_renewal_failed", account_id=account_id, kind=type(error).__name__)
        finally:
            with suppress(LockError, RedisError):  # a slow fetch may outlast the lock
                lock.release()

    def _fetch(self, account_id: str, fetch: FetchToken) -> Token:
        failed = self._redis.get(keys.token_failure(account_id))
        if failed:
            detail = "the access token could not be fetched a moment ago"
            raise ProviderError(FailureKind(str(failed)), detail, called=False)
        now = time.time()
        try:
            value, life_seconds = fetch()
        except ProviderError as error:
            TOKEN_FETCHES.labels("failed").inc()
            log.warning("token_fetch_failed", account_id=account_id, kind=error.kind, detail=error.detail)
            self._redis.set(keys.token_failure(account_id), error.kind.value, ex=_FAILURE_SECONDS)
            raise
        TOKEN_FETCHES.labels("fetched").inc()
        token = Token(value, now, now + life_seconds)
        log.info("token_fetched", account_id=account_id, life_seconds=life_seconds)
        self._keep(account_id, token)
        return token

    def _keep(self, account_id: str, token: Token) -> None:
        """Give it to all processes, unless one that lasts longer is there."""
        content = json.dumps({"value": token.value, "fetched_at": token.fetched_at, "expires_at": token.expires_at})
        self._store(
            keys=[keys.token(account_id)],
            args=[
                self._seal.encrypt(content.encode()).decode(),
                token.fingerprint,
                token.expires_at,
                max(1, int(token.expires_at - time.time())),
            ],
        )
