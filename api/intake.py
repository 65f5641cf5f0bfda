"""Accept an image: check, keep, record, send word. After the answer 202, nothing of it can get lost.

The order is the promise. The bytes are durable before the row that names them is committed, and the message goes out
after the commit: whatever dies in between leaves an image without a row (the orphan sweep erases it) or a job without
a message (the sweeper publishes it), never a job without its image.

When the commit gets no answer nobody knows whether it happened. Then the image stays and the idempotency key stays
taken: had it happened, the job lives; had it not, the sweep erases the image, and the key comes free by itself.
"""

import contextlib
import hashlib
import json
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine

from api.bodies import Submission
from api.idempotency import IdempotencyKeys, in_progress
from api.webhook_urls import endpoint_of_url
from shared.clock import Clock
from shared.database.engine import transaction
from shared.database.idempotency import KeyUse, bind_key, drop_key
from shared.database.jobs import Job, NewJob, get_job, insert_job
from shared.database.lines import remember_first_message
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import (
    DatabaseUnavailableError,
    IdempotencyInProgressError,
    UnavailableError,
)
from shared.domain.job import Lane
from shared.ids import new_id
from shared.image_headers import ImageHeader, check_size, read_header
from shared.image_urls import fetch_image
from shared.metrics import JOBS_ACCEPTED
from shared.outbound import OutboundPolicy
from shared.queues import Publisher, QueueName
from shared.settings import Settings
from shared.storage import ImageStore, image_key

log = structlog.get_logger(__name__)

# About what all workers take up in some seconds.
_CROWD = 500


@dataclass(frozen=True)
class Accepted:
    """A job that is kept. `is_replay`: an earlier request with the same idempotency key made it."""

    job: Job
    is_replay: bool = False


