"""Batches: many images handed over and followed together."""

import base64
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote

from kazheng.errors import WaitTimeoutError
from kazheng.models import Job, Json, json_mapping, json_number, json_text, json_time
from kazheng.transport import Transport, json_of

Image = str | PathLike[str] | bytes | BinaryIO

# What goes into one request: the server takes more, but a lost one is sent again whole.
PORTION_IMAGES, PORTION_BYTES = 100, 16_000_000
_POLL_SECONDS = 1.0
_PAGE = 200


@dataclass(frozen=True)
class Batch:
    """Jobs submitted and followed together.

    `status` is `open` (takes items), `running`, `completed` or `canceled`. `counts` holds items by status, which add up
    to its `total`; `parked` of the queued ones wait for quota, or for the provider. `billing` holds `calls`, `billed`,
    `cached` and `cost_at_most` (CNY). `json` is the answer as it came.
    """

    id: str
    status: str
    name: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    parked: int = 0
    percent: float = 0.0
    rate_per_second: float | None = None
    estimated_completion_at: datetime | None = None
    billing: Json = field(default_factory=dict)
    created_at: datetime | None = None
    completed_at: datetime | None = None
    json: Json = field(default_factory=dict, repr=False)

    @property
    def is_final(self) -> bool:
        """Whether every item has ended, and none can come."""
        return self.status in ("completed", "canceled")

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read a batch."""
        counts = {name: int(json_number(value) or 0) for name, value in json_mapping(json.get("counts")).items()}
        return cls(
            id=json_text(json.get("id")) or "",
            status=json_text(json.get("status")) or "",
            name=json_text(json.get("name")),
            counts=counts,
            parked=int(json_number(json.get("parked")) or 0),
            percent=json_number(json.get("percent")) or 0.0,
            rate_per_second=json_number(json.get("rate_per_second")),
            estimated_completion_at=json_time(json.get("estimated_completion_at")),
            billing=json_mapping(json.get("billing")),
            created_at=json_time(json.get("created_at")),
            completed_at=json_time(json.get("completed_at")),
            json=json,
        )


@dataclass(frozen=True)
class Item:
    """One item of a batch: its number from 1, what its file is called, and its job."""

    number: int
    name: str | None
    job: Job

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read an item."""
        number = int(json_number(json.get("number")) or 0)
        return cls(number, json_text(json.get("name")), Job.from_json(json_mapping(json.get("job"))))


@dataclass(frozen=True)
class NamedImage:
    """An image, the name by which to find it again, and what is said of it alone; the rest is the batch's."""

    name: str
    content: bytes
    document_type: str | None = None
    options: Mapping[str, Any] | None = None
    client_reference_id: str | None = None

    @property
    def said(self) -> dict[str, Any]:
        """What is said of it alone."""
        given = {
            "document_type": self.document_type,
            "options": None if self.options is None else dict(self.options),
            "client_reference_id": self.client_reference_id,
        }
        return {name: value for name, value in given.items() if value is not None}


