"""`/v1/jobs/{job_id}/result` and `/image`: what was read, and what it was read from."""

from http import HTTPStatus

from flask import Response, request

from api.operations import Answer, Operation
from api.presenting import present_result, to_json
from api.problems import JobWithoutResultError
from api.routes.jobs import find_job, retry_after, show_job
from api.schemas import JobErrorCodeView, JobView, NoQuery, ResultQuery, ResultView
from api.services import services
from api.validation import validate_query
from shared.database.engine import transaction
from shared.database.jobs import get_result
from shared.domain.errors import (
    ErasedError,
    ImageLostError,
    NotFoundError,
    ResultNotAvailableError,
    StorageUnavailableError,
)
from shared.domain.job import JobStatus
from shared.image_headers import CONTENT_TYPES

_ERASED = "The image and the result of this job were erased."


def read_result(job_id: str) -> Response:
    """The result; 202 and the job while there is none yet."""
    query = validate_query(ResultQuery, request.args)
    job = find_job(job_id)
    if job.erased_at is not None:
        raise ErasedError(_ERASED)
    if not job.status.is_final:
        body, place = show_job(job)
        waiting = Response(to_json(body), HTTPStatus.ACCEPTED, content_type="application/json")
        waiting.headers["Retry-After"] = str(retry_after(job, place))
        return waiting
    if job.status is not JobStatus.SUCCEEDED:
        code = job.error_code or job.status
        raise JobWithoutResultError(JobErrorCodeView(code=code, detail=job.error_detail or f"The job is {job.status}."))
    with transaction(services().engine) as connection:
        row = get_result(connection, job_id)
    if row is None:  # erased since the job was read
        raise ErasedError(_ERASED)
    view = present_result(row, geometry="geometry" in query.include, raw="raw" in query.include)
    return Response(to_json(view), content_type="application/json")


def read_image(job_id: str) -> Response:
    """The image as it was sent. A browser saves it and never shows it as a page of ours."""
    validate_query(NoQuery, request.args)
    job = find_job(job_id)
    if job.erased_at is None and job.image_sha256 is None:
        raise NotFoundError("The job has no image: it was not fetched yet, or it was none.")
    if job.erased_at is not None or job.image_key is None:
        raise ErasedError(_ERASED)
    content = services().store.get(job.image_key, sha256=job.image_sha256 or "")
    media_type = CONTENT_TYPES.get(job.image_format or "", "application/octet-stream")
    answer = Response(content, content_type=media_type)
    answer.headers["Content-Disposition"] = f'attachment; filename="{job.id}.{media_type.rpartition("/")[2]}"'
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return answer


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/result",
        name="read_result",
        summary="Read what was read",
        view=read_result,
        query=ResultQuery,
        answers={
            200: Answer("The result", ResultView),
            202: Answer("There is none yet: the job", JobView, headers=("Retry-After",)),
        },
        errors=(NotFoundError, ResultNotAvailableError, ErasedError),
    ),
    Operation(
        method="GET",
        path="/v1/jobs/{job_id}/image",
        name="read_image",
        summary="Download the image",
        view=read_image,
        query=NoQuery,
        answers={200: Answer("The image as it was sent", media_type="image/*")},
        errors=(NotFoundError, ErasedError, ImageLostError, StorageUnavailableError),
    ),
)
