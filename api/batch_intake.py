"""Accept batches: portion by portion, images first, then their rows in one statement.

A batch is recorded, open, before its first item. Each portion is durable when it is committed, and has its numbers in
the batch, so a request that is repeated (same idempotency key) after it was cut short goes on where it was: items whose
number is there already are passed over. A batch is closed when all of it is there.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import structlog
from sqlalchemy import Engine

from api.batch_bodies import BatchSubmission
from api.batch_items import RawItem
from api.batch_schemas import BatchFields
from api.idempotency import IdempotencyKeys, in_progress
from api.webhook_urls import endpoint_of_url
from shared.clock import Clock
from shared.database import batches as rows
from shared.database.batches import BadItem, Batch
from shared.database.engine import transaction
from shared.database.idempotency import bind_key, drop_key
from shared.database.jobs import NewJob
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import (
    BatchClosedError,
    BusyError,
    DatabaseUnavailableError,
    IdempotencyInProgressError,
    ImageError,
    NotFoundError,
    UnavailableError,
)
from shared.domain.job import JobErrorCode
from shared.ids import new_id
from shared.image_headers import check_size, read_header
from shared.metrics import JOBS_ACCEPTED
from shared.settings import Settings
from shared.storage import ImageStore, image_key

log = structlog.get_logger(__name__)

_PORTION_ITEMS, _PORTION_BYTES = 200, 16_000_000
# Each may hold `max_batch_bytes` in memory.
_AT_ONCE = 4
_QUEUE_SECONDS = 30


@dataclass(frozen=True)
class AcceptedBatch:
    """A batch that is kept. `is_replay`: an earlier request with the same idempotency key made it."""

    batch: Batch
    is_replay: bool = False


@dataclass(frozen=True)
class Looked:
    """An item that was looked at: its row, and its bytes if it has any."""

    row: NewJob | BadItem
    content: bytes | None

    @property
    def number(self) -> int:
        """Its place in the batch."""
        job = self.row if isinstance(self.row, NewJob) else self.row.job
        return job.item_number or 0


class BatchIntake:
    """Turns submissions into batches. Safe to share between threads."""

    def __init__(self, *, engine: Engine, store: ImageStore, settings: Settings, clock: Clock) -> None:
        """Take its parts."""
        self._engine = engine
        self._store = store
        self._settings = settings
        self._clock = clock
        self._keys = IdempotencyKeys(settings, clock)
        self._gate = threading.BoundedSemaphore(_AT_ONCE)

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Let a few requests with many images in at a time: they are held in memory.

        Raises:
            BusyError: too many others are being served.
        """
        if not self._gate.acquire(timeout=_QUEUE_SECONDS):
            raise BusyError("Too many batches are being handed over at the moment. Try again in a few seconds.")
        try:
            yield
        finally:
            self._gate.release()

    def create(self, client_id: str, submission: BatchSubmission, key: str | None) -> AcceptedBatch:
        """Keep a batch with all of its items. When this returns, they are durable.

        Raises:
            IdempotencyMismatchError: the key was used for another request.
            UnavailableError: the database or the store does not answer; what was kept so far is found again by the key.
        """
        batch, is_replay = self._begin(client_id, submission, key)
        try:
            if batch.closed_at is None:
                self._add_all(batch, submission.items)
                if submission.fields.close:
                    with transaction(self._engine) as connection:
                        rows.close_batch(connection, batch.id, self._clock())
        except BatchClosedError:
            if key is None:
                raise
            # The same request, sent again while this one was served, was quicker: all of it is there.
        except Exception:
            if key is None:
                # Nobody was told of this batch, and nobody can go on with it: nothing of it shall be paid for.
                with suppress(DatabaseUnavailableError), transaction(self._engine) as connection:
                    rows.call_off(connection, batch.id, self._clock())
            raise
        return AcceptedBatch(self._read(batch), is_replay)

    def _begin(self, client_id: str, submission: BatchSubmission, key: str | None) -> tuple[Batch, bool]:
        fields = submission.fields
        new = Batch(
            id=new_id("bat"),
            client_id=client_id,
            name=fields.name,
            document_type=fields.document_type,
            options=fields.options,
            lane=fields.lane,
            cache=fields.cache,
            item_count=0,
            created_at=self._clock(),
            webhook_url=fields.webhook_url,
        )
        fingerprint = _fingerprint(submission)
        with transaction(self._engine) as connection:
            if key is not None:
                use = self._keys.take(connection, client_id, key, fingerprint)
                if use is not None:
                    batch = rows.get_batch(connection, use.job_id or "", client_id=client_id)
                    if batch is None:
                        raise in_progress()
                    return batch, True
                bind_key(connection, client_id, key, new.id, request_sha256=fingerprint)
            endpoint_id = endpoint_of_url(connection, client_id, new.webhook_url, self._settings, new.created_at)
            return rows.insert_batch(connection, replace(new, webhook_endpoint_id=endpoint_id)), False

    def _add_all(self, batch: Batch, items: Iterable[RawItem]) -> None:
        first = 1
        for portion in portions(items):
            looked = [self.look_at(batch, raw, first + place) for place, raw in enumerate(portion)]
            last = first + len(portion) - 1
            with transaction(self._engine) as connection:
                known = rows.known_numbers(connection, batch.id, first, last)
            self._keep([item for item in looked if item.number not in known], batch, last)
            first = last + 1

    def _keep(self, looked: list[Looked], batch: Batch, last: int) -> None:
        contents = self._store_all(looked)
        with transaction(self._engine) as connection:
            is_open = rows.raise_numbers(connection, batch.id, last)
            added = rows.insert_items(connection, [item.row for item in looked], self._clock()) if is_open else set()
        self._forget(looked, added, contents)
        if not is_open:
            raise BatchClosedError("The batch was closed or canceled meanwhile. What came before that is kept.")

    def add(self, client_id: str, batch_id: str, submission: BatchSubmission, key: str | None) -> AcceptedBatch:
        """Add items to an open batch: all of them, or none.

        Raises:
            BatchClosedError: it takes no more.
            IdempotencyMismatchError: the key was used for another request.
            IdempotencyInProgressError: the first request with this key is still being served.
            NotFoundError: there is no such batch.
            UnavailableError: the database or the store does not answer; nothing was added.
        """
        batch = self.find(client_id, batch_id)
        if key is not None:
            replayed = self._replay_of(client_id, batch, submission, key)
            if replayed:
                return AcceptedBatch(self._read(batch), is_replay=True)
        try:
            self._add_at_once(client_id, batch, list(submission.items), submission, key)
        except Exception:
            if key is not None:
                with suppress(DatabaseUnavailableError), transaction(self._engine) as connection:
                    drop_key(connection, client_id, key)
            raise
        return AcceptedBatch(self._read(batch))

    def _replay_of(self, client_id: str, batch: Batch, submission: BatchSubmission, key: str) -> bool:
        with transaction(self._engine) as connection:
            use = self._keys.take(connection, client_id, key, _fingerprint(submission, batch.id))
        if use is not None and use.job_id is None:
            raise in_progress()
        return use is not None

    def _add_at_once(
        self, client_id: str, batch: Batch, items: list[RawItem], submission: BatchSubmission, key: str | None
    ) -> None:
        looked = [self.look_at(batch, raw, 0) for raw in items]
        contents = self._store_all(looked)
        try:
            with transaction(self._engine) as connection:
                first = rows.take_numbers(connection, batch.id, len(looked))
                if first is None:
                    raise BatchClosedError("The batch takes no more items: it was closed or canceled.")
                numbered = [_numbered(item, first + place) for place, item in enumerate(looked)]
                rows.insert_items(connection, [item.row for item in numbered], self._clock())
                fingerprint = _fingerprint(submission, batch.id)
                if key is not None and not bind_key(connection, client_id, key, batch.id, request_sha256=fingerprint):
                    raise IdempotencyInProgressError(
                        "Another request with this Idempotency-Key has overtaken this one."
                    )
        except (BatchClosedError, IdempotencyInProgressError):
            self._forget(looked, set(), contents)
            raise
        self._count(looked)

    def look_at(self, batch: Batch | BatchFields, raw: RawItem, number: int) -> Looked:
        """An item as a row: queued if it is an image, failed if it is none."""
        said = raw.said
        document_type = str(said.get("document_type") or batch.document_type)
        job_id, now = new_id("job"), self._clock()
        refusal, header, content = raw.refusal, None, raw.content
        error: tuple[JobErrorCode, str] | None = None if refusal is None else (refusal.code, refusal.detail)
        if content is not None:
            try:
                check_size(len(content), self._settings.max_image_bytes)
                header = read_header(
                    content,
                    max_pixels=self._settings.max_image_pixels,
                    short_side=DOCUMENT_TYPES[document_type].limits.short_side,
                )
            except ImageError as problem:
                error = (JobErrorCode(problem.code), str(problem))
        is_image = content is not None and header is not None
        job = NewJob(
            id=job_id,
            client_id=batch.client_id if isinstance(batch, Batch) else "",
            document_type=document_type,
            options=batch.options if said.get("options") is None else said["options"],
            lane=batch.lane,
            client_reference_id=said.get("client_reference_id"),
            metadata=said.get("metadata") or {},
            expires_at=None,
            image_key=image_key(job_id, now) if is_image else None,
            image_sha256=hashlib.sha256(content).hexdigest() if is_image and content is not None else None,
            image_bytes=len(content) if is_image and content is not None else None,
            image_format=header.format if header else None,
            image_width=header.width if header else None,
            image_height=header.height if header else None,
            created_at=now,
            batch_id=batch.id if isinstance(batch, Batch) else "",
            cache=batch.cache,
            item_number=number,
            item_name=raw.name,
            image_url=raw.image_url if error is None else None,
        )
        if error is not None:
            return Looked(BadItem(job, *error), None)
        return Looked(job, content)

    def _store_all(self, looked: list[Looked]) -> dict[str, bytes]:
        contents = {
            item.row.image_key: item.content
            for item in looked
            if isinstance(item.row, NewJob) and item.row.image_key is not None and item.content is not None
        }
        try:
            if contents:
                self._store.put_many(contents)
        except UnavailableError:
            for key in contents:
                with suppress(UnavailableError):  # the orphan sweep takes it
                    self._store.delete(key)
            raise
        return contents

    def _forget(self, looked: list[Looked], added: set[int], contents: dict[str, bytes]) -> None:
        """Count what was added, and erase the images of what another request was quicker with."""
        for item in looked:
            if item.number in added or not isinstance(item.row, NewJob) or item.row.image_key not in contents:
                continue
            with suppress(UnavailableError):  # the orphan sweep takes it
                self._store.delete(item.row.image_key)
        self._count([item for item in looked if item.number in added])

    @staticmethod
    def _count(looked: list[Looked]) -> None:
        for item in looked:
            if isinstance(item.row, NewJob):
                JOBS_ACCEPTED.labels(item.row.document_type, item.row.lane).inc()

    def find(self, client_id: str, batch_id: str) -> Batch:
        """The client's batch.

        Raises:
            NotFoundError: there is none, or it is another client's.
        """
        with transaction(self._engine) as connection:
            batch = rows.get_batch(connection, batch_id, client_id=client_id)
        if batch is None:
            raise NotFoundError("There is no such batch.")
        return batch

    def _read(self, batch: Batch) -> Batch:
        return self.find(batch.client_id, batch.id)


def portions(items: Iterable[RawItem]) -> Iterator[list[RawItem]]:
    """Items in lists of a size that fits into memory and into one statement."""
    portion: list[RawItem] = []
    size = 0
    for item in items:
        portion.append(item)
        size += len(item.content or b"")
        if len(portion) == _PORTION_ITEMS or size > _PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _numbered(item: Looked, number: int) -> Looked:
    if isinstance(item.row, NewJob):
        return Looked(replace(item.row, item_number=number), item.content)
    return Looked(replace(item.row, job=replace(item.row.job, item_number=number)), item.content)


def _fingerprint(submission: BatchSubmission, batch_id: str = "") -> str:
    """What an idempotency key stands for: hex SHA-256 over fields and items."""
    # Keys taken before there were webhook_urls stay good.
    new = {"webhook_url"} if submission.fields.webhook_url is None else set()
    text = f"{batch_id}/{submission.fields.model_dump_json(exclude=new)}/{submission.sha256}"
    return hashlib.sha256(text.encode()).hexdigest()
