"""Requests that are sent again while that may help, and answers turned into errors.

Sent again: when no answer came, on 429, 502, 503 and 504, and on the 409 that says an earlier try of the same
submission is still being served. The wait doubles each time, with jitter, unless the server names one (`Retry-After`).
Every request that is sent again is safe to: a submission carries one idempotency key for all its tries, and what would
do a second thing is sent once.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import httpx

from kazheng.errors import ApiError, ApiUnreachableError, AuthenticationError, FieldProblem

_RETRIED = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_IN_PROGRESS = "idempotency_key_in_progress"
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 20.0
# A server may be wrong about how long it will be away; nobody hangs for an hour because of one header.
_LONGEST_RETRY_AFTER_SECONDS = 120.0

Answer = httpx.Response


class DeadlineError(Exception):
    """The next try would begin after the deadline."""


@dataclass(frozen=True)
class Timing:
    """The clock, the pause and the dice; tests bring their own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random


class Transport:
    """Sends requests of one client. Safe to share between threads."""

    def __init__(self, http: httpx.Client, *, max_retries: int, timing: Timing) -> None:
        """Take an open HTTP client that knows the base address and the API key."""
        self._http = http
        self._max_retries = max_retries
        self.timing = timing

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        deadline: float | None = None,
        held_seconds: float = 0.0,
        is_repeatable: bool = True,
        **content: Any,
    ) -> Answer:
        """One request, sent again while that may help.

        Args:
            deadline: instant, by the clock in use, after which no further try begins.
            held_seconds: how much longer than usual the server may take, because it was asked to wait.
            is_repeatable: False: send it once, for a second time would do a second thing.

        Raises:
            ApiUnreachableError: no answer came.
            ApiError: the API answered with a problem.
            DeadlineError: the deadline came before an answer.
        """
        most_tries = self._max_retries + 1 if is_repeatable else 1
        for attempt in range(1, most_tries + 1):
            answer, failure = self._try(method, path, held_seconds, content)
            if answer is not None and answer.is_success:
                return answer
            if attempt == most_tries or (answer is not None and not _may_succeed_later(answer)):
                break
            delay = self._delay(attempt, answer)
            if deadline is not None and self.timing.monotonic() + delay >= deadline:
                raise DeadlineError from failure
            self.timing.sleep(delay)
        if answer is not None:
            raise problem_of(answer)
        message = f"The API at {self._http.base_url} does not answer ({type(failure).__name__}, {attempt} tries)."
        raise ApiUnreachableError(message) from failure

    def stream(self, method: str, path: str, **content: Any) -> Iterator[bytes]:
        """The body of an answer in pieces, however long it is. Sent once: who wants it again asks again.

        Raises:
            ApiUnreachableError: no answer came, or it broke off.
            ApiError: the API answered with a problem.
        """
        try:
            with self._http.stream(method, path, **content) as answer:
                if not answer.is_success:
                    answer.read()
                    raise problem_of(answer)
                yield from answer.iter_bytes()
        except httpx.TransportError as error:
            message = f"The API at {self._http.base_url} broke off ({type(error).__name__})."
            raise ApiUnreachableError(message) from error

    def _try(
        self, method: str, path: str, held_seconds: float, content: Mapping[str, Any]
    ) -> tuple[Answer | None, httpx.TransportError | None]:
        usual = self._http.timeout
        timeout = httpx.Timeout(
            usual.read, read=None if usual.read is None else usual.read + held_seconds, connect=usual.connect
        )
        try:
            return self._http.request(method, path, timeout=timeout, **content), None
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError):
            raise  # the caller's mistake: it would fail each time
        except httpx.TransportError as error:
            return None, error

    def _delay(self, attempt: int, answer: Answer | None) -> float:
        """Seconds to wait after a try; attempts count from 1."""
        named = None if answer is None else retry_after_seconds(answer)
        jitter = self.timing.jitter()
        if named is not None:
            # Never earlier than told; a little later, so that those told the same don't come back as one crowd.
            return named + jitter * min(1.0, 0.1 * named)
        ceiling = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0 ** (attempt - 1))
        return ceiling * (0.5 + 0.5 * jitter)


def retry_after_seconds(answer: Answer) -> float | None:
    """The answer's `Retry-After`, given in seconds or as a date; None when there is none or it makes no sense."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return min(float(value), _LONGEST_RETRY_AFTER_SECONDS)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), _LONGEST_RETRY_AFTER_SECONDS)


def json_of(answer: Answer) -> dict[str, Any]:
    """The JSON object in an answer.

    Raises:
        ApiError: it holds none, so something other than the API has answered.
    """
    body = _json_object(answer)
    if body is None:
        raise ApiError(
            "unexpected_answer", "The answer is no JSON object. Is this the address of the API?", answer.status_code
        )
    return body


def problem_of(answer: Answer) -> ApiError:
    """The error in an answer, whoever wrote it: the API, or a proxy in front of it."""
    body = _json_object(answer) or {}
    listed = body.get("errors")
    problems = [
        FieldProblem(str(entry.get("pointer", "")), str(entry.get("detail", "")))
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, Mapping)
    ]
    kind = AuthenticationError if answer.status_code == HTTPStatus.UNAUTHORIZED else ApiError
    return kind(
        str(body.get("code") or f"http_{answer.status_code}"),
        str(body.get("detail") or body.get("title") or f"The server answered {answer.reason_phrase or 'an error'}."),
        answer.status_code,
        request_id=str(body.get("request_id") or answer.headers.get("X-Request-Id") or "") or None,
        errors=problems,
        retryable=bool(body.get("retryable", answer.status_code in _RETRIED)),
    )


def _may_succeed_later(answer: Answer) -> bool:
    if answer.status_code in _RETRIED:
        return True
    return answer.status_code == HTTPStatus.CONFLICT and (_json_object(answer) or {}).get("code") == _IN_PROGRESS


def _json_object(answer: Answer) -> dict[str, Any] | None:
    try:
        body = answer.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
