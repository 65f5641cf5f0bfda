"""What a failed call means beyond its job: for the pace, the token, and whether its endpoint is called any more."""

from dataclasses import dataclass
from datetime import timezone

from shared.database.accounts import Account
from shared.domain.errors import ProviderError
from shared.domain.quota import StopReason, end_of_day
from shared.domain.retry import FailureKind, RetryPolicy
from shared.limits.permits import Limiter, Permit, UsedUp
from shared.limits.tokens import TokenStore
from worker.accounts import AccountPool
from worker.settlement import Call, Claimed, Settlement

# So many calls in a row without an answer, of all workers, are no accident any more.
_OUTAGE_CALLS = 5


@dataclass(frozen=True)
class Caller:
    """An account that may make the call, and its access token. `is_probe`: it was stopped, and this call tries it."""

    account: Account
    token: str
    is_probe: bool


class FailureHandler:
    """Draws the consequences. Safe to share between threads."""

    def __init__(
        self,
        *,
        limiter: Limiter,
        tokens: TokenStore,
        accounts: AccountPool,
        settlement: Settlement,
        policy: RetryPolicy,
        zone: timezone,
    ) -> None:
        """Take its parts; `zone`: where the provider's day turns."""
        self._limiter = limiter
        self._tokens = tokens
        self._accounts = accounts
        self._settlement = settlement
        self._policy = policy
        self._zone = zone

    def handle(
        self, claimed: Claimed, permit: Permit, call: Call, caller: Caller, error: ProviderError, *, may_refresh: bool
    ) -> bool:
        """Settle a failed call; True: it may be made once more, with a fresh token.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        account, endpoint = caller.account, permit.endpoint
        counted = error.uses_quota(counts_failures=account.billing.counts_failures)
        silent_calls = self._limiter.end(
            permit,
            taken=error.answered and not error.kind.is_refusal,
            counted=counted,
            answered=error.answered,
            still_flying=error.called and not error.answered,
        )
        if error.kind is not FailureKind.INTERRUPTED and not error.answered:
            if caller.is_probe:
                # It was sent to find out: an outage of hours must not use up the attempts of those who do.
                error.kind = FailureKind.UNREACHABLE
            elif silent_calls >= _OUTAGE_CALLS:
                detail = f"{silent_calls} calls in a row got no answer ({error.detail})"
                self._accounts.stop(
                    account.id, endpoint, StopReason.OUTAGE, detail=detail, upstream_code=error.upstream_code
                )
        if error.kind is FailureKind.REFRESH_TOKEN:
            self._tokens.drop(account.id, caller.token)
            if may_refresh:
                self._settlement.record_failed_call(claimed, call, error, counted=counted)
                return True
            # Refused again although it is new: no third token will do better.
            error.kind = FailureKind.MISCONFIGURED
        if error.kind is FailureKind.THROTTLED and self._limiter.slow_down(permit, account.quota(endpoint).qps):
            detail = "error 18 at the slowest pace: the free quota is probably not claimed in the provider's console"
            self._accounts.stop(
                account.id, endpoint, StopReason.UNCLAIMED, detail=detail, upstream_code=error.upstream_code
            )
        if error.kind is FailureKind.OVERLOADED:
            self._limiter.pause(account.id, endpoint, self._policy.overload_wait)
        if error.kind is FailureKind.QUOTA_USED_UP:
            self._accounts.stop(
                account.id,
                endpoint,
                StopReason.DAILY_QUOTA,
                detail=error.detail,
                upstream_code=error.upstream_code,
                until=end_of_day(permit.quota_day, self._zone),
            )
        elif error.kind.stops is not None:
            self.stop(account.id, endpoint, error)
        # Whatever it said of this image: the account works again.
        lifts_stop = caller.is_probe and error.answered and not error.kind.is_refusal
        self._settlement.fail_attempt(claimed, call, error, account=account, counted=counted, lifts_stop=lifts_stop)
        if caller.is_probe:
            self._accounts.forget()
        return False

    def stop(self, account_id: str, endpoint: str, error: ProviderError) -> None:
        """Stop calling an endpoint of an account, for this error.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        reason = error.kind.stops or StopReason.OUTAGE
        self._accounts.stop(account_id, endpoint, reason, detail=error.detail, upstream_code=error.upstream_code)

    def note_used_up(self, endpoint: str, accounts: tuple[UsedUp, ...]) -> None:
        """Stop accounts that our own count finds without calls left."""
        for account in accounts:
            if account.day is None:
                reason, detail, until = StopReason.TOTAL_QUOTA, "all calls of the total limit are used up", None
            else:
                reason, detail = StopReason.DAILY_QUOTA, "the calls of the day limit are used up"
                until = end_of_day(account.day, self._zone)
            self._accounts.stop(account.account_id, endpoint, reason, detail=detail, until=until)
