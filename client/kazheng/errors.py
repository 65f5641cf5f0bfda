"""What can go wrong for a caller.

KazhengError
├── ApiUnreachableError      no answer, although it was tried several times
├── ApiError                 the API answered with a problem
│   └── AuthenticationError  … with 401: no API key, a wrong one, or a revoked one
├── JobFailedError           the job ended without a result
├── ResultNotReadyError      the job has not ended yet
├── WaitTimeoutError         the job had not ended when the time to wait was over
└── WebhookVerificationError  a request is not from Kazheng, or too old
"""

from collections.abc import Sequence
from dataclasses import dataclass


class KazhengError(Exception):
    """Root of everything this package raises on purpose."""


class ApiUnreachableError(KazhengError):
    """No answer came. A submission may or may not have arrived: `idempotency_key` submits it again, never twice."""

    def __init__(self, message: str, *, idempotency_key: str | None = None) -> None:
        """Take a sentence, and the key under which a submission was tried."""
        super().__init__(message)
        self.idempotency_key = idempotency_key


@dataclass(frozen=True)
class FieldProblem:
    """One thing wrong with one field of a request; `pointer` is a JSON pointer into it, such as `/options/side`."""

    pointer: str
    detail: str


class ApiError(KazhengError):
    """The API answered with a problem (RFC 9457).

    `code` is stable and for programs, `detail` a sentence for people, `status` the HTTP status; `request_id` finds
    the request in the server's logs; `errors` lists wrong fields.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        status: int,
        *,
        request_id: str | None = None,
        errors: Sequence[FieldProblem] = (),
        retryable: bool = False,
    ) -> None:
        """Take the members of the problem document."""
        reference = f" [request {request_id}]" if request_id else ""
        super().__init__(f"{detail} ({code}, HTTP {status}){reference}")
        self.code = code
        self.detail = detail
        self.status = status
        self.request_id = request_id
        self.errors = tuple(errors)
        self.retryable = retryable


class AuthenticationError(ApiError):
    """No API key, a wrong one, or a revoked one."""


class JobFailedError(KazhengError):
    """The job ended without a result: it failed, expired, or was canceled.

    `code` says why, for a program: `not_an_id_card`, `wrong_side`, `blurred`, …
    """

    def __init__(self, job_id: str, code: str, detail: str, *, retryable: bool = False) -> None:
        """Take the id of the job and its error."""
        super().__init__(f"{detail} ({code}, {job_id})")
        self.job_id = job_id
        self.code = code
        self.detail = detail
        self.retryable = retryable


class ResultNotReadyError(KazhengError):
    """The job has not ended yet; `retry_after_seconds` is when to ask again, None when the API did not say."""

    def __init__(self, job_id: str, retry_after_seconds: float | None = None) -> None:
        """Take the id of the job."""
        super().__init__(f"{job_id} has not ended yet. Wait for it with Client.wait.")
        self.job_id = job_id
        self.retry_after_seconds = retry_after_seconds


class WaitTimeoutError(KazhengError):
    """The job had not ended when the time to wait was over. It goes on: wait for `job_id` again, or cancel it."""

    def __init__(self, job_id: str, timeout_seconds: float, status: str | None = None) -> None:
        """Take the id of the job, how long it was waited for, and its last known status."""
        known = f", last seen {status}" if status else ""
        super().__init__(f"{job_id} has not ended after {timeout_seconds:g} s{known}. It goes on: wait for it again.")
        self.job_id = job_id
        self.timeout_seconds = timeout_seconds
        self.status = status


class WebhookVerificationError(KazhengError):
    """A request that says it is a webhook is not from Kazheng, or too old."""
