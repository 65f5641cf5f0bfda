"""Everything that can be wrong with a request, and what may fail behind it.

    KazhengError
    ├── RequestError                    the caller can mend it
    │   ├── InvalidRequestError         invalid_request, with one entry a field
    │   ├── UnsupportedMediaTypeError   unsupported_content_type
    │   ├── BodyTooLargeError           body_too_large
    │   ├── ImageError
    │   │   ├── ImageMissingError       image_missing
    │   │   ├── ImageEmptyError         image_empty
    │   │   ├── ImageEncodingError      image_base64_invalid
    │   │   ├── ImageFormatError        image_format_unsupported
    │   │   ├── ImageDamagedError       image_damaged
    │   │   ├── ImageAnimatedError      image_animated
    │   │   ├── ImageTooLargeError      image_too_large
    │   │   ├── ImagePixelsError        image_pixels_out_of_range
    │   │   ├── ImageUrlRefusedError    image_url_refused
    │   │   └── ImageUrlFailedError     image_url_failed
    │   ├── UnauthenticatedError        unauthenticated
    │   ├── NotFoundError               not_found
    │   ├── JobNotCancelableError       job_not_cancelable
    │   ├── EndpointLimitError          endpoint_limit
    │   ├── EndpointKindError           endpoint_not_registered
    │   ├── EndpointDisabledError       endpoint_disabled
    │   ├── SigningSecretUnreadableError  signing_secret_unreadable
    │   ├── DeliveryNotSendableError    delivery_not_sendable
    │   ├── ResultNotAvailableError     result_not_available
    │   ├── ErasedError                 erased
    │   ├── IdempotencyMismatchError    idempotency_key_reused
    │   └── IdempotencyInProgressError  idempotency_key_in_progress
    ├── UnavailableError                a part behind us is away; try again
    │   ├── DatabaseUnavailableError    database_unavailable
    │   ├── LimiterAwayError            limiter_unavailable
    │   ├── StorageUnavailableError     storage_unavailable
    │   └── StorageFullError            storage_full
    ├── ImageLostError                  a stored image is missing or altered
    ├── ClaimLostError                  another worker holds the job now
    └── ProviderError                   an upstream call failed, with its kind

None of them knows HTTP: `api/problems.py` maps class to status.
"""

from dataclasses import dataclass
from typing import ClassVar

from shared.domain.job import JobErrorCode
from shared.domain.retry import FailureKind


class KazhengError(Exception):
    """Root of our errors.

    `code` is stable and for programs, `detail` is one sentence for people that says what to do. Neither holds
    content of an image, a key, or a secret.
    """

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str) -> None:
        """Take the sentence shown to people."""
        super().__init__(detail)
        self.detail = detail


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field.

    `pointer` is a JSON pointer (RFC 6901) into the request, such as `/options/side`.
    """

    pointer: str
    detail: str


class RequestError(KazhengError):
    """The request can't be served as it is; the caller can mend it."""


class InvalidRequestError(RequestError):
    """Fields are missing, unknown or wrong; all of them are listed."""

    code = "invalid_request"

    def __init__(self, errors: list[FieldError]) -> None:
        """Take one entry for each wrong field."""
        super().__init__("; ".join(f"{error.pointer or '/'}: {error.detail}" for error in errors))
        self.errors = errors


class UnsupportedMediaTypeError(RequestError):
    """The body comes in a content type we don't read."""

    code = "unsupported_content_type"


class BodyTooLargeError(RequestError):
    """The body is larger than any request may be."""

    code = "body_too_large"


class ImageError(RequestError):
    """The image can't be accepted."""


class ImageMissingError(ImageError):
    """The request has no image."""

    code = "image_missing"


class ImageEmptyError(ImageError):
    """The image has no bytes."""

    code = "image_empty"


class ImageEncodingError(ImageError):
    """`image_base64` is not base64."""

    code = "image_base64_invalid"


class ImageFormatError(ImageError):
    """The bytes are no image of a format we read."""

    code = "image_format_unsupported"


class ImageDamagedError(ImageError):
    """The image is cut off or broken."""

    code = "image_damaged"


class ImageAnimatedError(ImageError):
    """The image has more than one frame."""

    code = "image_animated"


class ImageTooLargeError(ImageError):
    """The image has too many bytes."""

    code = "image_too_large"


class ImagePixelsError(ImageError):
    """The image is too small or too large in pixels."""

    code = "image_pixels_out_of_range"


class ImageUrlRefusedError(ImageError):
    """The address may not be called."""

    code = "image_url_refused"


