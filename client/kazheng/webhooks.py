"""Webhooks: verify what comes in, say where it goes, look at what was sent."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

from kazheng.errors import WebhookVerificationError
from kazheng.models import Json, json_mapping, json_number, json_text, json_time
from kazheng.transport import Transport, json_of

_PATH = "/v1/webhook-endpoints"
_TOLERANCE_SECONDS = 300.0


@dataclass(frozen=True)
class Event:
    """Something that happened.

    `id` is the same however often it is delivered: keep it to tell a repetition. `type` is `job.succeeded`,
    `batch.completed`, …; `data` holds ids and states, and the fields if the endpoint wants them.
    """

    id: str
    type: str
    timestamp: datetime | None = None
    data: Json = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(cls, event_id: str, json: Json) -> Self:
        """Read the body of a delivery."""
        return cls(
            id=event_id,
            type=json_text(json.get("type")) or "",
            timestamp=json_time(json.get("timestamp")),
            data=json_mapping(json.get("data")),
        )


@dataclass(frozen=True)
class Endpoint:
    """An address that is told of events. `secret` is there only when it has just been made."""

    id: str
    url: str
    status: str = ""
    kind: str = ""
    description: str | None = None
    event_types: tuple[str, ...] = ()
    payload: str = ""
    failures: int = 0
    secret: str | None = field(default=None, repr=False)
    json: Json = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read an endpoint."""
        return cls(
            id=json_text(json.get("id")) or "",
            url=json_text(json.get("url")) or "",
            status=json_text(json.get("status")) or "",
            kind=json_text(json.get("kind")) or "",
            description=json_text(json.get("description")),
            event_types=tuple(str(name) for name in json.get("event_types") or ()),
            payload=json_text(json.get("payload")) or "",
            failures=int(json_number(json.get("failures")) or 0),
            secret=json_text(json.get("secret")),
            json=json,
        )


def verify(
    headers: Mapping[str, str],
    body: bytes | str,
    secret: str | Sequence[str],
    *,
    tolerance_seconds: float = _TOLERANCE_SECONDS,
) -> Event:
    """The event in a request, if it is really from Kazheng (Standard Webhooks).

    Args:
        headers: of the request; names in any case.
        body: exactly as it came, before any JSON is read.
        secret: `whsec_…`; several while one is rotated.
        tolerance_seconds: how old, or how far ahead, a request may be: a recorded one is not to be played again.

    Raises:
        WebhookVerificationError: it is not, or it is too old; answer it with 400 or 401.
        ValueError: the secret is none.
    """
    content = body.encode() if isinstance(body, str) else bytes(body)
    named = {name.lower(): value for name, value in headers.items()}
    event_id, sent, signatures = (named.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
    if not (event_id and sent and signatures):
        raise WebhookVerificationError("The headers webhook-id, webhook-timestamp and webhook-signature are missing.")
    if not (sent.isascii() and sent.isdigit()) or abs(time.time() - int(sent[:15])) > tolerance_seconds:
        raise WebhookVerificationError("The request is too old, or a clock is wrong.")
    signed = f"{event_id}.{sent}.".encode() + content
    secrets = [secret] if isinstance(secret, str) else list(secret)
    expected = [_signature(one, signed) for one in secrets]
    given = [part.encode() for part in signatures.split()]
    if not any(hmac.compare_digest(one, other) for one in expected for other in given):
        raise WebhookVerificationError("No signature fits. Is it the secret of this endpoint, and the untouched body?")
    try:
        return Event.from_json(event_id, json_mapping(json.loads(content)))
    except ValueError:
        raise WebhookVerificationError("The body is no JSON.") from None


def _signature(secret: str, signed: bytes) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:  # with an empty one anybody could sign
        raise ValueError("A signing secret begins with whsec_ and is base64.")
    return b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())


