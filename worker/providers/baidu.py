"""Baidu AI Cloud OCR.

Call: https://cloud.baidu.com/doc/OCR/s/Ck3h7y2ia; token: https://ai.baidu.com/ai-doc/REFERENCE/Ck3dwjhhu. Read
November 2026. The body is an url-encoded form with the image as base64 without a `data:` prefix; flags are the
strings `true` and `false`; answers are HTTP 200 also for errors. Endpoints, limits and options are rows of
`shared.domain.documents`, error codes of `worker.providers.baidu_errors`.

The vendor wants the token, and the keys it is fetched with, in the query string. So no URL and no text of a
`requests` exception (which quotes it) leaves this module.
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import requests
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, ReadTimeoutError

from shared.domain.documents import DocumentType
from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode
from shared.domain.result import Recognition
from shared.domain.retry import FailureKind
from worker.providers.baidu_errors import provider_error
from worker.providers.baidu_fields import read_answer
from worker.providers.protocol import Credentials, PreparedImage
from worker.providers.watchdog import Watchdog, WatchedAdapter

_LARGEST_ANSWER = 8_000_000
# Gateways close connections after a minute or so of silence: a call over such a one would open another, late.
_WARM_SECONDS = 15.0
_PING_TIMEOUT = (3.0, 3.0)
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class BaiduProvider:
    """Calls Baidu. Safe to share between threads: each keeps its own connections."""

    def __init__(self, *, connect_timeout: float, read_timeout: float, deadline: float) -> None:
        """Take the limits of one call, in seconds: to connect, between two bytes, and in all."""
        self._timeout = (connect_timeout, read_timeout)
        self._deadline = deadline
        self._watchdog = Watchdog()
        self._local = threading.local()

    def fetch_token(self, credentials: Credentials) -> tuple[str, float]:
        """An access token and its life in seconds.

        Raises:
            ProviderError: `misconfigured` when the keys are refused, else `retry_soon`.
        """
        query = {
            "grant_type": "client_credentials",
            "client_id": credentials.api_key,
            "client_secret": credentials.secret,
        }
        status, answer = self._post(f"{credentials.base_url}/oauth/2.0/token", query, b"")
        if isinstance(answer, Mapping) and isinstance(answer.get("access_token"), str):
            life = answer.get("expires_in")
            return answer["access_token"], float(life) if isinstance(life, int | float) and life > 0 else 2_592_000.0
        if isinstance(answer, Mapping) and "error" in answer:
            detail = f"the provider refused the account's keys ({answer['error']})"
            raise ProviderError(
                FailureKind.MISCONFIGURED,
                detail,
                upstream_code=str(answer["error"])[:60],
                error_code=JobErrorCode.PROVIDER_MISCONFIGURED,
                called=False,
            )
        detail = f"the token endpoint answered HTTP {status} without a token"
        raise ProviderError(FailureKind.RETRY_SOON, detail, upstream_code=f"http_{status}", called=False)

    def warm_up(self, base_url: str, *, measure: bool) -> float | None:
        """Open this thread's connection if it has gone cold; its round trip in seconds, if asked for and it worked."""
        is_warm = time.monotonic() - self._used().get(base_url, float("-inf")) < _WARM_SECONDS
        if not is_warm and self._ping(base_url) is None:
            return None
        return self._ping(base_url) if measure else None

    def _ping(self, base_url: str) -> float | None:
        """Seconds of one request that asks for nothing, or None."""
        began = time.monotonic()
        try:
            self._session().head(f"{base_url}/", timeout=_PING_TIMEOUT, allow_redirects=False).close()
        except (requests.RequestException, HTTPError):
            return None
        self._used()[base_url] = time.monotonic()
        return time.monotonic() - began

    def _used(self) -> dict[str, float]:
        """When this thread last used its connection to a host."""
        used: dict[str, float] | None = getattr(self._local, "used", None)
        if used is None:
            used = self._local.used = {}
        return used

    def encode(self, document: DocumentType, options: Mapping[str, object], image: PreparedImage) -> bytes:
        """The form of a call, url-encoded; the image last, so that a log of its head would show no content."""
        form = dict(document.fixed)
        for option in document.options:
            value = options[option.name]
            if isinstance(value, bool):
                if value:
                    form[option.baidu] = "true"
            else:
                form[option.baidu] = str(value)
        # By hand, for `urlencode` takes milliseconds for what base64 has of characters to encode.
        picture = base64.b64encode(image.content).replace(b"+", b"%2B").replace(b"/", b"%2F").replace(b"=", b"%3D")
        return b"&".join(filter(None, (urlencode(form).encode("ascii"), b"image=" + picture)))

    def recognize(
        self,
        base_url: str,
        token: str,
        document: DocumentType,
        options: Mapping[str, object],
        body: bytes,
        image: PreparedImage,
        *,
        safe_until: Callable[[], float],
    ) -> Recognition:
        """Make the call and read the answer.

        Raises:
            ProviderError: the call failed, or read nothing.
        """
        url = f"{base_url}/rest/2.0/ocr/v1/{document.endpoint}"
        if safe_until() < time.monotonic():
            raise _interrupted(called=False)
        status, answer = self._post(url, {"access_token": token}, body, safe_until)
        self._used()[base_url] = time.monotonic()
        if not isinstance(answer, Mapping):
            raise self._not_an_answer(status)
        code = answer.get("error_code")
        if code:
            log_id = None if answer.get("log_id") is None else str(answer["log_id"])
            try:
                number = int(code)
            except (TypeError, ValueError):
                raise self._not_an_answer(status) from None
            raise provider_error(number, log_id=log_id, not_this=document.not_this)
        return read_answer(answer, document, options, image)

    @staticmethod
    def _not_an_answer(status: int) -> ProviderError:
        """A gateway's page instead of an answer: the image is too large, or something is down."""
        kind = FailureKind.BAD_INPUT if status == 413 else FailureKind.RETRY_SOON
        code = JobErrorCode.IMAGE_REJECTED if status == 413 else JobErrorCode.PROVIDER_FAILED
        detail = f"the provider answered HTTP {status} without JSON"
        return ProviderError(kind, detail, upstream_code=f"http_{status}", error_code=code, answered=status == 413)

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = requests.Session()
            session.trust_env = False  # no proxy and no .netrc that the settings don't know of
            adapter = self._local.adapter = WatchedAdapter()
            session.mount("https://", adapter)
            session.mount("http://", adapter)
            self._local.session = session
        return session

    def _post(
        self,
        url: str,
        query: Mapping[str, str],
        body: bytes,
        safe_until: Callable[[], float] = lambda: float("inf"),
    ) -> tuple[int, Any]:
        """Status and parsed JSON, None where the body is not JSON."""
        give_up_at = time.monotonic() + self._deadline

        def is_over() -> bool:
            return time.monotonic() > min(give_up_at, safe_until())

        def no_end() -> ProviderError:
            return _no_end() if time.monotonic() > give_up_at else _interrupted(called=True)

        session = self._session()
        try:
            with (
                self._watchdog.watching(self._local.adapter.shut, is_over),
                session.post(
                    url,
                    params=query,
                    data=body,
                    headers=_FORM,
                    timeout=self._timeout,
                    allow_redirects=False,
                    stream=True,
                ) as response,
            ):
                content = bytearray()
                # `requests` times each arrival of bytes, not the whole, and its own `iter_content` waits for a full
                # chunk: an answer that drips would hold the thread for ever.
                while chunk := response.raw.read1(65_536, decode_content=True):
                    content += chunk
                    if is_over() or len(content) > _LARGEST_ANSWER:
                        raise no_end()
                # A socket that was shut looks like the end of an answer without a length.
                if is_over():
                    raise no_end()
                return response.status_code, _parse(bytes(content))
        except requests.ConnectTimeout:
            raise _no_connection("connect_timeout") from None
        except (requests.Timeout, ReadTimeoutError):
            raise _unreachable("timeout") from None
        except (requests.RequestException, HTTPError) as error:
            if is_over():
                raise no_end() from None
            if _never_connected(error):
                raise _no_connection(type(error).__name__) from None
            raise _unreachable(type(error).__name__) from None


def _no_end() -> ProviderError:
    detail = "the provider's answer did not end"
    return ProviderError(FailureKind.RETRY_SOON, detail, upstream_code="no_end", answered=False)


def _interrupted(*, called: bool) -> ProviderError:
    detail = "the call was given up, for the job may be somebody else's by now"
    return ProviderError(FailureKind.INTERRUPTED, detail, upstream_code="interrupted", called=called, answered=False)


def _no_connection(reason: str) -> ProviderError:
    detail = f"no connection to the provider could be had ({reason})"
    return ProviderError(FailureKind.UNREACHABLE, detail, upstream_code=reason, called=False, answered=False)


def _never_connected(error: Exception) -> bool:
    """Whether a failure came before anything was sent: refused, no route, no such host."""
    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)


def _unreachable(reason: str) -> ProviderError:
    detail = f"the provider gave no answer ({reason})"
    return ProviderError(FailureKind.RETRY_SOON, detail, upstream_code=reason, answered=False)


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
