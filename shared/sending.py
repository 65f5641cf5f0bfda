"""One attempt to deliver: sign, send, and look at the answer; the receiver is a stranger."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from shared.domain.webhook import Outcome, sign
from shared.outbound import AddressRefusedError, GuardedSession, OutboundPolicy, check_url

_READ_BYTES = 4_096
_EXCERPT_CHARACTERS = 500


class Sender:
    """Sends deliveries of one endpoint, one after the other, over a connection that is kept; for one thread."""

    def __init__(self, policy: OutboundPolicy, *, deadline_seconds: float) -> None:
        """Nothing is connected yet."""
        self._policy = policy
        self._deadline_seconds = deadline_seconds
        self._session = GuardedSession(policy)
        self._is_used = False

    def close(self) -> None:
        """Close the connection."""
        self._session.close()

    def send(
        self, url: str, signing_secrets: Sequence[str], event_id: str, body: Mapping[str, Any], now: datetime
    ) -> Outcome:
        """Send an event; whatever happens is told by the outcome."""
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        timestamp = int(now.timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "kazheng-webhooks",
            "Accept-Encoding": "identity",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(signing_secrets, event_id, timestamp, content),
        }
        began = time.monotonic()
        try:
            check_url(url, self._policy)
            try:
                found = self._exchange(url, headers, content, self._deadline_seconds)
            except requests.ConnectionError:
                left = self._deadline_seconds - (time.monotonic() - began)
                if not self._is_used or left <= 0:
                    raise
                # The receiver had closed the kept connection; with a new one nothing is wrong.
                self._renew()
                found = self._exchange(url, headers, content, left)
        except AddressRefusedError as error:
            return self._failed(began, f"The address {error}")
        except (requests.RequestException, HTTPError, OSError, ValueError) as error:
            return self._failed(began, _told(error))
        seconds = time.monotonic() - began
        if seconds >= self._deadline_seconds:
            # A socket shut in the middle can look like the end of an answer.
            return self._failed(began, "")
        self._is_used = True
        status, trouble, excerpt, retry_after = found
        return Outcome(status, round(seconds * 1000), trouble, excerpt, retry_after)

    def _exchange(
        self, url: str, headers: Mapping[str, str], content: bytes, seconds: float
    ) -> tuple[int, str | None, str, timedelta | None]:
        with self._session.exchange("POST", url, deadline_seconds=seconds, headers=headers, body=content) as answer:
            start = answer.raw.read(_READ_BYTES, decode_content=False)
            return answer.status_code, _judged(answer), _readable(start), _retry_after(answer)

    def _failed(self, began: float, error: str) -> Outcome:
        self._renew()
        seconds = time.monotonic() - began
        if seconds >= self._deadline_seconds:
            error = f"No complete answer within {self._deadline_seconds:g} seconds."
        return Outcome(None, round(seconds * 1000), error)

    def _renew(self) -> None:
        self._session.close()
        self._session = GuardedSession(self._policy)
        self._is_used = False


def _judged(answer: requests.Response) -> str | None:
    if 200 <= answer.status_code < 300:
        return None
    hint = " Redirects are not followed: register the final address." if 300 <= answer.status_code < 400 else ""
    return f"The receiver answered HTTP {answer.status_code}.{hint}"


def _readable(start: bytes) -> str:
    text = start.decode("utf-8", "replace")
    return "".join(char for char in text if char.isprintable() or char in "\n\t")[:_EXCERPT_CHARACTERS]


def _retry_after(answer: requests.Response) -> timedelta | None:
    """RFC 9110, section 10.2.3: seconds, or a date."""
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return timedelta(seconds=min(int(value[:12]), 10**8))
    try:
        then, here = parsedate_to_datetime(value), parsedate_to_datetime(answer.headers.get("Date", ""))
        return max(timedelta(0), then - here)
    except (ValueError, TypeError, OverflowError):
        return None


def _told(error: Exception) -> str:
    """What went wrong, in words that hold nothing of the exchange."""
    names = set(_names(error, set()))
    told = (words for name, words in _CAUSES.items() if name in names)
    return next(told, f"The exchange failed ({type(error).__name__}).")


def _names(error: BaseException, seen: set[int]) -> Iterator[str]:
    """Class names of an error and of whatever it is wrapped around."""
    if id(error) in seen:
        return
    seen.add(id(error))
    yield type(error).__name__
    for inner in (*error.args, getattr(error, "reason", None), error.__cause__, error.__context__):
        if isinstance(inner, BaseException):
            yield from _names(inner, seen)


# The first that fits is told.
_CAUSES = {
    "SSLCertVerificationError": "The receiver's certificate is not valid for its name, or not trusted.",
    "SSLError": "No encrypted connection could be made.",
    "gaierror": "The name of the receiver could not be resolved.",
    "ConnectTimeoutError": "No connection could be made in time.",
    "NewConnectionError": "No connection could be made.",
    "ReadTimeoutError": "The receiver fell silent.",
    "LineTooLong": "The receiver's answer is no HTTP.",
    "HTTPException": "The receiver's answer is no HTTP.",
    "RemoteDisconnected": "The receiver closed the connection without an answer.",
    "BadStatusLine": "The receiver's answer is no HTTP.",
    "ConnectionResetError": "The receiver closed the connection without an answer.",
}
