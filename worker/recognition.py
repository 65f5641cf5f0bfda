"""One attempt of a job: claim, prepare, permit, token, call, settle.

Every step may be the last one before the process dies, and every message may come twice:

- The claim is a compare-and-set with a lease and a random token; all later writes name the token. A second message
  finds nothing to claim, a worker that was away too long finds its token gone and writes nothing.
- The image is ready and encoded before the permit is asked for: a permit is used at once or not at all.
- The attempt is recorded before the call and completed after it. A crash in between leaves an attempt without an
  outcome: the call may have been made, and may have been billed.
- No transaction is open while anybody else is waited for.
"""

import random
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import Engine

from shared.clock import Clock
from shared.database import jobs as job_rows
from shared.database.accounts import Account, SecretUnreadableError
from shared.database.engine import transaction
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import ClaimLostError, ImageLostError, ProviderError, UnavailableError
from shared.domain.job import JobErrorCode, Lane, WaitingOn
from shared.domain.quota import next_day
from shared.domain.retry import FailureKind, RetryPolicy
from shared.ids import new_id
from shared.limits.permits import Candidate, Limiter, LimiterUnavailableError, NoPermit, Permit
from shared.limits.tokens import TokenStore
from shared.storage import ImageStore
from worker.accounts import AccountPool
from worker.prepare import ImagePreparer
from worker.providers.protocol import PreparedImage, Provider
from worker.settlement import Call, Claimed, Settlement

log = structlog.get_logger(__name__)

# Redis away, the store stumbling: look again soon.
_SOON = timedelta(seconds=2)
_BULK_HORIZON = timedelta(milliseconds=50)


@dataclass(frozen=True)
class _Ready:
    """A claimed job whose call can be sent at once."""

    claimed: Claimed
    image: PreparedImage
    body: bytes


