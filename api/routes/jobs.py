"""`/v1/jobs`: submit, read, list, cancel, erase."""

import math
import re
from collections.abc import Sequence
from http import HTTPStatus

from flask import Response, request

from api.auth import current_client
from api.bodies import read_submission
from api.operations import Answer, Body, Operation, Parameter
from api.presenting import Place, job_path, present_job, to_json
from api.schemas import (
    MAX_WAIT_SECONDS,
    JobFields,
    JobForm,
    JobList,
    JobListQuery,
    JobQuery,
    JobRequest,
    JobView,
    NoQuery,
)
from api.services import services
from api.validation import validate_query
from api.webhook_urls import check_webhook_url
from shared.database import jobs as rows
from shared.database.batches import retry_job as retry
from shared.database.delivery_log import Delivery, deliveries_of_job
from shared.database.engine import transaction
from shared.database.jobs import Job, JobFilter
from shared.database.lines import FURTHEST_POSITION, count_ahead
from shared.domain.errors import (
    FieldError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    ImageAnimatedError,
    ImageDamagedError,
    ImageEmptyError,
    ImageEncodingError,
    ImageFormatError,
    ImageMissingError,
    ImagePixelsError,
    ImageTooLargeError,
    ImageUrlFailedError,
    ImageUrlRefusedError,
    InvalidRequestError,
    JobNotCancelableError,
    JobNotRetryableError,
    NotFoundError,
    StorageFullError,
    StorageUnavailableError,
    UnsupportedMediaTypeError,
)
from shared.domain.job import JobStatus

LONGEST_RETRY_AFTER_SECONDS = 60
_MOST_DELIVERIES = 20
_NO_JOB = "There is no such job."
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_PREFER_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,6})\"?\s*(?=$|[,;])", re.IGNORECASE)


def submit_job() -> Response:
    """Keep an image and a job for it; wait for its end if the client prefers to."""
    key = idempotency_key()
    submission = read_submission(request, services().settings.max_image_bytes)
    check_webhook_url(submission.fields.webhook_url, services().settings)
    accepted = services().intake.submit_job(current_client(), submission, key)
    job, seconds = accepted.job, _preferred_wait()
    if seconds:
        job = wait_for_final(job.id, seconds)
    status = HTTPStatus.OK if seconds and job.status.is_final else HTTPStatus.ACCEPTED
    answer = _answer_job(job, status)
    answer.headers["Location"] = job_path(job.id)
    if accepted.is_replay:
        answer.headers["Idempotent-Replayed"] = "true"
    if seconds:
        answer.headers["Preference-Applied"] = f"wait={seconds}"
    return answer


def read_job(job_id: str) -> Response:
    """The job; held until it is final if the client asks for that."""
    query = validate_query(JobQuery, request.args)
    return _answer_job(wait_for_final(job_id, query.wait) if query.wait else find_job(job_id))


def list_jobs() -> Response:
    """A page of the client's jobs."""
    query = validate_query(JobListQuery, request.args)
    wanted = JobFilter(query.status, query.document_type, query.client_reference_id, query.batch_id, tuple(query.ids))
    with transaction(services().engine) as connection:
        found = rows.list_jobs(connection, current_client(), wanted, limit=query.limit + 1, after=query.after)
        page = found[: query.limit]
        results = rows.get_results(connection, [job.id for job in page if job.status is JobStatus.SUCCEEDED])
    body = JobList(
        data=[present_job(job, result=results.get(job.id)) for job in page],
        next=page[-1].id if len(found) > query.limit else None,
    )
    return Response(to_json(body), content_type="application/json")


def cancel_job(job_id: str) -> Response:
    """Call a job off that has not started. Doing it twice changes nothing."""
    validate_query(NoQuery, request.args)
    with transaction(services().engine) as connection:
        canceled = rows.cancel_job(connection, job_id, client_id=current_client(), now=services().clock())
    if canceled is not None:
        services().announce_final(job_id)
        return _answer_job(canceled)
    job = find_job(job_id)
    if job.status is not JobStatus.CANCELED:
        raise JobNotCancelableError(f"The job is {job.status}; only a queued job can be canceled.")
    return _answer_job(job)


