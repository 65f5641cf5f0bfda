"""One attempt of a job: claim, prepare, permit, token, call, settle.

Every step may be the last one before the process dies, and every message may come twice:

- The claim is a compare-and-set with a lease and a random token; all later writes name the token. A second message
  finds nothing to claim, a worker that was away too long finds its token gone and writes nothing.
- The image is encoded, the token there and the connection warm before the permit is asked for. The permit names an
  instant; the attempt is recorded while that is awaited, and the call is sent at it or not at all.
- The attempt is completed after the call. A crash in between leaves an attempt without an outcome: the call may have
  been made, and may have been billed.
- No transaction is open while anybody else is waited for.
"""

import secrets
import threading
import time
from datetime import timedelta, timezone

import structlog
from sqlalchemy import Engine

from shared.clock import Clock
from shared.database import attempts as attempt_rows
from shared.database import jobs as job_rows
from shared.database.accounts import Account, SecretUnreadableError
from shared.database.engine import transaction
from shared.database.stops import EVERY_ENDPOINT
from shared.database.twins import NO_TWINS, find_twins
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import (
    ClaimLostError,
    DatabaseUnavailableError,
    ImageLostError,
    ProviderError,
    UnavailableError,
)
from shared.domain.job import JobErrorCode, WaitingOn
from shared.domain.quota import SHANGHAI
from shared.domain.retry import FailureKind, RetryPolicy
from shared.ids import new_id
from shared.limits.permits import Candidate, Limiter, LimiterUnavailableError, NoPermit, Permit
from shared.limits.spread import SpreadMeter
from shared.limits.tokens import TokenStore
from worker.accounts import AccountPool
from worker.failures import Caller, FailureHandler
from worker.fetching import ImageFetcher
from worker.in_hand import ImageHandler, Ready
from worker.leases import LeaseKeeper
from worker.providers.protocol import Provider
from worker.settlement import Call, Claimed, Settlement

log = structlog.get_logger(__name__)

# The store stumbling: look again soon.
_SOON = timedelta(seconds=2)
_LOOK_AGAIN_SECONDS = 0.2
_DATABASE_RETRY_SECONDS = 1.0


