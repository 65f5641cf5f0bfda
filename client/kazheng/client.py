"""The client: submit an image, wait for the job, read the result."""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, Self
from urllib.parse import quote

import httpx

from kazheng.batches import Batches
from kazheng.errors import (
    ApiError,
    ApiUnreachableError,
    JobFailedError,
    ResultNotReadyError,
    WaitTimeoutError,
)
from kazheng.models import Job, Json, Result, json_mapping
from kazheng.transport import DeadlineError, Timing, Transport, json_of, retry_after_seconds
from kazheng.webhooks import Webhooks

Image = str | PathLike[str] | bytes | BinaryIO

# How long one poll is held open: under the 30 s after which many proxies cut a silent connection.
_POLL_SECONDS = 20.0
_POLL_PAUSE_SECONDS = 1.0


class Client:
    """Talks to one Kazheng API. Safe to share between threads; close it, or use it in a `with` block.

        with Client("kz_…") as client:
            job = client.submit("card.jpg", document_type="id_card", options={"side": "front"})
            result = client.wait(job).require_result()
            print(result.fields["name"].value)

    It reads no environment variable: a proxy is given as `transport=httpx.HTTPTransport(proxy=…)`.
    """

    def __init__(
        self,
        api_key: str,
        base_url: str = "http://127.0.0.1:8080",
        timeout: float = 30.0,
        *,
        max_retries: int = 5,
        transport: httpx.BaseTransport | None = None,
        timing: Timing | None = None,
        webhook_secret: str | None = None,
    ) -> None:
        """Open a client; nothing is sent yet.

        Args:
            api_key: begins with `kz_`.
            base_url: where the API is, without `/v1`.
            timeout: seconds one answer may take, beyond the time it was asked to wait.
            max_retries: how often a request that failed for a passing reason is sent again.
            transport: how bytes travel, for proxies, own certificates and tests.
            timing: the clock and the pauses, for tests.
            webhook_secret: `whsec_…`, for `webhooks.verify`.
        """
        http = httpx.Client(
            base_url=base_url.rstrip("/"),
            headers={
                "Authorization": f"Bearer {api_key}",
                "User-Agent": f"kazheng-python/{version('kazheng')}",
                "Accept": "application/json",
            },
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            transport=transport,
            trust_env=False,
        )
        self._transport = Transport(http, max_retries=max_retries, timing=timing or Timing())
        self.batches = Batches(self._transport)
        self.webhooks = Webhooks(self._transport, webhook_secret)

    def __enter__(self) -> Self:
        """The client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def submit(
        self,
        image: Image,
        *,
        document_type: str,
        options: Mapping[str, Any] | None = None,
        lane: str | None = None,
        client_reference_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_in: float | timedelta | None = None,
        cache: bool | None = None,
        webhook_url: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Hand over an image. When this returns, the image and the job are kept safe.

        Args:
            image: a path, the bytes, or a file opened for reading bytes.
            document_type: what the image shows: `id_card`, `bank_card`, `business_license`, …
            options: what the type takes, such as `{"side": "back"}` for `id_card`.
            lane: `interactive` (somebody is waiting) or `bulk`; None leaves it to the server.
            client_reference_id: your own name of the job, to find it again.
            metadata: anything small that should come back with the job.
            expires_in: seconds after which a job that has not started is not wanted any more.
            cache: False: read it anew, though an equal image of yours was read before.
            webhook_url: an https address that is told of the end, signed.
            idempotency_key: the same key and image give the same job, however often and whenever submitted; made up
                when not given, so that the tries of one call never make two jobs.

        Raises:
            ApiError: the image or the request was not accepted.
            ApiUnreachableError: no answer came; the job may or may not be there.
            OSError: the image can't be read.
        """
        key = idempotency_key or str(uuid.uuid4())
        form: dict[str, str] = {"document_type": document_type}
        if options:
            form["options"] = json.dumps(dict(options), ensure_ascii=False)
        if lane is not None:
            form["lane"] = lane
        if client_reference_id is not None:
            form["client_reference_id"] = client_reference_id
        if metadata:
            form["metadata"] = json.dumps(dict(metadata), ensure_ascii=False)
        if expires_in is not None:
            seconds = expires_in.total_seconds() if isinstance(expires_in, timedelta) else expires_in
            form["expires_in"] = str(int(seconds))
        if cache is not None:
            form["cache"] = str(cache).lower()
        if webhook_url is not None:
            form["webhook_url"] = webhook_url
        # The name of the file stays here: people name files after people.
        files = {"image": ("image", _read(image), "application/octet-stream")}
        try:
            answer = self._transport.send("POST", "/v1/jobs", data=form, files=files, headers={"Idempotency-Key": key})
        except ApiUnreachableError as error:
            raise ApiUnreachableError(str(error), idempotency_key=key) from error
        return _job(answer)

    def get(self, job_id: str) -> Job:
        """A job as it stands now.

        Raises:
            ApiError: there is no such job, or it is another client's.
        """
        return _job(self._transport.send("GET", _path(job_id)))

    def wait(self, job: Job | str, timeout: float = 120.0) -> Job:
        """The job once it is final, whatever its end; `Job.require_result` tells success from failure.

        Args:
            job: a job or its id.
            timeout: seconds to wait at most.

        Raises:
            WaitTimeoutError: it had not ended by then; it goes on.
            ApiError: there is no such job.
        """
        if isinstance(job, Job) and job.is_final:
            return job
        job_id = job.id if isinstance(job, Job) else job
        status = job.status if isinstance(job, Job) else None
        timing = self._transport.timing
        deadline = timing.monotonic() + timeout
        while True:
            held = int(max(0.0, min(_POLL_SECONDS, deadline - timing.monotonic())))
            try:
                answer = self._transport.send(
                    "GET",
                    _path(job_id),
                    deadline=deadline,
                    held_seconds=held,
                    params={"wait": held} if held else None,
                )
            except DeadlineError as error:
                raise WaitTimeoutError(job_id, timeout, status) from error
            found = _job(answer)
            if found.is_final:
                return found
            status = found.status
            named = retry_after_seconds(answer)
            pause = _POLL_PAUSE_SECONDS if named is None else named
            remaining = deadline - timing.monotonic()
            if remaining <= 0:
                raise WaitTimeoutError(job_id, timeout, status)
            timing.sleep(min(pause, remaining))

    def list(
        self,
        *,
        status: str | None = None,
        document_type: str | None = None,
        batch_id: str | None = None,
        client_reference_id: str | None = None,
        ids: Iterable[str] | None = None,
        page_size: int = 100,
    ) -> Iterator[Job]:
        """Jobs, newest first; pages are fetched as they are needed.

        Raises:
            ApiError: a filter makes no sense.
        """
        filters = {
            "status": status,
            "document_type": document_type,
            "batch_id": batch_id,
            "client_reference_id": client_reference_id,
            "ids": ",".join(ids) if ids is not None else None,
        }
        query: dict[str, str | int] = {name: value for name, value in filters.items() if value is not None}
        query["limit"] = page_size
        while True:
            page = json_of(self._transport.send("GET", "/v1/jobs", params=query))
            yield from (Job.from_json(entry) for entry in page.get("data") or ())
            if not page.get("next"):
                return
            query["after"] = str(page["next"])

    def result(self, job_id: str, include: Iterable[str] = ()) -> Result:
        """The result of a job.

        Args:
            job_id: id of a job.
            include: `geometry` for where each field is in the image, `raw` for the provider's own answer.

        Raises:
            JobFailedError: the job ended without a result.
            ResultNotReadyError: the job has not ended.
            ApiError: there is no such job, or its result was erased.
        """
        wanted = ",".join(include)
        try:
            answer = self._transport.send(
                "GET", f"{_path(job_id)}/result", params={"include": wanted} if wanted else None
            )
        except ApiError as error:
            if error.status == HTTPStatus.CONFLICT:
                self._raise_failure(job_id, error)
            raise
        if answer.status_code == HTTPStatus.ACCEPTED:
            raise ResultNotReadyError(job_id, retry_after_seconds(answer))
        return Result.from_json(json_of(answer))

    def quotas(self) -> Sequence[Json]:
        """What each account may do at each endpoint, at this moment; the entries of `GET /v1/quotas`."""
        return [json_mapping(entry) for entry in json_of(self._transport.send("GET", "/v1/quotas")).get("data") or ()]

    def cancel(self, job_id: str) -> Job:
        """Call a job off before it starts; a job that was canceled before stays so.

        Raises:
            ApiError: it has started or ended, or there is no such job.
        """
        try:
            return _job(self._transport.send("POST", f"{_path(job_id)}/cancel"))
        except ApiError as error:
            if error.status == HTTPStatus.CONFLICT:
                # The answer to an earlier try may have been lost.
                job = self.get(job_id)
                if job.status == "canceled":
                    return job
            raise

    def delete(self, job_id: str) -> None:
        """Erase the image and the result of a job, for good. Erasing twice is no error.

        Raises:
            ApiError: there is no such job.
        """
        self._transport.send("DELETE", _path(job_id))

    def _raise_failure(self, job_id: str, error: ApiError) -> None:
        """Say why there is no result, if the job tells."""
        job = self.get(job_id)
        if job.is_final and not job.has_succeeded:
            code = job.error.code if job.error else error.code
            detail = job.error.detail if job.error else error.detail
            raise JobFailedError(job_id, code, detail, retryable=bool(job.error and job.error.retryable)) from error


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _read(image: Image) -> bytes:
    """All bytes at once: a try that is sent again must send the same."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | PathLike):
        return Path(image).read_bytes()
    return image.read()


def _job(answer: httpx.Response) -> Job:
    """The job in an answer.

    Raises:
        ApiError: it holds none, so something other than the API has answered.
    """
    body = json_of(answer)
    if not {"id", "status"} <= body.keys():
        message = "The answer is no job. Is this the address of the API?"
        raise ApiError("unexpected_answer", message, answer.status_code)
    return Job.from_json(body)
