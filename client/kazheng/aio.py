"""The client for programs that run on asyncio: the same calls, awaited.

Each call runs the blocking client in a thread, so both behave alike to the last retry. One client may have many calls
under way at once.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, Self, TypeVar

from kazheng.batches import Batch, Item, NamedImage
from kazheng.batches import Image as BatchImage
from kazheng.client import Client, Image
from kazheng.models import Job, Json, Result
from kazheng.webhooks import Endpoint, Event

_Found = TypeVar("_Found")
_END = object()


class AsyncClient:
    """`kazheng.Client`, awaited.

    async with AsyncClient("kz_…") as client:
        job = await client.submit("card.jpg", document_type="id_card")
        result = (await client.wait(job)).require_result()
    """

    def __init__(
        self, api_key: str, base_url: str = "http://127.0.0.1:8080", timeout: float = 30.0, **options: Any
    ) -> None:
        """Open a client; nothing is sent yet. The arguments are those of `Client`."""
        self._client = Client(api_key, base_url, timeout, **options)
        self.batches = AsyncBatches(self._client)
        self.webhooks = AsyncWebhooks(self._client)

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._client.close)

    async def submit(
        self, image: Image, *, document_type: str, options: Mapping[str, Any] | None = None, **more: Any
    ) -> Job:
        """Hand over an image; `more` are the other arguments of `Client.submit`, which says what is raised."""
        return await asyncio.to_thread(self._client.submit, image, document_type=document_type, options=options, **more)

    async def get(self, job_id: str) -> Job:
        """A job as it stands now."""
        return await asyncio.to_thread(self._client.get, job_id)

    async def wait(self, job: Job | str, timeout: float = 120.0) -> Job:  # noqa: ASYNC109 - the server's wait, not a task's
        """The job once it is final, whatever its end."""
        return await asyncio.to_thread(self._client.wait, job, timeout)

    async def result(self, job_id: str, include: Iterable[str] = ()) -> Result:
        """The result of a job."""
        return await asyncio.to_thread(self._client.result, job_id, include)

    async def cancel(self, job_id: str) -> Job:
        """Call a job off before it starts."""
        return await asyncio.to_thread(self._client.cancel, job_id)

    async def delete(self, job_id: str) -> None:
        """Erase the image and the result of a job, for good."""
        await asyncio.to_thread(self._client.delete, job_id)

    async def list(self, **filters: Any) -> AsyncIterator[Job]:
        """Jobs, newest first; the filters are those of `Client.list`."""
        async for job in _stepwise(self._client.list(**filters)):
            yield job


class AsyncBatches:
    """`Client.batches`, awaited."""

    def __init__(self, client: Client) -> None:
        """Take the client that blocks."""
        self._batches = client.batches

    async def create(
        self, images: Iterable[BatchImage | NamedImage] = (), *, document_type: str | None = None, **more: Any
    ) -> Batch:
        """Hand over images as one batch; `more` are the other arguments of `Batches.create`."""
        return await asyncio.to_thread(self._batches.create, images, document_type=document_type, **more)

    async def get(self, batch: Batch | str) -> Batch:
        """A batch as it stands now."""
        return await asyncio.to_thread(self._batches.get, batch)

    async def close(self, batch: Batch | str) -> Batch:
        """Let a batch take no more items."""
        return await asyncio.to_thread(self._batches.close, batch)

    async def cancel(self, batch: Batch | str) -> Batch:
        """Start nothing more of a batch; what runs ends."""
        return await asyncio.to_thread(self._batches.cancel, batch)

    async def retry(self, batch: Batch | str, *, only_retryable: bool = True) -> int:
        """Try failed items again; how many."""
        return await asyncio.to_thread(self._batches.retry, batch, only_retryable=only_retryable)

    async def wait(self, batch: Batch | str, timeout: float = 3600.0) -> Batch:  # noqa: ASYNC109 - as above
        """The batch once all of its items have ended."""
        return await asyncio.to_thread(self._batches.wait, batch, timeout)

    async def results(self, batch: Batch | str, **more: Any) -> AsyncIterator[Item]:
        """Items as they end; `more` are the other arguments of `Batches.results`."""
        async for item in _stepwise(self._batches.results(batch, **more)):
            yield item

    async def export(self, batch: Batch | str, path: str | PathLike[str], **more: Any) -> Path:
        """Download a batch as a file; `more` are the other arguments of `Batches.export`."""
        return await asyncio.to_thread(self._batches.export, batch, path, **more)


class AsyncWebhooks:
    """`Client.webhooks`, awaited."""

    def __init__(self, client: Client) -> None:
        """Take the client that blocks."""
        self._webhooks = client.webhooks
        self.verify = client.webhooks.verify  # waits for nothing

    async def create(self, url: str, **more: Any) -> Endpoint:
        """Register an endpoint; `more` are the other arguments of `Webhooks.create`."""
        return await asyncio.to_thread(self._webhooks.create, url, **more)

    async def get(self, endpoint_id: str) -> Endpoint:
        """An endpoint, and how it does."""
        return await asyncio.to_thread(self._webhooks.get, endpoint_id)

    async def delete(self, endpoint_id: str) -> None:
        """Forget an endpoint."""
        await asyncio.to_thread(self._webhooks.delete, endpoint_id)

    async def ping(self, endpoint_id: str) -> Json:
        """Send a ping at once, and report."""
        return await asyncio.to_thread(self._webhooks.ping, endpoint_id)

    async def recover(self, endpoint_id: str, since: datetime, until: datetime | None = None) -> int:
        """Send everything of a time that an endpoint wants and has not taken; how many."""
        return await asyncio.to_thread(self._webhooks.recover, endpoint_id, since, until)

    async def events(self, after: str | None = None, **more: Any) -> tuple[Sequence[Event], str]:
        """Events after a place, in order, and the place after them."""
        return await asyncio.to_thread(self._webhooks.events, after, **more)


async def _stepwise(found: Iterator[_Found]) -> AsyncIterator[_Found]:
    """An iterator whose steps may block, each run in a thread."""
    while (one := await asyncio.to_thread(next, found, _END)) is not _END:
        yield one  # type: ignore[misc]
