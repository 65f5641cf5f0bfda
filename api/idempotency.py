"""Idempotency keys as requests use them: the same key and request give the same thing, another request is refused."""

from datetime import timedelta

from sqlalchemy import Connection

from shared.clock import Clock
from shared.database.idempotency import KeyUse, take_key
from shared.domain.errors import IdempotencyInProgressError, IdempotencyMismatchError
from shared.settings import Settings

# After this a key counts as abandoned by an API that was killed. A request that does take longer may be overtaken by
# its own repetition: only one of them can tie the key to what it made, the other leaves nothing.
_LOCK = timedelta(seconds=20)


class IdempotencyKeys:
    """Takes keys. Safe to share between threads."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Take how long a key is remembered, and the time."""
        self._life = timedelta(hours=settings.idempotency_ttl_hours)
        self._clock = clock

    def take(self, connection: Connection, client_id: str, key: str, fingerprint: str) -> KeyUse | None:
        """Take a key for a request; None when it is the request's own now, else what the same request made before.

        Args:
            fingerprint: hex SHA-256 of the request.

        Raises:
            IdempotencyMismatchError: it was used for another request.
        """
        now = self._clock()
        use = take_key(
            connection,
            client_id,
            key,
            request_sha256=fingerprint,
            now=now,
            locked_until=now + _LOCK,
            expires_at=now + self._life,
        )
        if use is not None and use.request_sha256 != fingerprint:
            raise IdempotencyMismatchError("This Idempotency-Key was used for another request. Make a new one.")
        return use


def in_progress() -> IdempotencyInProgressError:
    """The first request has not made anything yet."""
    return IdempotencyInProgressError("The first request with this Idempotency-Key is still being served.")