class ImageUrlFailedError(ImageError):
    """The address gave no image in time."""

    code = "image_url_failed"
    retryable = True


class ArchiveRefusedError(RequestError):
    """The archive or manifest can't be read at all."""

    code = "archive_refused"


class BatchClosedError(RequestError):
    """The batch takes no more items."""

    code = "batch_closed"


class UnauthenticatedError(RequestError):
    """No API key, an unknown one, or a revoked one."""

    code = "unauthenticated"


class NotFoundError(RequestError):
    """There is no such thing, or it is another client's."""

    code = "not_found"


class JobNotCancelableError(RequestError):
    """The job has started or ended."""

    code = "job_not_cancelable"


class JobNotRetryableError(RequestError):
    """The job did not fail, or has no image any more."""

    code = "job_not_retryable"


class EndpointLimitError(RequestError):
    """The client has as many webhook endpoints as it may have."""

    code = "endpoint_limit"


class EndpointKindError(RequestError):
    """That can't be done with an endpoint that stands for the `webhook_url` of jobs."""

    code = "endpoint_not_registered"


class EndpointDisabledError(RequestError):
    """Nothing is sent to the endpoint until it is enabled."""

    code = "endpoint_disabled"


class SigningSecretUnreadableError(RequestError):
    """There is no signing secret, or it was sealed with another KAZHENG_SECRET_KEY."""

    code = "signing_secret_unreadable"


class DeliveryNotSendableError(RequestError):
    """The delivery is being sent, or its job was erased."""

    code = "delivery_not_sendable"


class ResultNotAvailableError(RequestError):
    """The job ended without a result."""

    code = "result_not_available"


class ErasedError(RequestError):
    """The job's image and result were erased."""

    code = "erased"


class IdempotencyMismatchError(RequestError):
    """The key was used before, for another request."""

    code = "idempotency_key_reused"


class IdempotencyInProgressError(RequestError):
    """The first request with this key is still being served."""

    code = "idempotency_key_in_progress"
    retryable = True


class UnavailableError(KazhengError):
    """A part behind us is away; nothing was accepted."""

    retryable = True


class BusyError(UnavailableError):
    """Too many large requests are being served."""

    code = "busy"


class DatabaseUnavailableError(UnavailableError):
    """Postgres does not answer."""

    code = "database_unavailable"


class LimiterAwayError(UnavailableError):
    """Redis does not answer, and only it knows."""

    code = "limiter_unavailable"


class StorageUnavailableError(UnavailableError):
    """The image store does not answer."""

    code = "storage_unavailable"


class StorageFullError(UnavailableError):
    """The image store has no room."""

    code = "storage_full"


class ImageLostError(KazhengError):
    """A stored image is missing, or its SHA-256 is not the one recorded."""

    code = "image_lost"


class ClaimLostError(KazhengError):
    """The claim ran out and another worker may hold the job."""

    code = "claim_lost"


class ProviderError(KazhengError):
    """An upstream call failed.

    Args of `__init__` beyond the sentence (which stays in our logs):
        kind: what to do about it.
        upstream_code: the vendor's own code, as text.
        error_code: what the client is told should the job fail for this.
        max_attempts: give up after so many attempts, if fewer than usual.
        called: whether the vendor may have seen the call (False: nothing was sent).
        answered: whether the vendor said so itself (False: it may still be at work, and may count the call).
        client_detail: a better sentence for the client than the error code's own.
    """

    code = "provider_error"

    def __init__(
        self,
        kind: FailureKind,
        detail: str,
        *,
        upstream_code: str | None = None,
        upstream_log_id: str | None = None,
        error_code: JobErrorCode = JobErrorCode.PROVIDER_FAILED,
        max_attempts: int | None = None,
        called: bool = True,
        answered: bool = True,
        billed: bool = False,
        client_detail: str | None = None,
    ) -> None:
        """Take what the vendor said, translated."""
        super().__init__(detail)
        self.kind = kind
        self.upstream_code = upstream_code
        self.upstream_log_id = upstream_log_id
        self.error_code = error_code
        self.max_attempts = max_attempts
        self.called = called
        self.answered = answered
        self.billed = billed
        self.client_detail = client_detail

    def uses_quota(self, *, counts_failures: bool) -> bool:
        """Whether the call counts against the day and the total.

        Args:
            counts_failures: whether calls that the provider made and failed do.
        """
        if not self.called or self.kind.is_refusal:
            return False
        return counts_failures or not self.answered