class Batches:
    """The batches of one client: `client.batches`.

    batch = client.batches.create(Path("scans").glob("*.jpg"), document_type="id_card")
    for item in client.batches.results(batch):
        print(item.name, item.job.status)
    client.batches.export(batch, "cards.xlsx")
    """

    def __init__(self, transport: Transport) -> None:
        """Take what sends requests."""
        self._transport = transport

    def create(
        self,
        images: Iterable[Image | NamedImage] = (),
        *,
        document_type: str | None = None,
        options: Mapping[str, Any] | None = None,
        name: str | None = None,
        lane: str | None = None,
        cache: bool = True,
        webhook_url: str | None = None,
        close: bool = True,
        idempotency_key: str | None = None,
    ) -> Batch:
        """Hand over images as one batch, portion by portion. When this returns, all of them are kept safe.

        Args:
            images: paths, bytes, opened files, or images with names of their own.
            document_type: what the images show.
            options: what the type takes.
            name: for people.
            lane: `bulk` unless somebody is waiting.
            cache: False: read images anew that were read before.
            webhook_url: an https address that is told of the batch's end, signed.
            close: False: the batch takes more (`add`) until it is closed.
            idempotency_key: the same key and images give the same batch, however often this is tried.

        Raises:
            ApiError: something in it was not accepted.
            ApiUnreachableError: no answer came; what was accepted stays.
            OSError: an image can't be read.
        """
        key = idempotency_key or str(uuid.uuid4())
        fields: dict[str, Any] = {"close": False, "cache": cache, "items": []}
        given = {"document_type": document_type, "options": options, "name": name, "lane": lane}
        given["webhook_url"] = webhook_url
        fields |= {field: value for field, value in given.items() if value}
        answer = self._transport.send("POST", "/v1/batches", json=fields, headers={"Idempotency-Key": key})
        batch = Batch.from_json(json_of(answer))
        for number, portion in enumerate(portions(map(_named, images))):
            batch = self.add(batch, portion, idempotency_key=f"{key}-{number}")
        return self.close(batch) if close else batch

    def add(
        self, batch: Batch | str, images: Sequence[Image | NamedImage], *, idempotency_key: str | None = None
    ) -> Batch:
        """Add images to an open batch in one request: all of them, or none.

        Raises:
            ApiError: it was not accepted; `batch_closed` when the batch takes no more.
            ApiUnreachableError: no answer came; try again with the same key.
        """
        named = [_named(image) for image in images]
        content: dict[str, Any]
        if any(image.said for image in named):
            content = {"json": {"items": [_item_json(image) for image in named]}}
        else:
            content = {"files": [("images", (one.name, one.content, "application/octet-stream")) for one in named]}
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return _batch(self._transport.send("POST", f"{_path(batch)}/items", headers=headers, **content))

    def get(self, batch: Batch | str) -> Batch:
        """A batch as it stands now."""
        return _batch(self._transport.send("GET", _path(batch)))

    def list(self, *, page_size: int = 50) -> Iterator[Batch]:
        """Batches, newest first; pages are fetched as they are needed."""
        query: dict[str, str | int] = {"limit": page_size}
        while True:
            page = json_of(self._transport.send("GET", "/v1/batches", params=query))
            yield from (Batch.from_json(entry) for entry in page.get("data") or ())
            if not page.get("next"):
                return
            query["after"] = str(page["next"])

    def close(self, batch: Batch | str) -> Batch:
        """Let a batch take no more items. Closing twice is no error."""
        return _batch(self._transport.send("POST", f"{_path(batch)}/close"))

    def cancel(self, batch: Batch | str) -> Batch:
        """Start nothing more of a batch; what runs ends. Canceling twice is no error."""
        return _batch(self._transport.send("POST", f"{_path(batch)}/cancel"))

    def retry(self, batch: Batch | str, *, only_retryable: bool = True) -> int:
        """Try failed items again; how many.

        Args:
            only_retryable: False: those too that failed for what they are.
        """
        body = {"only_retryable": only_retryable}
        return int(json_of(self._transport.send("POST", f"{_path(batch)}/retry", json=body)).get("retried") or 0)

    def items(self, batch: Batch | str, *, status: Iterable[str] = (), after: int = 0) -> Iterator[Item]:
        """Items in their order; pages are fetched as they are needed.

        Args:
            status: any of these; all if none is given.
            after: number of the last item already seen.
        """
        query: dict[str, str | int] = {"limit": _PAGE, "after": after}
        wanted = ",".join(status)
        if wanted:
            query["status"] = wanted
        while True:
            page = json_of(self._transport.send("GET", f"{_path(batch)}/items", params=query))
            yield from (Item.from_json(json_mapping(entry)) for entry in page.get("data") or ())
            if not page.get("next"):
                return
            query["after"] = int(page["next"])

    def results(self, batch: Batch | str, *, timeout: float = 3600.0) -> Iterator[Item]:
        """Items as they end, about in their order, until all of a closed batch have.

        Raises:
            WaitTimeoutError: nothing has ended for so long.
        """
        timing = self._transport.timing
        seen, given, deadline = 0, set[int](), timing.monotonic() + timeout
        while True:
            is_final = self.get(batch).is_final
            # A window: items are read in their order, so those behind it have hardly begun.
            query: dict[str, str | int] = {"limit": _PAGE, "after": seen}
            page = json_of(self._transport.send("GET", f"{_path(batch)}/items", params=query))
            window = [Item.from_json(json_mapping(entry)) for entry in page.get("data") or ()]
            fresh = [item for item in window if item.job.is_final and item.number not in given]
            for item in fresh:
                given.add(item.number)
                yield item
            if window and all(item.job.is_final for item in window):
                seen = window[-1].number
                given.clear()
                if page.get("next"):
                    continue
            if is_final and not page.get("next"):
                return
            if fresh:
                deadline = timing.monotonic() + timeout
            elif timing.monotonic() > deadline:
                raise WaitTimeoutError(_id(batch), timeout, None)
            timing.sleep(_POLL_SECONDS)

    def wait(self, batch: Batch | str, timeout: float = 3600.0) -> Batch:
        """The batch once all of its items have ended.

        Raises:
            WaitTimeoutError: they had not by then; they go on.
        """
        timing = self._transport.timing
        deadline = timing.monotonic() + timeout
        while True:
            found = self.get(batch)
            if found.is_final:
                return found
            if timing.monotonic() > deadline:
                raise WaitTimeoutError(found.id, timeout, found.status)
            timing.sleep(_POLL_SECONDS)

    def export(
        self, batch: Batch | str, path: str | PathLike[str], *, format: str | None = None, fields: Iterable[str] = ()
    ) -> Path:
        """Download a batch as a file, which is there when it is whole.

        Args:
            format: `jsonl`, `csv` or `xlsx`; by default what the path ends with.
            fields: columns and their order; all if none is given.
        """
        target = Path(path)
        query = {"format": format or target.suffix.lstrip(".").lower() or "jsonl"}
        wanted = ",".join(fields)
        if wanted:
            query["fields"] = wanted
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as file:
            for chunk in self._transport.stream("GET", f"{_path(batch)}/export", params=query):
                file.write(chunk)
        part.replace(target)
        return target


def portions(images: Iterable[NamedImage]) -> Iterator[list[NamedImage]]:
    """Images in lists that go into one request."""
    portion: list[NamedImage] = []
    size = 0
    for image in images:
        if portion and (len(portion) == PORTION_IMAGES or size + len(image.content) > PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(image)
        size += len(image.content)
    if portion:
        yield portion


def _named(image: Image | NamedImage) -> NamedImage:
    if isinstance(image, NamedImage):
        return image
    if isinstance(image, bytes | bytearray | memoryview):
        return NamedImage("image", bytes(image))
    if isinstance(image, str | PathLike):
        return NamedImage(Path(image).name, Path(image).read_bytes())
    return NamedImage("image", image.read())


def _item_json(image: NamedImage) -> dict[str, Any]:
    return {**image.said, "name": image.name, "image_base64": base64.b64encode(image.content).decode("ascii")}


def _id(batch: Batch | str) -> str:
    return batch.id if isinstance(batch, Batch) else batch


def _path(batch: Batch | str) -> str:
    return f"/v1/batches/{quote(_id(batch), safe='')}"


def _batch(answer: Any) -> Batch:
    return Batch.from_json(json_of(answer))