class Webhooks:
    """The webhooks of one client: `client.webhooks`.

    endpoint = client.webhooks.create("https://shop.example/kazheng", event_types=["job.succeeded"])
    secret = endpoint.secret  # shown this once
    event = client.webhooks.verify(request.headers, request.get_data(), secret)
    """

    def __init__(self, transport: Transport, secret: str | None = None) -> None:
        """Take what sends requests, and the secret that verifies when no other is given."""
        self._transport = transport
        self._secret = secret

    def verify(
        self,
        headers: Mapping[str, str],
        body: bytes | str,
        secret: str | Sequence[str] | None = None,
        *,
        tolerance_seconds: float = _TOLERANCE_SECONDS,
    ) -> Event:
        """The event in a request, if it is really from Kazheng; see `kazheng.webhooks.verify`.

        Raises:
            WebhookVerificationError: it is not.
            ValueError: there is no secret, or it is none.
        """
        known = secret or self._secret
        if not known:
            raise ValueError("Give the secret here, or Client(…, webhook_secret=…).")
        return verify(headers, body, known, tolerance_seconds=tolerance_seconds)

    def create(
        self,
        url: str,
        *,
        description: str | None = None,
        event_types: Sequence[str] | None = None,
        document_types: Sequence[str] | None = None,
        batch_id: str | None = None,
        payload: str | None = None,
    ) -> Endpoint:
        """Register an endpoint; its `secret` is shown this once.

        Args:
            url: an https address, public, without redirect.
            event_types: None: all but `job.started` and `job.parked`.
            document_types: None: all.
            batch_id: only events of this batch and its jobs.
            payload: `thin` (ids, states, links) or `full` (the fields too); None leaves it to the server.

        Raises:
            ApiError: something in it is wrong.
            ApiUnreachableError: no answer came; it may or may not be there.
        """
        given = {
            "url": url,
            "description": description,
            "event_types": None if event_types is None else list(event_types),
            "document_types": None if document_types is None else list(document_types),
            "batch_id": batch_id,
            "payload": payload,
        }
        body = {name: value for name, value in given.items() if value is not None}
        return self._endpoint("POST", _PATH, json=body, is_repeatable=False)

    def list(self, *, page_size: int = 100) -> Iterator[Endpoint]:
        """Endpoints, newest first; pages are fetched as they are needed."""
        for entry in self._pages(_PATH, {"limit": page_size}):
            yield Endpoint.from_json(entry)

    def get(self, endpoint_id: str) -> Endpoint:
        """An endpoint, and how it does.

        Raises:
            ApiError: there is no such endpoint.
        """
        return self._endpoint("GET", _path(endpoint_id))

    def update(self, endpoint_id: str, **changes: Any) -> Endpoint:
        """Change what is named: `url`, `description`, `event_types`, `document_types`, `batch_id`, `payload`.

        Raises:
            ApiError: something in it is wrong.
        """
        return self._endpoint("PATCH", _path(endpoint_id), json=changes)

    def delete(self, endpoint_id: str) -> None:
        """Forget an endpoint and what was to be sent to it."""
        self._transport.send("DELETE", _path(endpoint_id))

    def enable(self, endpoint_id: str) -> Endpoint:
        """Send to an endpoint again; `recover` brings what it has missed."""
        return self._endpoint("POST", f"{_path(endpoint_id)}/enable")

    def disable(self, endpoint_id: str) -> Endpoint:
        """Send nothing to an endpoint until it is enabled."""
        return self._endpoint("POST", f"{_path(endpoint_id)}/disable")

    def ping(self, endpoint_id: str) -> Json:
        """Send a `webhook.ping` at once: `delivered`, `status_code`, `duration_ms`, `error`, `excerpt`."""
        return json_of(self._transport.send("POST", f"{_path(endpoint_id)}/ping"))

    def rotate_secret(self, endpoint_id: str | None = None, *, overlap_hours: float = 24) -> str:
        """Another signing secret; for so long both sign. Without an endpoint: the one for every `webhook_url`.

        Raises:
            ApiUnreachableError: no answer came; the secret may or may not be another now.
        """
        path = "/v1/webhook-secret/rotate" if endpoint_id is None else f"{_path(endpoint_id)}/rotate-secret"
        answer = self._transport.send("POST", path, json={"overlap_hours": overlap_hours}, is_repeatable=False)
        return str(json_of(answer)["secret"])

    def deliveries(
        self,
        endpoint_id: str,
        *,
        status: str | None = None,
        event_type: str | None = None,
        job_id: str | None = None,
        page_size: int = 100,
    ) -> Iterator[Json]:
        """Deliveries to an endpoint with their attempts, newest first."""
        filters = {"status": status, "event_type": event_type, "job_id": job_id}
        query = {name: value for name, value in filters.items() if value is not None}
        yield from self._pages(f"{_path(endpoint_id)}/deliveries", {**query, "limit": page_size})

    def resend(self, endpoint_id: str, delivery_id: str) -> Json:
        """Send a delivery once more."""
        path = f"{_path(endpoint_id)}/deliveries/{quote(delivery_id, safe='')}/resend"
        return json_of(self._transport.send("POST", path))

    def recover(self, endpoint_id: str, since: datetime, until: datetime | None = None) -> int:
        """Send everything of a time that an endpoint wants and has not taken; how many.

        Args:
            since: with a time zone, like `until`.
        """
        body = {"since": since.isoformat(), **({} if until is None else {"until": until.isoformat()})}
        recovered = 0
        while True:
            answer = json_of(self._transport.send("POST", f"{_path(endpoint_id)}/recover", json=body, held_seconds=20))
            recovered += int(answer["recovered"])
            if not answer.get("next"):
                return recovered
            body["after"] = str(answer["next"])

    def trigger(self, event_type: str, job_id: str | None = None) -> str:
        """Make an event to try receivers with; its id. Its data say `"test": true`."""
        body = {"type": event_type, **({} if job_id is None else {"job_id": job_id})}
        return str(json_of(self._transport.send("POST", "/v1/events", json=body, is_repeatable=False))["id"])

    def events(
        self, after: str | None = None, *, types: Sequence[str] = (), payload: str = "thin"
    ) -> tuple[Sequence[Event], str]:
        """Events after a place, in order, and the place after them: keep it, and ask again from there.

        Args:
            after: what an earlier call gave; `latest`: nothing that has been; None: from the first that is kept.
        """
        given = {"payload": payload, "after": after, "types": ",".join(types)}
        query = {name: value for name, value in given.items() if value}
        page = json_of(self._transport.send("GET", "/v1/events", params=query))
        found = [Event.from_json(str(entry.get("id")), entry) for entry in page.get("data") or ()]
        return found, str(page.get("next"))

    def _endpoint(self, method: str, path: str, **content: Any) -> Endpoint:
        return Endpoint.from_json(json_of(self._transport.send(method, path, **content)))

    def _pages(self, path: str, query: dict[str, Any]) -> Iterator[Json]:
        while True:
            page = json_of(self._transport.send("GET", path, params=query))
            yield from page.get("data") or ()
            if not page.get("next"):
                return
            query = {**query, "after": str(page["next"])}


def _path(endpoint_id: str) -> str:
    return f"{_PATH}/{quote(endpoint_id, safe='')}"
