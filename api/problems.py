"""Errors as problem documents (RFC 9457): one table from error class to HTTP status.

A class that has no row of its own takes that of its parent; an error without any is a 500 that says nothing of what
happened, which stands in the log under the request id.
"""

from http import HTTPStatus

import structlog
from flask import Flask, Response
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as WerkzeugResponse

from api.request_log import request_id
from api.schemas import FieldErrorView, JobErrorCodeView, Problem
from shared.domain.errors import (
    ArchiveRefusedError,
    BatchClosedError,
    BodyTooLargeError,
    BusyError,
    ClaimLostError,
    DatabaseUnavailableError,
    DeliveryNotSendableError,
    EndpointDisabledError,
    EndpointKindError,
    EndpointLimitError,
    ErasedError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    ImageAnimatedError,
    ImageDamagedError,
    ImageEmptyError,
    ImageEncodingError,
    ImageError,
    ImageFormatError,
    ImageLostError,
    ImageMissingError,
    ImagePixelsError,
    ImageTooLargeError,
    ImageUrlFailedError,
    ImageUrlRefusedError,
    InvalidRequestError,
    JobNotCancelableError,
    JobNotRetryableError,
    KazhengError,
    LimiterAwayError,
    NotFoundError,
    ProviderError,
    ResultNotAvailableError,
    SigningSecretUnreadableError,
    StorageFullError,
    StorageUnavailableError,
    UnauthenticatedError,
    UnsupportedMediaTypeError,
)

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"

# 400 is for what can't be parsed; 422 for what was understood and is wrong.
STATUSES: dict[type[KazhengError], HTTPStatus] = {
    InvalidRequestError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnsupportedMediaTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    BodyTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ImageMissingError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageEmptyError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageEncodingError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageFormatError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageDamagedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageAnimatedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ImagePixelsError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageUrlRefusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ImageUrlFailedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
    NotFoundError: HTTPStatus.NOT_FOUND,
    JobNotCancelableError: HTTPStatus.CONFLICT,
    JobNotRetryableError: HTTPStatus.CONFLICT,
    ArchiveRefusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    BatchClosedError: HTTPStatus.CONFLICT,
    BusyError: HTTPStatus.SERVICE_UNAVAILABLE,
    EndpointLimitError: HTTPStatus.CONFLICT,
    EndpointKindError: HTTPStatus.CONFLICT,
    EndpointDisabledError: HTTPStatus.CONFLICT,
    SigningSecretUnreadableError: HTTPStatus.CONFLICT,
    DeliveryNotSendableError: HTTPStatus.CONFLICT,
    ResultNotAvailableError: HTTPStatus.CONFLICT,
    ErasedError: HTTPStatus.GONE,
    IdempotencyMismatchError: HTTPStatus.UNPROCESSABLE_ENTITY,
    IdempotencyInProgressError: HTTPStatus.CONFLICT,
    DatabaseUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    LimiterAwayError: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageUnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageFullError: HTTPStatus.INSUFFICIENT_STORAGE,
    ImageLostError: HTTPStatus.INTERNAL_SERVER_ERROR,
    # These two stay inside the worker.
    ClaimLostError: HTTPStatus.INTERNAL_SERVER_ERROR,
    ProviderError: HTTPStatus.INTERNAL_SERVER_ERROR,
}

RETRY_AFTER_SECONDS: dict[type[KazhengError], int] = {
    IdempotencyInProgressError: 1,
    BusyError: 5,
    DatabaseUnavailableError: 2,
    LimiterAwayError: 2,
    StorageUnavailableError: 2,
    StorageFullError: 60,
}

# Where in a request the image is that was wrong.
_IMAGE_POINTERS: dict[type[ImageError], str] = {
    ImageEncodingError: "/image_base64",
    ImageUrlRefusedError: "/image_url",
    ImageUrlFailedError: "/image_url",
}

# What the framework refuses by itself: code and sentence.
_REFUSALS: dict[int, tuple[str, str]] = {
    400: ("bad_request", "The request can't be parsed."),
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take this method."),
    413: (BodyTooLargeError.code, "The body is too large."),
    415: (UnsupportedMediaTypeError.code, "The body comes in a content type that is not read here."),
}


class JobWithoutResultError(ResultNotAvailableError):
    """The job ended without a result; `job_error` says why."""

    def __init__(self, job_error: JobErrorCodeView) -> None:
        """Take the job's error."""
        super().__init__(f"The job has no result: {job_error.detail}")
        self.job_error = job_error


def register_problems(app: Flask) -> None:
    """Answer every error with a problem document."""
    app.register_error_handler(KazhengError, _answer_own)
    app.register_error_handler(HTTPException, _answer_refusal)
    app.register_error_handler(Exception, _answer_unknown)


def status_of(error: type[KazhengError]) -> HTTPStatus:
    """The status of an error class: its row, or that of the nearest parent."""
    rows = (STATUSES[parent] for parent in error.__mro__ if parent in STATUSES)
    return next(rows, HTTPStatus.INTERNAL_SERVER_ERROR)


def _answer_own(error: KazhengError) -> Response:
    status = status_of(type(error))
    errors = None
    if isinstance(error, InvalidRequestError):
        errors = [FieldErrorView(pointer=entry.pointer, detail=entry.detail) for entry in error.errors]
    elif isinstance(error, ImageError):
        errors = [FieldErrorView(pointer=_IMAGE_POINTERS.get(type(error), "/image"), detail=error.detail)]
    answer = _problem(
        status,
        error.code,
        error.detail,
        retryable=error.retryable,
        errors=errors,
        job_error=error.job_error if isinstance(error, JobWithoutResultError) else None,
    )
    if type(error) in RETRY_AFTER_SECONDS:
        answer.headers["Retry-After"] = str(RETRY_AFTER_SECONDS[type(error)])
    if status is HTTPStatus.UNAUTHORIZED:
        answer.headers["WWW-Authenticate"] = 'Bearer realm="kazheng"'
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        cause = type(error.__cause__).__name__ if error.__cause__ else None
        log.error("request_failed", code=error.code, error=type(error).__name__, cause=cause)
    return answer


def _answer_refusal(error: HTTPException) -> Response | WerkzeugResponse:
    if error.code is None or error.code < HTTPStatus.BAD_REQUEST:  # a redirect
        return error.get_response()
    code, detail = _REFUSALS.get(error.code, (f"http_{error.code}", "The request was refused."))
    # Our own refusals bring a sentence; the framework's may quote what was sent.
    own = str(error.description) if isinstance(error, MalformedBodyError) else detail
    answer = _problem(error.code, code, own, retryable=False)
    for name, value in error.get_headers():
        if name.lower() in ("allow", "retry-after"):
            answer.headers[name] = value
    return answer


class MalformedBodyError(HTTPException):
    """The body can't be parsed at all."""

    code = 400


def _answer_unknown(error: Exception) -> Response:
    log.error("request_crashed", error=type(error).__name__, exc_info=error)
    return _problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        KazhengError.code,
        "Something went wrong here. Tell the operator the request id.",
        retryable=False,
    )


def _problem(
    status: int,
    code: str,
    detail: str,
    *,
    retryable: bool,
    errors: list[FieldErrorView] | None = None,
    job_error: JobErrorCodeView | None = None,
) -> Response:
    problem = Problem(
        type=f"urn:kazheng:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=int(status),
        code=code,
        detail=detail,
        retryable=retryable,
        request_id=request_id(),
        errors=errors,
        job_error=job_error,
    )
    return Response(problem.model_dump_json(exclude_none=True), int(status), content_type=CONTENT_TYPE)