def retry_job(job_id: str) -> Response:
    """Put a job back in line that failed or expired; one that waits or runs is left as it is."""
    validate_query(NoQuery, request.args)
    with transaction(services().engine) as connection:
        job = retry(connection, job_id, client_id=current_client(), now=services().clock())
    if job is None:
        job = find_job(job_id)
        if job.status.is_final:
            raise JobNotRetryableError(
                f"The job is {job.status}. Only one that failed or expired, and whose image is there, is tried again."
            )
    return _answer_job(job)


def erase_job(job_id: str) -> Response:
    """Erase image and result; a tombstone stays. Doing it twice changes nothing.

    The row is emptied first and keeps the name of the image until that is gone: cut short anywhere, a repetition
    finishes it.
    """
    validate_query(NoQuery, request.args)
    find_job(job_id)
    with transaction(services().engine) as connection:
        key = rows.erase_job(connection, job_id, client_id=current_client(), now=services().clock())
    services().announce_final(job_id)
    if key is not None:
        services().store.delete(key)
        with transaction(services().engine) as connection:
            rows.forget_image(connection, job_id)
    return Response(status=HTTPStatus.NO_CONTENT)


def find_job(job_id: str) -> Job:
    """The client's job.

    Raises:
        NotFoundError: there is none, or it is another client's.
    """
    with transaction(services().engine) as connection:
        job = rows.get_job(connection, job_id, client_id=current_client())
    if job is None:
        raise NotFoundError(_NO_JOB)
    return job


def wait_for_final(job_id: str, seconds: int) -> Job:
    """The job once it is final, or as it is when the time is up or no more polls can be held.

    Raises:
        NotFoundError: there is none, or it is another client's.
    """
    with services().final_watch.watch(job_id) as watch:
        job = find_job(job_id)
        if watch is None or job.status.is_final:
            return job
        watch.wait(seconds)
    return find_job(job_id)


