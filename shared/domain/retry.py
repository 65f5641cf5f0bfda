"""What follows a failed attempt: another one, a long pause, or the end."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from shared.domain.job import WaitingOn
from shared.domain.quota import next_day


class FailureKind(StrEnum):
    """What a failed call asks of us."""

    RETRY_SOON = "retry_soon"
    """The vendor stumbled: the same bytes may pass in seconds."""
    THROTTLED = "throttled"
    """Too many calls at once: slow down; no attempt is lost."""
    QUOTA_USED_UP = "quota_used_up"
    """The day's (or the whole) quota is gone: park; no attempt is lost."""
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - a name
    """The access token is no good: fetch one and call again."""
    BAD_INPUT = "bad_input"
    """This image or these options will never work."""
    MISCONFIGURED = "misconfigured"
    """Account, application or URL is wrong: the operator has to act."""


@dataclass(frozen=True)
class RetryPolicy:
    """How patient we are with one job."""

    max_attempts: int = 5
    """Calls that may fail before the job does."""
    first_wait: timedelta = timedelta(seconds=2)
    factor: float = 3.0
    longest_wait: timedelta = timedelta(minutes=5)
    throttle_wait: timedelta = timedelta(seconds=1)
    """Pause after the vendor's error 18: its window is one second."""
    misconfigured_wait: timedelta = timedelta(seconds=60)
    """How often a job looks again whether the operator has repaired the account."""


@dataclass(frozen=True)
class Wait:
    """Back to the queue, not before `until`."""

    until: datetime
    waiting_on: WaitingOn
    costs_attempt: bool


@dataclass(frozen=True)
class GiveUp:
    """The job fails."""


def decide_after_failure(
    kind: FailureKind,
    failed_attempts: int,
    *,
    now: datetime,
    policy: RetryPolicy,
    jitter: float,
    max_attempts: int | None = None,
) -> Wait | GiveUp:
    """What follows a failed attempt.

    Args:
        kind: what the failure asks of us.
        failed_attempts: attempts of this job that failed and counted, this one included.
        now: the present moment.
        jitter: fraction in [-0.2, 0.2] by which to stretch a wait.
        max_attempts: a tighter limit that this failure sets.
    """
    match kind:
        case FailureKind.BAD_INPUT:
            return GiveUp()
        case FailureKind.THROTTLED:
            return Wait(now + policy.throttle_wait * (1 + jitter), WaitingOn.UPSTREAM_QPS, costs_attempt=False)
        case FailureKind.QUOTA_USED_UP:
            # Spread over two minutes after midnight, so that the day does not begin with a stampede.
            spread = timedelta(seconds=60 + 300 * jitter)
            return Wait(next_day(now) + spread, WaitingOn.UPSTREAM_DAILY_QUOTA, costs_attempt=False)
        case FailureKind.MISCONFIGURED:
            return Wait(now + policy.misconfigured_wait * (1 + jitter), WaitingOn.PROVIDER_OUTAGE, costs_attempt=False)
        case FailureKind.RETRY_SOON | FailureKind.REFRESH_TOKEN:
            limit = min(policy.max_attempts, max_attempts or policy.max_attempts)
            if failed_attempts >= limit:
                return GiveUp()
            wait = min(policy.first_wait * policy.factor ** (failed_attempts - 1), policy.longest_wait)
            return Wait(now + wait * (1 + jitter), WaitingOn.RETRY_BACKOFF, costs_attempt=True)
