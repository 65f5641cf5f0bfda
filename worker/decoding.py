"""Decoding kept apart: a picture that hangs its decoder, eats memory or kills costs a child process, not the worker.

Decoders are C code that reads whatever a stranger sent. Bounded pixels (checked before decoding) bound what an honest
picture takes; a child process with a limit on its memory and its time bounds the others, and costs a copy of the bytes
each way. Pictures that go up unchanged are never decoded.

`pebble`, instead of `concurrent.futures`: it ends a task that takes too long, and lives on when a process dies.
"""

import multiprocessing
import resource
import threading
from concurrent.futures import TimeoutError as TaskTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

import structlog
from pebble import ProcessExpired, ProcessPool

from shared.domain.documents import Limits
from shared.domain.errors import ProviderError, UnavailableError
from shared.domain.job import JobErrorCode
from shared.domain.retry import FailureKind
from shared.images import load_formats
from worker.prepare import UnusableImageError, as_it_is, convert
from worker.providers.protocol import PreparedImage

log = structlog.get_logger(__name__)

# Memory that decoders leak ends with their process.
_TASKS_A_PROCESS = 500
# A busy machine may make an honest picture look like a bad one, once.
_TRIES = 3
_PATIENCE_SECONDS = 15.0


class ImagePreparer:
    """Prepares images, a few at a time, whatever the number of threads. Safe to share between threads."""

    def __init__(self, *, processes: int, max_pixels: int, seconds: float, memory_bytes: int) -> None:
        """Starts nothing before the first image that must be decoded.

        Args:
            processes: images decoded at the same time.
            max_pixels: what one may have.
            seconds: what decoding one may take.
            memory_bytes: address space of one process.
        """
        self._slots = threading.Semaphore(processes)
        self._processes = processes
        self._max_pixels = max_pixels
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._pool = self._make_pool()

    def prepare(self, content: bytes, limits: Limits) -> PreparedImage:
        """The image as the provider takes it; nothing was sent when it raises.

        Raises:
            ProviderError: `bad_input`: the image can't be read, or can't be made to fit; `retry_soon`: its decoder hung
                or died, and it is not given up yet.
            UnavailableError: no process can be had to decode it.
        """
        with self._slots:
            try:
                prepared = as_it_is(content, limits, self._max_pixels)
                return prepared or self._convert(content, limits)
            except (UnusableImageError, MemoryError) as error:
                detail = str(error) or "the image takes too much memory to decode"
                raise ProviderError(
                    FailureKind.BAD_INPUT, detail, error_code=JobErrorCode.IMAGE_REJECTED, called=False
                ) from error
            except TaskTimeoutError as error:
                raise _deadly(f"decoding the image took more than {self._seconds:g} s") from error
            except ProcessExpired as error:
                raise _deadly(f"decoding the image killed its process (exit code {error.exitcode})") from error

    def _convert(self, content: bytes, limits: Limits) -> PreparedImage:
        for _ in range(2):
            pool = self._pool
            try:
                future = pool.schedule(convert, args=[content, limits], timeout=self._seconds)
            except RuntimeError:  # it broke before
                self._replace(pool)
                continue
            try:
                return future.result(self._seconds + _PATIENCE_SECONDS)
            except BrokenProcessPool:  # a process died that had nothing to do
                self._replace(pool)
            except TaskTimeoutError:
                if not future.done():
                    self._replace(pool)
                raise
        raise UnavailableError("No process can be had that decodes images.")

    def _make_pool(self) -> ProcessPool:
        # A fork of a process with threads may hang: children come from a server that has none.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["worker.prepare"])
        return ProcessPool(
            max_workers=self._processes,
            max_tasks=_TASKS_A_PROCESS,
            initializer=_begin,
            initargs=[self._max_pixels, self._memory_bytes],
            context=context,
        )

    def _replace(self, broken: ProcessPool) -> None:
        with self._lock:
            if self._pool is not broken:
                return
            self._pool = self._make_pool()
        log.warning("decoders_replaced")
        _stop(broken)

    def close(self) -> None:
        """End the processes."""
        _stop(self._pool)


def _stop(pool: ProcessPool) -> None:
    pool.stop()  # type: ignore[no-untyped-call]
    pool.join()


def _begin(max_pixels: int, memory_bytes: int) -> None:
    with suppress(ValueError, OSError):  # macOS knows no such limit
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    load_formats(max_pixels)


def _deadly(detail: str) -> ProviderError:
    return ProviderError(
        FailureKind.RETRY_SOON, detail, error_code=JobErrorCode.POISONED, max_attempts=_TRIES, called=False
    )
