"""What follows a failed attempt: another one, a long pause, or the end."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from shared.domain.job import WaitingOn
from shared.domain.quota import StopReason


class FailureKind(StrEnum):
    """What a failed call asks of us."""

    RETRY_SOON = "retry_soon"
    """The vendor stumbled: the same bytes may pass in seconds."""
    UNREACHABLE = "unreachable"
    """No connection to the vendor could be had, or it is tried whether one can be had again; no attempt is lost."""
    INTERRUPTED = "interrupted"
    """We ended the call ourselves, before the job could be somebody else's; no attempt is lost."""
    THROTTLED = "throttled"
    """Too many of our calls at once: slow down; no attempt is lost."""
    OVERLOADED = "overloaded"
    """Too many calls of everybody's: pause; no attempt is lost."""
    QUOTA_USED_UP = "quota_used_up"
    """The day's quota is gone: park; no attempt is lost."""
    TOTAL_USED_UP = "total_used_up"
    """The whole quota is gone: park; no attempt is lost."""
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - a name
    """The access token is no good: fetch one and call again."""
    BAD_INPUT = "bad_input"
    """This image or these options will never work."""
    MISCONFIGURED = "misconfigured"
    """Account, application or URL is wrong: the operator has to act."""

    @property
    def is_refusal(self) -> bool:
        """Whether the provider turned the call away at the door, before it looked at it: it counts nowhere."""
        return self in _REFUSALS

    @property
    def stops(self) -> StopReason | None:
        """Why the endpoint of the account must not be called any more, if so."""
        return _STOPS.get(self)


_REFUSALS = frozenset(
    {
        FailureKind.THROTTLED,
        FailureKind.OVERLOADED,
        FailureKind.QUOTA_USED_UP,
        FailureKind.TOTAL_USED_UP,
        FailureKind.REFRESH_TOKEN,
        FailureKind.MISCONFIGURED,
    }
)
_STOPS = {
    FailureKind.QUOTA_USED_UP: StopReason.DAILY_QUOTA,
    FailureKind.TOTAL_USED_UP: StopReason.TOTAL_QUOTA,
    FailureKind.MISCONFIGURED: StopReason.MISCONFIGURED,
}


@dataclass(frozen=True)
class RetryPolicy:
    """How patient we are with one job."""

    max_attempts: int = 5
    """Calls that may fail before the job does."""
    first_wait: timedelta = timedelta(seconds=2)
    factor: float = 3.0
    longest_wait: timedelta = timedelta(minutes=5)
    overload_wait: timedelta = timedelta(seconds=1)
    """Pause of an endpoint after the vendor's error 4."""
    probe_wait: timedelta = timedelta(seconds=60)
    """How often one call tries whether the operator has repaired the account."""
    outage_wait: timedelta = timedelta(seconds=5)
    """How often one call tries whether a provider that did not answer does again."""
    quota_probe_wait: timedelta = timedelta(hours=1)
    """How often one call tries whether more quota was bought."""


@dataclass(frozen=True)
class Wait:
    """Back to the queue, not before `until`; None: as soon as its endpoint is called again."""

    until: datetime | None
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
        # What holds these up concerns the endpoint, not the job: it waits in line until the endpoint goes on.
        case FailureKind.THROTTLED | FailureKind.OVERLOADED:
            return Wait(None, WaitingOn.UPSTREAM_QPS, costs_attempt=False)
        case FailureKind.QUOTA_USED_UP:
            return Wait(None, WaitingOn.UPSTREAM_DAILY_QUOTA, costs_attempt=False)
        case FailureKind.TOTAL_USED_UP:
            return Wait(None, WaitingOn.UPSTREAM_TOTAL_QUOTA, costs_attempt=False)
        case FailureKind.MISCONFIGURED:
            return Wait(None, WaitingOn.PROVIDER_OUTAGE, costs_attempt=False)
        case FailureKind.UNREACHABLE:
            return Wait(now + policy.outage_wait * (1 + jitter), WaitingOn.PROVIDER_OUTAGE, costs_attempt=False)
        case FailureKind.INTERRUPTED:
            return Wait(None, WaitingOn.WORKER, costs_attempt=False)
        case FailureKind.RETRY_SOON | FailureKind.REFRESH_TOKEN:
            limit = min(policy.max_attempts, max_attempts or policy.max_attempts)
            if failed_attempts >= limit:
                return GiveUp()
            wait = min(policy.first_wait * policy.factor ** (failed_attempts - 1), policy.longest_wait)
            return Wait(now + wait * (1 + jitter), WaitingOn.RETRY_BACKOFF, costs_attempt=True)
