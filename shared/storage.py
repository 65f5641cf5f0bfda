"""Image bytes: put, get, delete, in a local folder or an S3 bucket (`obstore`, which drives Rust's object_store).

`put` returns when the bytes would survive a power cut. obstore writes local files to a temporary name and renames
them, but does not sync them, so `put` syncs the file and the folders that name it.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.exceptions import NotFoundError as ObjectNotFoundError
from obstore.store import LocalStore, S3Store

from shared.domain.errors import ImageLostError, StorageFullError, StorageUnavailableError
from shared.settings import Settings

_UNAVAILABLE = "The image store does not answer. Try again in a few seconds."
# Syncing waits for the disk, not for the processor: several waits go side by side.
_WRITERS = ThreadPoolExecutor(8, thread_name_prefix="store")
_FULL = "The image store is full; nothing was accepted. Try again later and tell the operator."


def image_key(job_id: str, moment: datetime) -> str:
    """Where the image of a job is kept: one folder a day, so that none grows without end."""
    return f"{moment:%Y/%m/%d}/{job_id}"


class ImageStore:
    """The one place where image bytes live. Safe to share between threads."""

    def __init__(self, store: LocalStore | S3Store, folder: Path | None) -> None:
        """Take an obstore store, and the folder behind it when it is a local one."""
        self._store = store
        self._folder = folder
        self._synced_folders: set[Path] = set()
        self._lock = threading.Lock()

    def put(self, key: str, content: bytes) -> None:
        """Keep the bytes; when this returns they are durable. Putting the same key twice keeps the last.

        Raises:
            StorageFullError: there is no room.
            StorageUnavailableError: the store does not answer.
        """
        with _mishaps_told():
            self._write(key, content)
            if self._folder is not None:
                self._sync_folders(self._folder, self._folder / key)

    def put_many(self, contents: Mapping[str, bytes]) -> None:
        """Keep many at once, several side by side; when this returns all are durable.

        Raises:
            StorageFullError: there is no room; some may have been kept.
            StorageUnavailableError: the store does not answer; some may have been kept.
        """
        with _mishaps_told():
            list(_WRITERS.map(self._write, contents.keys(), contents.values()))
            if self._folder is not None:
                for folder in {(self._folder / key).parent for key in contents}:
                    self._sync_folders(self._folder, folder / "any")

    def _write(self, key: str, content: bytes) -> None:
        obstore.put(self._store, key, content, use_multipart=False)
        if self._folder is not None:
            _fsync(self._folder / key)

    def get(self, key: str, *, sha256: str) -> bytes:
        """The bytes, checked against their recorded SHA-256 (hex).

        Raises:
            ImageLostError: they are missing or altered.
            StorageUnavailableError: the store does not answer.
        """
        try:
            content = bytes(obstore.get(self._store, key).bytes())
        except (ObjectNotFoundError, FileNotFoundError) as error:
            raise ImageLostError("The stored image is missing.") from error
        except (BaseError, OSError) as error:
            raise StorageUnavailableError(_UNAVAILABLE) from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ImageLostError("The stored image was altered.")
        return content

    def delete(self, key: str) -> None:
        """Erase the bytes; erasing what is gone is no error.

        Raises:
            StorageUnavailableError: the store does not answer.
        """
        try:
            obstore.delete(self._store, key)
        except (ObjectNotFoundError, FileNotFoundError):
            return
        except (BaseError, OSError) as error:
            raise StorageUnavailableError(_UNAVAILABLE) from error

    def days(self) -> list[datetime]:
        """Midnights (UTC) of the days that have a folder of images, oldest first.

        Raises:
            StorageUnavailableError: the store does not answer.
        """
        found = []
        for year in self._folders(""):
            for month in self._folders(year):
                for day in self._folders(month):
                    with contextlib.suppress(ValueError):  # a folder that is none of ours
                        found.append(datetime.strptime(day, "%Y/%m/%d").replace(tzinfo=UTC))
        return sorted(found)

    def _folders(self, prefix: str) -> list[str]:
        try:
            return [str(name) for name in obstore.list_with_delimiter(self._store, prefix or None)["common_prefixes"]]
        except (BaseError, OSError) as error:
            raise StorageUnavailableError(_UNAVAILABLE) from error

    def images_of(self, day: datetime) -> Iterator[dict[str, str]]:
        """The images of a day in portions: keys by job id.

        Raises:
            StorageUnavailableError: the store does not answer.
        """
        try:
            for portion in obstore.list(self._store, f"{day:%Y/%m/%d}", chunk_size=500):
                keys = [str(item["path"]) for item in portion]
                yield {key.rpartition("/")[2]: key for key in keys}
        except (BaseError, OSError) as error:
            raise StorageUnavailableError(_UNAVAILABLE) from error

    def check(self) -> None:
        """Whether bytes can be kept now: writes and erases a few.

        Raises:
            UnavailableError: they can't.
        """
        key = f"checks/{os.getpid()}-{threading.get_ident()}"
        self.put(key, b"ready")
        self.delete(key)

    def _sync_folders(self, root: Path, path: Path) -> None:
        _fsync(path.parent)
        with self._lock:
            if path.parent in self._synced_folders:
                return
        for folder in path.parent.parents:
            _fsync(folder)
            if folder == root:
                break
        with self._lock:
            self._synced_folders.add(path.parent)


@contextlib.contextmanager
def _mishaps_told() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as error:
        if "No space left" in str(error) or "Disk quota exceeded" in str(error):
            raise StorageFullError(_FULL) from error
        raise StorageUnavailableError(_UNAVAILABLE) from error


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_store(settings: Settings) -> ImageStore:
    """The store the settings name.

    Raises:
        StorageUnavailableError: the local folder can't be made.
    """
    url = urlsplit(settings.images_url)
    if url.scheme == "file":
        folder = Path(unquote(url.path))
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageUnavailableError(f"The image folder {folder} can't be made.") from error
        return ImageStore(LocalStore(folder), folder)
    options = {"endpoint": settings.s3_endpoint_url} if settings.s3_endpoint_url else {}
    store = S3Store.from_url(
        settings.images_url,
        client_options={
            "connect_timeout": timedelta(seconds=3),
            "timeout": timedelta(seconds=30),
            "allow_http": bool(settings.s3_endpoint_url and settings.s3_endpoint_url.startswith("http://")),
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=10)},
        **options,  # type: ignore[arg-type]
    )
    return ImageStore(store, None)