class RecognitionService:
    """Runs attempts. Safe to share between threads."""

    def __init__(
        self,
        *,
        engine: Engine,
        settlement: Settlement,
        limiter: Limiter,
        spread: SpreadMeter,
        tokens: TokenStore,
        accounts: AccountPool,
        providers: dict[str, Provider],
        images: ImageHandler,
        fetcher: ImageFetcher,
        policy: RetryPolicy,
        lease: timedelta,
        permit_wait: timedelta,
        worker: str,
        stopping: threading.Event,
        clock: Clock,
        zone: timezone = SHANGHAI,
        outage_hold: timedelta = timedelta(seconds=40),
        leases: LeaseKeeper,
        cache_life: timedelta = timedelta(0),
    ) -> None:
        """Take its parts.

        Args:
            lease: how long a claim lasts unless it is renewed.
            permit_wait: the longest a job waits here for its turn; after it, it waits in Postgres.
            worker: who claims, for the operator.
            stopping: set when the process shuts down.
            zone: where the provider's day turns.
            outage_hold: while Redis is away, so long a job is held, to be called the moment it is back.
            leases: keeps claims alive.
            cache_life: an equal image of a client is answered from its earlier result for so long; 0: never.
        """
        self._engine = engine
        self._settlement = settlement
        self._limiter = limiter
        self._spread = spread
        self._tokens = tokens
        self._accounts = accounts
        self._providers = providers
        self._images = images
        self._fetcher = fetcher
        self._lease = lease
        self._permit_wait = permit_wait
        self._worker = worker
        self._stopping = stopping
        self._clock = clock
        self._outage_hold = outage_hold
        self._leases = leases
        self._cache_life = cache_life
        self._failures = FailureHandler(
            limiter=limiter, tokens=tokens, accounts=accounts, settlement=settlement, policy=policy, zone=zone
        )

    def run_attempt(self, job_id: str) -> None:
        """Run the next attempt of a job; nothing happens if there is none to run.

        Raises:
            DatabaseUnavailableError: Postgres is away; the lease, or the sweeper, brings the job back.
        """
        claimed, since = self._claim_patiently(job_id)
        if claimed is None:
            return
        with self._leases.keeping(claimed.token, since=since):
            self._run(claimed)

    def _run(self, claimed: Claimed) -> None:
        job_id = claimed.job.id
        try:
            self._attempt(claimed)
        except ClaimLostError:
            log.warning("claim_lost", job_id=job_id)
        except ProviderError as error:
            self._settlement.fail_attempt(claimed, None, error)
        except (LimiterUnavailableError, UnavailableError) as error:
            log.warning("attempt_interrupted", job_id=job_id, error=type(error).__name__)
            self._settlement.release(claimed, WaitingOn.WORKER, self._clock() + _SOON)
        except Exception as error:
            # A defect of ours must not hold the job until its lease is over, nor try it for ever.
            log.exception("attempt_broke", job_id=job_id)
            broken = ProviderError(FailureKind.RETRY_SOON, f"a defect: {type(error).__name__}", called=False)
            self._settlement.fail_attempt(claimed, None, broken)

    def _claim_patiently(self, job_id: str) -> tuple[Claimed | None, float]:
        """Claim, and while Postgres is away hold the message: the queue must not run empty into the void.

        Returns:
            The claim, None if there was nothing to claim, and from when its lease counts, by `time.monotonic`.

        Raises:
            DatabaseUnavailableError: Postgres is away, and this process stops.
        """
        while True:
            since = time.monotonic()
            try:
                return self._claim(job_id), since
            except DatabaseUnavailableError:
                log.warning("database_unavailable", job_id=job_id)
                if self._stopping.wait(_DATABASE_RETRY_SECONDS):
                    raise

    def _claim(self, job_id: str) -> Claimed | None:
        now = self._clock()
        token = secrets.token_hex(16)
        lease_until = now + self._lease
        with transaction(self._engine) as connection:
            job = job_rows.claim_job(
                connection, job_id, token=token, worker=self._worker, now=now, lease_until=lease_until
            )
            twins = NO_TWINS
            if job is not None and job.cache and job.image_sha256 is not None and self._cache_life:
                twins = find_twins(connection, job, answered_since=now - self._cache_life)
        if job is None:
            log.info("nothing_to_claim", job_id=job_id)
            return None
        log.info("job_claimed", job_id=job_id, document_type=job.document_type, lane=job.lane, claim=job.claim_count)
        return Claimed(job, token, DOCUMENT_TYPES[job.document_type], twins)

    def _attempt(self, claimed: Claimed) -> None:
        """Everything between the claim and the end.

        Raises:
            ProviderError: something failed before a call was begun.
        """
        job, endpoint = claimed.job, claimed.document.endpoint
        if job.expires_at is not None and job.calls == 0 and job.expires_at <= self._clock():
            self._settlement.fail(claimed, JobErrorCode.EXPIRED)
            return
        if claimed.twins.answered and self._settlement.succeed_like(claimed, claimed.twins.answered):
            return
        if claimed.twins.is_being_read:
            self._settlement.release(claimed, WaitingOn.DUPLICATE, self._clock() + _SOON)
            return
        if job.image_url is not None:
            # Whether an equal image was read before can be told now: the next claim looks.
            self._fetcher.fetch(claimed)
            self._settlement.release(claimed, WaitingOn.WORKER, None)
            return
        probe = self._accounts.probe(endpoint)
        accounts = [probe] if probe else self._accounts.usable(endpoint)
        if not accounts:
            self._settlement.release(claimed, self._accounts.waiting_on(endpoint), None)
            return
        try:
            ready = self._images.make_ready(claimed, self._providers[accounts[0].provider])
        except ImageLostError:
            log.error("image_lost", job_id=job.id)
            self._settlement.fail(claimed, JobErrorCode.IMAGE_LOST)
            return
        hold_until = time.monotonic() + self._outage_hold.total_seconds()
        may_refresh = True
        while True:
            try:
                if not self._call(ready, accounts, is_probe=probe is not None, may_refresh=may_refresh):
                    return
                may_refresh = False
            except LimiterUnavailableError:
                if time.monotonic() > hold_until or self._stopping.wait(_LOOK_AGAIN_SECONDS):
                    raise

    def _call(self, ready: Ready, accounts: list[Account], *, is_probe: bool, may_refresh: bool) -> bool:
        """Make one call within the quota, and settle it; True to call once more with a fresh token.

        Raises:
            LimiterUnavailableError: Redis does not answer; nothing was sent.
        """
        claimed = ready.claimed
        callers = self._callers(accounts, is_probe=is_probe)
        if not callers:
            waiting_on = self._accounts.waiting_on(claimed.document.endpoint)
            self._settlement.release(claimed, waiting_on, None)
            return False
        permitted = self._permit(claimed, callers)
        if permitted is None:
            return False
        permit, call = permitted
        caller = callers[permit.account_id]
        provider = self._providers[caller.account.provider]
        try:
            recognition = provider.recognize(
                caller.account.base_url,
                caller.token,
                claimed.document,
                claimed.job.options,
                ready.body,
                ready.image,
                safe_until=lambda: self._leases.safe_until(claimed.token),
            )
        except ProviderError as error:
            return self._failures.handle(claimed, permit, call, caller, error, may_refresh=may_refresh)
        self._limiter.end(permit, taken=True, counted=True)
        self._settlement.succeed(claimed, call, caller.account, ready.image, recognition, lifts_stop=caller.is_probe)
        if caller.is_probe:
            self._accounts.forget()
        return False

    def _callers(self, accounts: list[Account], *, is_probe: bool) -> dict[str, Caller]:
        """The accounts with a token and a warm connection; fetched after the permit, either would let it pass.

        An account for which no token can be had is stopped.
        """
        callers: dict[str, Caller] = {}
        for account in accounts:
            try:
                callers[account.id] = Caller(account, self._token(account), is_probe)
            except ProviderError as error:
                self._failures.stop(account.id, EVERY_ENDPOINT, error)
                continue
            provider = self._providers[account.provider]
            seconds = provider.warm_up(account.base_url, measure=self._spread.is_probe_due(account.id))
            if seconds is not None:
                self._spread.observe_round_trip(account.id, seconds)
        return callers

    def _permit(self, claimed: Claimed, callers: dict[str, Caller]) -> tuple[Permit, Call] | None:
        """A permit whose instant is now, with its attempt recorded; None: the job is back in line.

        Raises:
            ClaimLostError: the job is no longer ours.
            LimiterUnavailableError: Redis does not answer.
        """
        job, endpoint = claimed.job, claimed.document.endpoint
        candidates = [Candidate(caller.account.id, caller.account.quota(endpoint)) for caller in callers.values()]
        give_up_at = time.monotonic() + self._permit_wait.total_seconds()
        number: int | None = None
        try:
            while True:
                left = timedelta(seconds=max(0.0, give_up_at - time.monotonic()))
                permit = self._limiter.book(candidates, endpoint, job.lane, longest_wait=left)
                self._failures.note_used_up(endpoint, permit.used_up)
                if isinstance(permit, NoPermit):
                    retry_at = None if permit.retry_after is None else self._clock() + permit.retry_after
                    self._settlement.release(claimed, permit.waiting_on, retry_at, withdraw=number)
                    return None
                try:
                    number = self._record_call(claimed, permit, number)
                except Exception:
                    self._limiter.abandon(permit)
                    raise
                if self._limiter.wait(permit):
                    return permit, Call(number, time.monotonic())
        except LimiterUnavailableError:
            if number is not None:
                with transaction(self._engine) as connection:
                    attempt_rows.withdraw_attempt(connection, job.id, number)
            raise

    def _record_call(self, claimed: Claimed, permit: Permit, number: int | None) -> int:
        """Record the call before it is made; `number` of its attempt if it was recorded for an earlier instant."""
        now = self._clock()
        values = {
            "account_id": permit.account_id,
            "quota_day": permit.quota_day,
            "throttle_ms": round(permit.waited_seconds * 1000),
            "started_at": now + timedelta(seconds=max(0.0, permit.instant - time.monotonic())),
        }
        with transaction(self._engine) as connection:
            if number is not None:
                attempt_rows.move_attempt(connection, claimed.job.id, number, values)
                return number
            number = attempt_rows.start_attempt(
                connection,
                {"id": new_id("att"), "job_id": claimed.job.id, "endpoint": permit.endpoint, **values},
                claim_token=claimed.token,
                lease_until=now + self._lease,
            )
        if number is None:
            raise ClaimLostError("Another worker may hold the job.")
        return number

    def _token(self, account: Account) -> str:
        provider = self._providers[account.provider]
        try:
            credentials = self._accounts.credentials(account)
        except SecretUnreadableError as error:
            raise ProviderError(
                FailureKind.MISCONFIGURED, str(error), error_code=JobErrorCode.PROVIDER_MISCONFIGURED, called=False
            ) from error
        return self._tokens.get(account.id, lambda: provider.fetch_token(credentials))
