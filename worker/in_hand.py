"""The image of a job, got ready for its call, with a note of whose it is.

The note is what a worker leaves behind if the image kills it; the sweeper counts it against the job
(`worker.recovery`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from shared.database.jobs import Job
from shared.domain.errors import ImageLostError
from shared.limits import keys
from shared.storage import ImageStore
from worker.decoding import ImagePreparer
from worker.providers.protocol import PreparedImage, Provider
from worker.settlement import Claimed

_NOTE_LIFE_SECONDS = 86_400


@dataclass(frozen=True)
class Ready:
    """A claimed job whose call can be sent at once."""

    claimed: Claimed
    image: PreparedImage
    body: bytes


class ImageHandler:
    """Reads, prepares and encodes images. Safe to share between threads."""

    def __init__(self, *, store: ImageStore, preparer: ImagePreparer, redis: Redis, worker: str) -> None:
        """Take its parts; `worker`: the name under which this process claims jobs."""
        self._store = store
        self._preparer = preparer
        self._redis = redis
        self._worker = worker
        self._suspects = threading.Lock()

    def make_ready(self, claimed: Claimed, provider: Provider) -> Ready:
        """The job with the body of its call.

        Raises:
            ImageLostError: the image is missing or altered.
            ProviderError: `bad_input`: it can't be read, or can't be made to fit.
            StorageUnavailableError: the store does not answer.
        """
        job = claimed.job
        if job.image_key is None:
            raise ImageLostError("The image was erased.")
        with self._in_hand(job):
            content = self._store.get(job.image_key, sha256=job.image_sha256 or "")
            image = self._preparer.prepare(content, claimed.document.limits)
            return Ready(claimed, image, provider.encode(claimed.document, job.options, image))

    @contextmanager
    def _in_hand(self, job: Job) -> Iterator[None]:
        """Note down what this process would die of, if it dies now.

        Of the jobs whose worker has died, one at a time: or those that stood beside a poisonous one would stand beside
        it again, and be taken for poison too.
        """
        with self._suspects if job.crashes else nullcontext():
            with suppress(RedisError):  # evidence only; the job goes on without
                pipeline = self._redis.pipeline(transaction=False)
                pipeline.sadd(keys.preparing(self._worker), job.id)
                pipeline.expire(keys.preparing(self._worker), _NOTE_LIFE_SECONDS)
                pipeline.execute()
            try:
                yield
            finally:
                with suppress(RedisError):
                    self._redis.srem(keys.preparing(self._worker), job.id)