class RecognitionService:
    """Runs attempts. Safe to share between threads."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: ImageStore,
        settlement: Settlement,
        limiter: Limiter,
        tokens: TokenStore,
        accounts: AccountPool,
        providers: dict[str, Provider],
        preparer: ImagePreparer,
        policy: RetryPolicy,
        lease: timedelta,
        permit_wait: timedelta,
        worker: str,
        clock: Clock,
    ) -> None:
        """Take its parts.

        Args:
            lease: how long a claim lasts; longer than the wait for a permit and one call together.
            permit_wait: the longest a job waits here for its turn; after it, it waits in Postgres.
            worker: who claims, for the operator.
        """
        self._engine = engine
        self._store = store
        self._settlement = settlement
        self._limiter = limiter
        self._tokens = tokens
        self._accounts = accounts
        self._providers = providers
        self._preparer = preparer
        self._policy = policy
        self._lease = lease
        self._permit_wait = permit_wait
        self._worker = worker
        self._clock = clock

    def run_attempt(self, job_id: str) -> None:
        """Run the next attempt of a job; nothing happens if there is none to run.

        Raises:
            DatabaseUnavailableError: Postgres is away; the lease, or the sweeper, brings the job back.
        """
        claimed = self._claim(job_id)
        if claimed is None:
            return
        try:
            self._attempt(claimed)
        except ClaimLostError:
            log.warning("claim_lost", job_id=job_id)
        except ProviderError as error:
            self._settlement.fail_attempt(claimed, None, error)
        except (LimiterUnavailableError, UnavailableError) as error:
            log.warning("attempt_interrupted", job_id=job_id, error=type(error).__name__)
            self._settlement.release(claimed, WaitingOn.WORKER, self._clock() + _SOON)

    def _claim(self, job_id: str) -> Claimed | None:
        now = self._clock()
        token = secrets.token_hex(16)
        lease_until = now + self._lease
        with transaction(self._engine) as connection:
            job = job_rows.claim_job(
                connection, job_id, token=token, worker=self._worker, now=now, lease_until=lease_until
            )
        if job is None:
            log.info("nothing_to_claim", job_id=job_id)
            return None
        log.info("job_claimed", job_id=job_id, document_type=job.document_type, lane=job.lane, claim=job.claim_count)
        return Claimed(job, token, DOCUMENT_TYPES[job.document_type], lease_until)

    def _attempt(self, claimed: Claimed) -> None:
        """Everything between the claim and the end.

        Raises:
            ProviderError: something failed before a call was begun.
        """
        job = claimed.job
        if job.expires_at is not None and job.calls == 0 and job.expires_at <= self._clock():
            self._settlement.fail(claimed, JobErrorCode.EXPIRED)
            return
        accounts = {account.id: account for account in self._accounts.usable()}
        if not accounts:
            raise _misconfigured("no account is configured, or all are paused")
        first = next(iter(accounts.values()))
        try:
            ready = self._prepare(claimed, self._providers[first.provider])
        except ImageLostError:
            log.error("image_lost", job_id=job.id)
            self._settlement.fail(claimed, JobErrorCode.IMAGE_LOST)
            return
        # Fetched after the permit, a token would let the permit's instant pass.
        self._token(first)
        if self._call(ready, accounts, may_refresh=True):
            self._call(ready, accounts, may_refresh=False)

    def _prepare(self, claimed: Claimed, provider: Provider) -> _Ready:
        job = claimed.job
        if job.image_key is None:
            raise ImageLostError("The image was erased.")
        content = self._store.get(job.image_key, sha256=job.image_sha256)
        image = self._preparer.prepare(content, claimed.document.limits)
        return _Ready(claimed, image, provider.encode(claimed.document, job.options, image))

    def _call(self, ready: _Ready, accounts: dict[str, Account], *, may_refresh: bool) -> bool:
        """Make one call within the quota, and settle it; True to call once more with a fresh token."""
        claimed, document = ready.claimed, ready.claimed.document
        candidates = [Candidate(account.id, account.quota(document.endpoint)) for account in accounts.values()]
        # Bulk books one slot at a time, so that a person waits for that one slot and not for a line of them.
        horizon = _BULK_HORIZON if claimed.job.lane is Lane.BULK else None
        permit = self._limiter.acquire(candidates, document.endpoint, longest_wait=self._permit_wait, horizon=horizon)
        if isinstance(permit, NoPermit):
            self._wait_for_quota(claimed, permit)
            return False
        account = accounts[permit.account_id]
        try:
            token = self._token(account)
            call = self._start_call(claimed, permit)
        except Exception:
            self._limiter.refund(permit)
            raise
        provider = self._providers[account.provider]
        try:
            recognition = provider.recognize(
                account.base_url, token, document, claimed.job.options, ready.body, ready.image
            )
        except ProviderError as error:
            return self._after_failure(claimed, permit, call, token, error, may_refresh=may_refresh)
        self._settlement.succeed(claimed, call, account, ready.image, recognition)
        return False

    def _after_failure(
        self, claimed: Claimed, permit: Permit, call: Call, token: str, error: ProviderError, *, may_refresh: bool
    ) -> bool:
        if error.kind is FailureKind.THROTTLED:
            self._limiter.pause(permit.account_id, permit.endpoint, self._policy.throttle_wait)
        if error.kind is FailureKind.REFRESH_TOKEN:
            self._tokens.drop(permit.account_id, token)
            if may_refresh:
                self._settlement.record_failed_call(claimed, call, error)
                return True
            # Refused again although it is new: no third token will do better.
            error.kind = FailureKind.MISCONFIGURED
        self._settlement.fail_attempt(claimed, call, error)
        return False

    def _token(self, account: Account) -> str:
        provider = self._providers[account.provider]
        try:
            credentials = self._accounts.credentials(account)
        except SecretUnreadableError as error:
            raise _misconfigured(str(error)) from error
        return self._tokens.get(account.id, lambda: provider.fetch_token(credentials))

    def _start_call(self, claimed: Claimed, permit: Permit) -> Call:
        """Record the call before it is made.

        Raises:
            ClaimLostError: the job is no longer ours.
        """
        now = self._clock()
        with transaction(self._engine) as connection:
            if not job_rows.extend_lease(connection, claimed.job.id, claimed.token, now + self._lease):
                raise ClaimLostError("Another worker may hold the job.")
            attempt = {
                "id": new_id("att"),
                "job_id": claimed.job.id,
                "account_id": permit.account_id,
                "endpoint": permit.endpoint,
                "throttle_ms": round(permit.waited_seconds * 1000),
                "started_at": now,
            }
            number = job_rows.start_attempt(connection, attempt)
        return Call(number, time.monotonic())

    def _wait_for_quota(self, claimed: Claimed, refusal: NoPermit) -> None:
        now = self._clock()
        if refusal.retry_after is not None:
            until = now + refusal.retry_after
        else:
            # Spread over two minutes, so that the day does not begin with a stampede.
            until = next_day(now) + timedelta(seconds=random.uniform(0, 120))  # noqa: S311
            log.warning("quota_used_up", job_id=claimed.job.id, endpoint=claimed.document.endpoint)
        self._settlement.release(claimed, refusal.waiting_on, until)


def _misconfigured(detail: str) -> ProviderError:
    code = JobErrorCode.PROVIDER_MISCONFIGURED
    return ProviderError(FailureKind.MISCONFIGURED, detail, error_code=code, called=False)