class Intake:
    """Turns submissions into jobs. Safe to share between threads."""

    def __init__(
        self,
        *,
        engine: Engine,
        store: ImageStore,
        publisher: Publisher,
        redis: Redis,
        settings: Settings,
        policy: OutboundPolicy,
        clock: Clock,
    ) -> None:
        """Take its parts; `policy` says which addresses an image may be fetched from."""
        self._engine = engine
        self._store = store
        self._publisher = publisher
        self._redis = redis
        self._settings = settings
        self._policy = policy
        self._clock = clock
        self._keys = IdempotencyKeys(settings, clock)

    def submit_job(self, client_id: str, submission: Submission, idempotency_key: str | None) -> Accepted:
        """Keep an image and record a job for it. When this returns, both are durable.

        Raises:
            ImageError: the image can't be accepted; nothing is kept.
            IdempotencyMismatchError: the key was used for another request.
            IdempotencyInProgressError: the first request with this key is still being served.
            UnavailableError: the database or the store does not answer.
        """
        # Before the key is taken: a request that is wrong in itself leaves no trace.
        header = None if submission.content is None else self._read_header(submission, submission.content)
        if idempotency_key is not None:
            use = self._take_key(client_id, idempotency_key, submission)
            if use is not None:
                return Accepted(self._first_job(client_id, use), is_replay=True)
        content = submission.content
        if content is None or header is None:
            try:
                content = self._fetch(submission)
                header = self._read_header(submission, content)
            except Exception:
                self._give_key_back(client_id, idempotency_key)
                raise
        return Accepted(self._keep(client_id, submission, content, header, idempotency_key))

    def _read_header(self, submission: Submission, content: bytes) -> ImageHeader:
        return read_header(
            content,
            max_pixels=self._settings.max_image_pixels,
            short_side=DOCUMENT_TYPES[submission.fields.document_type].limits.short_side,
        )

    def _fetch(self, submission: Submission) -> bytes:
        content = fetch_image(
            submission.image_url or "",
            self._policy,
            max_bytes=self._settings.max_image_bytes,
            deadline_seconds=self._settings.fetch_timeout_seconds,
        )
        check_size(len(content), self._settings.max_image_bytes)
        return content

    def _take_key(self, client_id: str, key: str, submission: Submission) -> KeyUse | None:
        with transaction(self._engine) as connection:
            return self._keys.take(connection, client_id, key, fingerprint(submission))

    def _first_job(self, client_id: str, use: KeyUse) -> Job:
        if use.job_id is not None:
            with transaction(self._engine) as connection:
                job = get_job(connection, use.job_id, client_id=client_id)
            if job is not None:
                return job
        raise in_progress()

    def _give_key_back(self, client_id: str, key: str | None) -> None:
        if key is None:
            return
        # Should this fail, the key comes free by itself a little later.
        with contextlib.suppress(DatabaseUnavailableError), transaction(self._engine) as connection:
            drop_key(connection, client_id, key)

    def _keep(
        self, client_id: str, submission: Submission, content: bytes, header: ImageHeader, key: str | None
    ) -> Job:
        new = self._new_job(client_id, submission, content, header)
        ready_to_commit = False
        try:
            self._store.put(new.image_key or "", content)
            with transaction(self._engine) as connection:
                endpoint_id = endpoint_of_url(connection, client_id, new.webhook_url, self._settings, new.created_at)
                job = insert_job(connection, replace(new, webhook_endpoint_id=endpoint_id))
                if key is not None and not bind_key(
                    connection, client_id, key, new.id, request_sha256=fingerprint(submission)
                ):
                    raise IdempotencyInProgressError(
                        "Another request with this Idempotency-Key has overtaken this one."
                    )
                ready_to_commit = True
        except Exception:
            if ready_to_commit:
                log.warning("commit_unknown", job_id=new.id)
            else:
                self._erase_leftover(new)
                self._give_key_back(client_id, key)
            raise
        JOBS_ACCEPTED.labels(job.document_type, job.lane).inc()
        self._send_word(job)
        return job

    def _new_job(self, client_id: str, submission: Submission, content: bytes, header: ImageHeader) -> NewJob:
        fields, now, job_id = submission.fields, self._clock(), new_id("job")
        return NewJob(
            id=job_id,
            client_id=client_id,
            document_type=fields.document_type,
            options=fields.options,
            lane=fields.lane,
            client_reference_id=fields.client_reference_id,
            metadata=fields.metadata,
            expires_at=None if fields.expires_in is None else now + timedelta(seconds=fields.expires_in),
            image_key=image_key(job_id, now),
            image_sha256=hashlib.sha256(content).hexdigest(),
            image_bytes=len(content),
            image_format=header.format,
            image_width=header.width,
            image_height=header.height,
            created_at=now,
            cache=fields.cache,
            webhook_url=fields.webhook_url,
        )

    def _erase_leftover(self, new: NewJob) -> None:
        try:
            self._store.delete(new.image_key or "")
        except UnavailableError as error:
            log.warning("orphan_image_left", job_id=new.id, error=type(error).__name__)

    def _send_word(self, job: Job) -> None:
        """Publish, and remember it. Bulk jobs, and people's in a flood, stay in Postgres and are fed from there."""
        if job.lane is not Lane.INTERACTIVE or self._is_crowded() or not self._publisher.publish_job(job.id, job.lane):
            return
        try:
            with transaction(self._engine) as connection:
                remember_first_message(connection, job.id, self._clock())
        except DatabaseUnavailableError:  # the job is kept: the answer stays 202, and the message comes twice
            log.warning("message_not_remembered", job_id=job.id)

    def _is_crowded(self) -> bool:
        """Whether so many messages wait that one more would only fill the broker's memory."""
        try:
            return int(self._redis.llen(QueueName.INTERACTIVE)) >= _CROWD
        except RedisError:
            return False  # publishing will find out


def fingerprint(submission: Submission) -> str:
    """What an idempotency key stands for: hex SHA-256 over the fields and the image.

    Of an `image_url` the address counts, not what it gives: a repetition must not fetch again, and an address may be
    good for one time only.
    """
    content = submission.content
    image = submission.image_url if content is None else hashlib.sha256(content).hexdigest()
    values = submission.fields.model_dump(mode="json") | {"image": image, "is_url": content is None}
    if submission.fields.webhook_url is None:  # keys taken before there were any stay good
        del values["webhook_url"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