def _answer_job(job: Job, status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A job with its headers; 304 when a reader has this state already.

    The tag is weak: the place in the queue changes without a new one.
    """
    with transaction(services().engine) as connection:
        deliveries = deliveries_of_job(connection, job.id, most=_MOST_DELIVERIES)
    body, place = show_job(job, deliveries)
    answer = Response(to_json(body), status, content_type="application/json")
    told = "".join(f"-{one.status[0]}{len(one.attempts)}" for one in deliveries)
    answer.set_etag(f"{job.revision}{told}", weak=True)
    answer.headers["Cache-Control"] = "private, no-cache"
    if not job.status.is_final:
        answer.headers["Retry-After"] = str(retry_after(job, place))
    if request.method == "GET":
        answer.make_conditional(request)
    return answer


def show_job(job: Job, deliveries: Sequence[Delivery] | None = None) -> tuple[JobView, Place | None]:
    """A job with its result, or with its place in line; and what is told of it, if that was looked up."""
    if job.status is JobStatus.SUCCEEDED and job.erased_at is None:
        with transaction(services().engine) as connection:
            result = rows.get_results(connection, [job.id]).get(job.id)
        return present_job(job, result=result, deliveries=deliveries), None
    if job.status is not JobStatus.QUEUED:
        return present_job(job, deliveries=deliveries), None
    with transaction(services().engine) as connection:
        ahead = count_ahead(connection, job)
    outlook = services().outlooks.outlook(job.endpoint)
    position = ahead + 1 if ahead < FURTHEST_POSITION else None
    starts_at = None
    if outlook is not None and position is not None:
        starts_at = outlook.starts_at(position, services().clock())
    if starts_at is not None and job.not_before is not None:
        starts_at = max(starts_at, job.not_before)
    place = Place(position, starts_at)
    return present_job(job, place=place, outlook=outlook, deliveries=deliveries), place


def retry_after(job: Job, place: Place | None) -> int:
    """Seconds after which it is worth asking again: soon for a job under way, by its place for one in line."""
    if job.status is not JobStatus.QUEUED or place is None:
        return 1
    if place.starts_at is None:
        return LONGEST_RETRY_AFTER_SECONDS
    seconds = (place.starts_at - services().clock()).total_seconds()
    return min(LONGEST_RETRY_AFTER_SECONDS, max(1, math.ceil(seconds)))


def idempotency_key() -> str | None:
    """The request's Idempotency-Key.

    Raises:
        InvalidRequestError: it is no such key.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        raise InvalidRequestError(
            [FieldError("", "the header Idempotency-Key must be 1 to 255 visible ASCII characters")]
        )
    return key


def _preferred_wait() -> int:
    """Seconds of `Prefer: wait=N`, at most 60; a preference that makes no sense is none (RFC 7240)."""
    found = _PREFER_WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), MAX_WAIT_SECONDS) if found else 0


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/jobs",
        name="submit_job",
        summary="Hand over an image",
        description="The image comes in one of three forms: as a file of a multipart body, in JSON (base64, or an "
        "address to fetch it from), or as the body itself with the rest in the query; there, and in a multipart body, "
        "options are JSON in `options` or one by one, as `options.side=front`. What stands in a query may end up in "
        "the log of a proxy: use another form for personal data.",
        view=submit_job,
        query=JobFields,
        headers=(
            Parameter(
                "Idempotency-Key",
                "The same key and request give the same job, with `Idempotent-Replayed: true`.",
                {"type": "string", "minLength": 1, "maxLength": 255},
            ),
            Parameter("Prefer", "`wait=N` (at most 60): answer when the job is final.", {"type": "string"}),
        ),
        bodies=(
            Body("multipart/form-data", JobForm),
            Body("application/json", JobRequest),
            Body("image/*", None),
            Body("application/octet-stream", None),
        ),
        answers={
            202: Answer("The job is kept", JobView, headers=("Location", "Retry-After", "ETag", "Idempotent-Replayed")),
            200: Answer(
                "The job ended within `Prefer: wait`", JobView, headers=("Location", "ETag", "Preference-Applied")
            ),
        },
        errors=(
            ImageMissingError,
            ImageEmptyError,
            ImageEncodingError,
            ImageFormatError,
            ImageDamagedError,
            ImageAnimatedError,
            ImageTooLargeError,
            ImagePixelsError,
            ImageUrlRefusedError,
            ImageUrlFailedError,
            UnsupportedMediaTypeError,
            IdempotencyMismatchError,
            IdempotencyInProgressError,
            StorageUnavailableError,
            StorageFullError,
        ),
    ),
    Operation(
        method="GET",
        path="/v1/jobs",
        name="list_jobs",
        summary="List jobs, newest first",
        view=list_jobs,
        query=JobListQuery,
        answers={200: Answer("A page", JobList)},
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}",
        name="read_job",
        summary="Read a job, or wait for its end",
        view=read_job,
        query=JobQuery,
        headers=(Parameter("If-None-Match", "The `ETag` of an earlier answer.", {"type": "string"}),),
        answers={
            200: Answer("The job, whether final or not", JobView, headers=("ETag", "Retry-After")),
            304: Answer("Nothing has changed", headers=("ETag",)),
        },
        errors=(NotFoundError,),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job_id}/retry",
        name="retry_job",
        summary="Try a job again that failed or expired",
        view=retry_job,
        query=NoQuery,
        answers={200: Answer("The job, in line again", JobView, headers=("ETag", "Retry-After"))},
        errors=(NotFoundError, JobNotRetryableError),
    ),
    Operation(
        method="POST",
        path="/v1/jobs/{job_id}/cancel",
        name="cancel_job",
        summary="Call off a job that has not started",
        view=cancel_job,
        query=NoQuery,
        answers={200: Answer("The canceled job", JobView, headers=("ETag",))},
        errors=(NotFoundError, JobNotCancelableError),
    ),
    Operation(
        method="DELETE",
        path="/v1/jobs/{job_id}",
        name="erase_job",
        summary="Erase image and result",
        view=erase_job,
        query=NoQuery,
        answers={204: Answer("Erased, now or before")},
        errors=(NotFoundError, StorageUnavailableError),
    ),
)
