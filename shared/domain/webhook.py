"""Events, endpoints and deliveries: their words, the signature, and what follows an attempt.

Standard Webhooks: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class EventType(StrEnum):
    """Everything that is told."""

    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELED = "job.canceled"
    JOB_EXPIRED = "job.expired"
    JOB_STARTED = "job.started"
    JOB_PARKED = "job.parked"
    BATCH_PROGRESS = "batch.progress"
    BATCH_COMPLETED = "batch.completed"
    BATCH_CANCELED = "batch.canceled"
    QUOTA_WARNING = "quota.warning"
    QUOTA_EXHAUSTED = "quota.exhausted"
    QUOTA_RESTORED = "quota.restored"
    ENDPOINT_DISABLED = "endpoint.disabled"
    WEBHOOK_PING = "webhook.ping"


OPT_IN = (EventType.JOB_STARTED, EventType.JOB_PARKED)
"""Written only for clients with an endpoint that names them: there may be many for each job."""

BY_DEFAULT = tuple(kind for kind in EventType if kind not in (*OPT_IN, EventType.WEBHOOK_PING))
"""What an endpoint is told that names no types."""

OF_A_JOBS_URL = (EventType.JOB_SUCCEEDED, EventType.JOB_FAILED, EventType.JOB_CANCELED, EventType.JOB_EXPIRED)
"""What the `webhook_url` of a job is told."""

OF_A_BATCHS_URL = (EventType.BATCH_COMPLETED, EventType.BATCH_CANCELED)
"""What the `webhook_url` of a batch is told."""


class EndpointKind(StrEnum):
    """Who made an endpoint."""

    REGISTERED = "registered"
    """The client did."""
    JOB_URLS = "job_urls"
    """It stands for all `webhook_url` at one host: they fail together."""


class Payload(StrEnum):
    """What deliveries carry."""

    THIN = "thin"
    """Ids, states, links: nothing of a person."""
    FULL = "full"
    """The fields too."""


class DisabledReason(StrEnum):
    """Why nothing is sent to an endpoint."""

    CLIENT = "client"
    """Its owner wanted that."""
    GONE = "gone"
    """It answered 410."""
    FAILING = "failing"
    """It has taken nothing for days."""


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    """It waits for `next_attempt_at`."""
    SENDING = "sending"
    """A worker is at it."""
    SUCCEEDED = "succeeded"
    """The endpoint took it."""
    FAILED = "failed"
    """All attempts failed; it is sent again on demand."""
    CANCELED = "canceled"
    """Its job was erased before."""


RETRY_DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
LONGEST_RETRY_AFTER = timedelta(hours=24)
_LONGEST_THROTTLE = timedelta(hours=1)
_SHORTEST_THROTTLE = timedelta(seconds=1)
_OPENS_AFTER = 5
_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(minutes=10)


class Verdict(StrEnum):
    """What an answer, or the want of one, means."""

    DELIVERED = "delivered"
    FAILED = "failed"
    THROTTLED = "throttled"
    GONE = "gone"


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `error`: what went wrong, in words of ours; `excerpt`: the answer's first characters."""

    status_code: int | None
    duration_ms: int
    error: str | None = None
    excerpt: str | None = None
    retry_after: timedelta | None = None

    @property
    def verdict(self) -> Verdict:
        """2xx is success; 410: never again; 429 with a `Retry-After`: only too early. All else failed."""
        if self.error is None and self.status_code is not None and 200 <= self.status_code < 300:
            return Verdict.DELIVERED
        if self.status_code == 410:
            return Verdict.GONE
        if self.status_code == 429 and self.retry_after is not None:
            return Verdict.THROTTLED
        return Verdict.FAILED


def next_attempt(outcome: Outcome, failures: int, now: datetime, *, jitter: float) -> datetime | None:
    """When to try again; None: never, all attempts are used up.

    Args:
        failures: those so far, this one included unless it was throttled.
        jitter: in [-0.2, 0.2].
    """
    asked = min(outcome.retry_after or timedelta(0), LONGEST_RETRY_AFTER)
    if outcome.verdict is Verdict.THROTTLED:
        return now + throttle(outcome)
    if failures > len(RETRY_DELAYS):
        return None
    return now + max(asked, RETRY_DELAYS[failures - 1] * (1 + jitter))


def throttle(outcome: Outcome) -> timedelta:
    """How long an endpoint that asked for it is left alone."""
    return min(max(outcome.retry_after or _SHORTEST_THROTTLE, _SHORTEST_THROTTLE), _LONGEST_THROTTLE)


@dataclass(frozen=True)
class Health:
    """How an endpoint does: failures and pauses in a row, and the moving mean of its answers in ms."""

    failures: int = 0
    failing_since: datetime | None = None
    openings: int = 0
    paused_until: datetime | None = None
    mean_ms: int = 0

    def after(self, outcome: Outcome, now: datetime) -> "Health":
        """How it does after an attempt.

        After five failures in a row it gets a pause, then one attempt; each that fails doubles the next pause. Attempts
        that were under way when the pause began change nothing of it.
        """
        mean_ms = round(0.8 * self.mean_ms + 0.2 * outcome.duration_ms)
        if outcome.verdict is Verdict.DELIVERED:
            return Health(mean_ms=mean_ms)
        if outcome.verdict is Verdict.GONE:  # says nothing of the others behind the same host
            return replace(self, mean_ms=mean_ms)
        since = self.failing_since or now
        if outcome.verdict is Verdict.THROTTLED:
            return Health(self.failures, since, self.openings, now + throttle(outcome), mean_ms)
        failures = self.failures + 1
        was_under_way = self.openings > 0 and self.paused_until is not None and now < self.paused_until
        if failures < _OPENS_AFTER or was_under_way:
            return Health(failures, since, self.openings, self.paused_until, mean_ms)
        openings = min(self.openings + 1, 100)
        pause = min(_FIRST_PAUSE * 2 ** min(openings - 1, 10), _LONGEST_PAUSE)
        return Health(failures, since, openings, now + pause, mean_ms)


def new_secret() -> str:
    """A signing secret: `whsec_` and 32 random bytes in base64."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def sign(signing_secrets: Sequence[str], event_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature a secret.

    Args:
        signing_secrets: `whsec_…`.
        timestamp: seconds since 1970, as in the header `webhook-timestamp`.

    Raises:
        ValueError: a secret is none.
    """
    signed = f"{event_id}.{timestamp}.".encode() + body
    return " ".join("v1," + _mac(secret, signed) for secret in signing_secrets)


def _mac(secret: str, signed: bytes) -> str:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        raise ValueError("is no signing secret") from None
    return base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
