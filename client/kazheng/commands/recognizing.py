"""Many pictures through the API at once, with a progress bar: what `submit` and the demo share."""

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from kazheng.addresses import local_url
from kazheng.client import Client
from kazheng.commands.failures import CommandError
from kazheng.errors import ApiError, AuthenticationError, KazhengError, WaitTimeoutError
from kazheng.models import Job
from shared.settings import Settings

# Enough to keep a paid account's 10 calls a second busy, few enough for the default API's held polls.
THREADS = 8


@dataclass(frozen=True)
class Picture:
    """One file to recognize."""

    path: Path
    document_type: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why there is no job, or none that has ended; `code` is for programs, `detail` says what to do."""

    code: str
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What became of one picture: a job, unless it was not accepted; a failure, unless it got as far as asked."""

    picture: Picture
    job: Job | None
    failure: Failure | None
    milliseconds: int

    @property
    def is_good(self) -> bool:
        """Whether it was recognized; when nobody waited, whether it was accepted."""
        return self.failure is None


def open_client(settings: Settings) -> Client:
    """A client of the API the settings name.

    Raises:
        CommandError: no API key is set.
    """
    if settings.api_key is None:
        raise CommandError(
            "KAZHENG_API_KEY is not set. Make a key with `kazheng keys create --client NAME`; `kazheng up` makes one"
            " by itself, for commands run in the same folder."
        )
    base_url = settings.api_url or local_url(settings.api_host, settings.api_port)
    return Client(settings.api_key.get_secret_value(), base_url)


def recognize(
    client: Client,
    pictures: Sequence[Picture],
    *,
    wait: bool,
    timeout_seconds: float,
    lane: str | None = None,
    threads: int = THREADS,
) -> Iterator[Outcome]:
    """Submit pictures, a few at a time; outcomes as they come.

    Args:
        wait: False: an accepted job is outcome enough.
        timeout_seconds: how long one job may take.

    Raises:
        AuthenticationError: the API key is refused, which would be so for every picture.
    """
    waiting: queue.SimpleQueue[Picture] = queue.SimpleQueue()
    for picture in pictures:
        waiting.put(picture)
    done: queue.SimpleQueue[Outcome | Exception] = queue.SimpleQueue()
    stopping = threading.Event()

    def work() -> None:
        while not stopping.is_set():
            try:
                picture = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                done.put(_recognize_one(client, picture, wait=wait, timeout_seconds=timeout_seconds, lane=lane))
            except Exception as error:  # noqa: BLE001 - raised in the thread that asked
                done.put(error)

    # Daemons: after Ctrl-C nobody waits for polls that are being held.
    for _ in range(min(threads, len(pictures))):
        threading.Thread(target=work, daemon=True).start()
    try:
        for _ in pictures:
            outcome = done.get()
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome
    finally:
        stopping.set()


@contextmanager
def progress_bar(console: Console, title: str, total: int) -> Iterator[tuple[Progress, TaskID]]:
    """A bar that counts pictures and goes away in the end."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress, progress.add_task(title, total=total)


def _recognize_one(
    client: Client, picture: Picture, *, wait: bool, timeout_seconds: float, lane: str | None
) -> Outcome:
    started = time.monotonic()
    job: Job | None = None
    failure: Failure | None = None
    try:
        job = client.submit(picture.path, document_type=picture.document_type, options=picture.options, lane=lane)
        if wait:
            job = client.wait(job, timeout_seconds)
            failure = _failure_of(job)
    except AuthenticationError:
        raise
    except WaitTimeoutError as error:
        failure = Failure("wait_timeout", str(error))
    except ApiError as error:
        failure = Failure(error.code, error.detail)
    except KazhengError as error:
        failure = Failure("api_unreachable", str(error))
    except OSError as error:
        failure = Failure("file_unreadable", f"The file can't be read: {error.strerror or type(error).__name__}.")
    return Outcome(picture, job, failure, _milliseconds(job, time.monotonic() - started))


def _failure_of(job: Job) -> Failure | None:
    if job.has_succeeded:
        return None
    if job.error:
        return Failure(job.error.code, job.error.detail)
    return Failure(job.status, f"The job is {job.status}.")


def _milliseconds(job: Job | None, seconds: float) -> int:
    """What the server says a job took, or what it took here."""
    total = job.timings_ms.get("total") if job else None
    return round(total) if isinstance(total, int | float) else round(seconds * 1000)
