"""How an attempt ends: what is written, in one transaction, and who is told.

A call that was made has been paid for, so its outcome is not given up while Postgres is away: it is tried again until
the claim is given up. All writes name the claim's token; when it is gone, the attempt is still recorded (it was
made), but the job belongs to somebody else.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, Engine

from shared.clock import Clock
from shared.database import attempts as attempt_rows
from shared.database import jobs as job_rows
from shared.database.accounts import Account
from shared.database.engine import transaction
from shared.database.jobs import Job
from shared.database.stops import lift_stops
from shared.database.twins import NO_TWINS, Twins, read_answer, succeed_like
from shared.domain.checks import run_checks
from shared.domain.documents import DocumentType
from shared.domain.errors import DatabaseUnavailableError, ProviderError
from shared.domain.job import JobErrorCode, JobStatus, WaitingOn
from shared.domain.quota import quota_day
from shared.domain.result import FieldValue, Recognition
from shared.domain.retry import GiveUp, RetryPolicy, decide_after_failure
from shared.limits.keys import FINAL_CHANNEL
from shared.metrics import CACHE_HITS, CALL_SECONDS, CALLS, JOBS_SETTLED, POISONED
from worker.providers.protocol import PreparedImage

log = structlog.get_logger(__name__)

# A paid answer is held so long while Postgres is away.
_PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Claimed:
    """A job that is ours as long as `token` is the one in its row, and what jobs equal to it offer."""

    job: Job
    token: str
    document: DocumentType
    twins: Twins = NO_TWINS


@dataclass(frozen=True)
class Call:
    """A call that was begun: number of the attempt, from 1, and its beginning by `time.monotonic`."""

    number: int
    began: float


class Settlement:
    """Writes the ends of attempts. Safe to share between threads."""

    def __init__(self, *, engine: Engine, redis: Redis, policy: RetryPolicy, clock: Clock) -> None:
        """Take its parts."""
        self._engine = engine
        self._redis = redis
        self._policy = policy
        self._clock = clock

    def succeed(
        self,
        claimed: Claimed,
        call: Call,
        account: Account,
        image: PreparedImage,
        recognition: Recognition,
        *,
        lifts_stop: bool = False,
    ) -> None:
        """Keep what was read, and end the job; `lifts_stop`: what had stopped the account is over."""
        now = self._clock()
        checks = run_checks(claimed.document.checks, recognition.fields, today=quota_day(now))
        result = {
            "job_id": claimed.job.id,
            "fields": recognition.fields_json(),
            "checks": [check.to_json() for check in checks],
            "image": {
                "width": image.width,
                "height": image.height,
                "sha256": claimed.job.image_sha256,
                "quality": recognition.quality,
                "risk": recognition.risk,
            },
            "provider": account.provider,
            "account": account.name,
            "upstream_log_id": recognition.upstream_log_id,
            "raw": recognition.raw,
            "created_at": now,
        }
        ended = self._ended(claimed, call, "succeeded", now)
        ended |= {"upstream_log_id": recognition.upstream_log_id, "billed": True}

        def write(connection: Connection) -> bool:
            attempt_rows.end_attempt(connection, claimed.job.id, call.number, ended)
            if lifts_stop:
                lift_stops(connection, account.id, claimed.document.endpoint, now)
            return job_rows.succeed_job(connection, claimed.job.id, claimed.token, now=now, result=result)

        if self._persist(claimed, write):
            self._announce(claimed, JobStatus.SUCCEEDED)

    def succeed_like(self, claimed: Claimed, source: str) -> bool:
        """End the job with the answer of an equal one, judged by today's date; False: it was erased meanwhile."""
        now = self._clock()
        with transaction(self._engine) as connection:
            answer = read_answer(connection, source)
        if answer is None:
            return False
        fields = {name: FieldValue.from_json(kept) for name, kept in answer["fields"].items()}
        checks = run_checks(claimed.document.checks, fields, today=quota_day(now))
        answer |= {"checks": [check.to_json() for check in checks]}

        def write(connection: Connection) -> bool:
            return succeed_like(connection, claimed.job.id, claimed.token, source=source, now=now, result=answer)

        if self._persist(claimed, write):
            CACHE_HITS.labels(claimed.job.document_type).inc()
            self._announce(claimed, JobStatus.SUCCEEDED)
        return True

    def fail_attempt(
        self,
        claimed: Claimed,
        call: Call | None,
        error: ProviderError,
        *,
        account: Account | None = None,
        counted: bool = False,
        lifts_stop: bool = False,
    ) -> None:
        """Record a failure, and what follows: another attempt, a pause, or the end of the job.

        Args:
            call: None when no account was called.
            account: the one called.
            counted: the call uses up quota.
            lifts_stop: what had stopped the account is over.
        """
        now = self._clock()
        step = decide_after_failure(
            error.kind,
            claimed.job.failed_attempts + 1,
            now=now,
            policy=self._policy,
            jitter=random.uniform(-0.2, 0.2),  # noqa: S311 - spreads load, guards nothing
            max_attempts=error.max_attempts,
        )
        gives_up = isinstance(step, GiveUp)
        log.info(
            "attempt_failed",
            job_id=claimed.job.id,
            kind=error.kind,
            upstream_code=error.upstream_code,
            upstream_log_id=error.upstream_log_id,
            detail=error.detail,
            gives_up=gives_up,
        )
        ended = self._ended_by(claimed, call, error, now, counted=counted) if call is not None else None

        def write(connection: Connection) -> bool:
            if call is not None and ended is not None:
                attempt_rows.end_attempt(connection, claimed.job.id, call.number, ended)
            if account is not None and lifts_stop:
                lift_stops(connection, account.id, claimed.document.endpoint, now)
            if isinstance(step, GiveUp):
                return job_rows.fail_job(
                    connection,
                    claimed.job.id,
                    claimed.token,
                    error=error.error_code,
                    now=now,
                    count_failure=True,
                    detail=error.client_detail,
                )
            return job_rows.release_job(
                connection,
                claimed.job.id,
                claimed.token,
                waiting_on=step.waiting_on,
                not_before=step.until,
                count_failure=step.costs_attempt,
                now=now,
            )

        if self._persist(claimed, write) and gives_up:
            if error.error_code is JobErrorCode.POISONED:
                POISONED.inc()
            self._announce(claimed, JobStatus.FAILED)

    def record_failed_call(self, claimed: Claimed, call: Call, error: ProviderError, *, counted: bool) -> None:
        """Record a call that failed while the job goes on in the same hands."""
        ended = self._ended_by(claimed, call, error, self._clock(), counted=counted)

        def write(connection: Connection) -> bool:
            attempt_rows.end_attempt(connection, claimed.job.id, call.number, ended)
            return True

        self._persist(claimed, write)

    def fail(self, claimed: Claimed, error: JobErrorCode) -> None:
        """End the job with an error without a call."""
        now = self._clock()

        def write(connection: Connection) -> bool:
            return job_rows.fail_job(
                connection, claimed.job.id, claimed.token, error=error, now=now, count_failure=False
            )

        if self._persist(claimed, write):
            self._announce(claimed, JobStatus.EXPIRED if error is JobErrorCode.EXPIRED else JobStatus.FAILED)

    def release(
        self, claimed: Claimed, waiting_on: WaitingOn, until: datetime | None, *, withdraw: int | None = None
    ) -> None:
        """Put the job back in line; no attempt is lost.

        Args:
            until: not before this time; None: as soon as its endpoint is fed.
            withdraw: number of an attempt whose call was not made after all.
        """
        now = self._clock()

        def write(connection: Connection) -> bool:
            if withdraw is not None:
                attempt_rows.withdraw_attempt(connection, claimed.job.id, withdraw)
            return job_rows.release_job(
                connection,
                claimed.job.id,
                claimed.token,
                waiting_on=waiting_on,
                not_before=until,
                count_failure=False,
                now=now,
            )

        self._persist(claimed, write)

    def _persist(self, claimed: Claimed, write: Callable[[Connection], bool]) -> bool:
        """Run a transaction, again and again while Postgres is away; whether the claim was still ours.

        Raises:
            DatabaseUnavailableError: Postgres stayed away for minutes.
        """
        give_up_at = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                with transaction(self._engine) as connection:
                    kept = write(connection)
                break
            except DatabaseUnavailableError:
                if time.monotonic() > give_up_at:
                    raise
                log.warning("database_unavailable", job_id=claimed.job.id)
                time.sleep(1)
        if not kept:
            log.warning("claim_lost", job_id=claimed.job.id)
        return kept

    def _ended(self, claimed: Claimed, call: Call, outcome: str, now: datetime) -> dict[str, object]:
        seconds = time.monotonic() - call.began
        CALLS.labels(claimed.document.endpoint, outcome).inc()
        CALL_SECONDS.labels(claimed.document.endpoint).observe(seconds)
        return {"outcome": outcome, "upstream_ms": round(seconds * 1000), "ended_at": now}

    def _ended_by(
        self, claimed: Claimed, call: Call, error: ProviderError, now: datetime, *, counted: bool
    ) -> dict[str, object]:
        return self._ended(claimed, call, error.kind, now) | {
            "upstream_code": error.upstream_code,
            "upstream_log_id": error.upstream_log_id,
            "detail": error.detail,
            "billed": error.billed,
            "counted": counted,
        }

    def _announce(self, claimed: Claimed, status: JobStatus) -> None:
        """Wake held polls; best effort, for they look for themselves every second."""
        JOBS_SETTLED.labels(claimed.job.document_type, status).inc()
        log.info("job_settled", job_id=claimed.job.id, status=status)
        try:
            self._redis.publish(FINAL_CHANNEL, claimed.job.id)
        except RedisError as error:
            log.info("announcement_lost", job_id=claimed.job.id, error=type(error).__name__)
