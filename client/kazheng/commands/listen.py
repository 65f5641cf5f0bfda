"""`kazheng listen` and `kazheng trigger`: webhooks while a receiver is being written.

Events are pulled from the API and sent on from here, signed, so that no public address is needed.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
import httpx

from kazheng.client import Client
from kazheng.commands.failures import CommandError
from kazheng.commands.recognizing import open_client
from kazheng.errors import ApiError, ApiUnreachableError
from kazheng.webhooks import Event
from shared.domain.webhook import EventType, sign
from shared.settings import Settings

_LOOK_SECONDS = 1.0
_PAUSES_SECONDS = (1.0, 3.0)
_ANSWER_SECONDS = 15.0
_TYPES = [kind.value for kind in EventType if kind is not EventType.WEBHOOK_PING]


@click.command("listen")
@click.option("--forward-to", "url", required=True, help="Your receiver, such as http://127.0.0.1:3000/hook")
@click.option("--events", "types", default="", help="Only these types, comma separated; all if not given.")
@click.option("--payload", type=click.Choice(["thin", "full"]), default="thin", show_default=True)
@click.option("--secret", help="Sign with this whsec_…; by default one that stays the same for an API key.")
@click.option("--after", default="latest", show_default=True, help="Begin after this place; 0: with the first kept.")
@click.option("--stop-after", type=click.IntRange(1), help="End after so many events.")
def listen(*, url: str, types: str, payload: str, secret: str | None, after: str, stop_after: int | None) -> None:
    """Bring events to a program on this machine, signed like webhooks.

    The API has to be reached from here, not the other way round. Ends with Ctrl-C.
    """
    settings = Settings.from_env()
    _check_address(url)
    wanted = _known(types)
    with open_client(settings) as client, httpx.Client(timeout=_ANSWER_SECONDS, trust_env=False) as http:
        key = settings.api_key.get_secret_value() if settings.api_key else ""
        secret = _checked(secret or _secret_of(key))
        _, place = client.webhooks.events(after) if after == "latest" else ((), after)
        click.echo(f"Events go to {url}, signed with {secret}")
        click.echo("`kazheng trigger job.succeeded` makes one. Ctrl-C ends.")
        try:
            number = _forward_all(client, http, url, secret, place, wanted, payload, stop_after)
        except KeyboardInterrupt:
            click.echo("Ended.")
        else:
            click.echo(f"{number} forwarded.")


def _forward_all(
    client: Client,
    http: httpx.Client,
    url: str,
    secret: str,
    place: str,
    types: Sequence[str],
    payload: str,
    stop_after: int | None,
) -> int:
    number = 0
    while True:
        try:
            events, place = client.webhooks.events(place, types=types, payload=payload)
        except (ApiUnreachableError, ApiError) as error:
            if isinstance(error, ApiError) and not error.retryable:
                raise
            click.echo(f"{error} Trying again.", err=True)
            events = ()
        for event in events:
            _forward(http, url, secret, event)
            number += 1
            if number == stop_after:
                return number
        if not events:
            time.sleep(_LOOK_SECONDS)


def _forward(http: httpx.Client, url: str, secret: str, event: Event) -> None:
    """Send one event, three times if need be, and tell what came of it."""
    body = json.dumps(_body(event), ensure_ascii=False, separators=(",", ":")).encode()
    subject = next((str(event.data[name]) for name in ("job_id", "batch_id", "endpoint_id") if name in event.data), "")
    for pause in (*_PAUSES_SECONDS, None):
        said, is_taken = _try(http, url, secret, event.id, body)
        click.echo(f"{datetime.now().astimezone():%H:%M:%S}  {event.type:<18} {subject:<31} {said}")
        if is_taken or pause is None:
            return
        time.sleep(pause)


def _try(http: httpx.Client, url: str, secret: str, event_id: str, body: bytes) -> tuple[str, bool]:
    now = int(time.time())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "kazheng-listen",
        "webhook-id": event_id,
        "webhook-timestamp": str(now),
        "webhook-signature": sign([secret], event_id, now, body),
    }
    began = time.monotonic()
    try:
        answer = http.post(url, content=body, headers=headers)
    except httpx.HTTPError as error:
        return f"no answer ({type(error).__name__}). Does your receiver run there?", False
    milliseconds = round((time.monotonic() - began) * 1000)
    return f"{answer.status_code} in {milliseconds} ms", answer.is_success


def _body(event: Event) -> dict[str, Any]:
    moment = event.timestamp or datetime.now(UTC)
    return {"type": event.type, "timestamp": moment.isoformat().replace("+00:00", "Z"), "data": event.data}


def _check_address(url: str) -> None:
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL()
    if parts.scheme not in ("http", "https") or not parts.host:
        raise CommandError("--forward-to has to be an address such as http://127.0.0.1:3000/hook")


def _known(types: str) -> list[str]:
    wanted = [name.strip() for name in types.split(",") if name.strip()]
    strangers = [name for name in wanted if name not in _TYPES]
    if strangers:
        raise CommandError(f"There is no event {', '.join(strangers)}. There are: {', '.join(_TYPES)}.")
    return wanted


def _secret_of(api_key: str) -> str:
    """A secret that is the same each time, so that a receiver is set up once."""
    return "whsec_" + base64.b64encode(hmac.digest(api_key.encode(), b"kazheng listen", hashlib.sha256)).decode()


def _checked(secret: str) -> str:
    try:
        sign([secret], "", 0, b"")
    except ValueError:
        raise CommandError("--secret is no signing secret: whsec_ and base64.") from None
    return secret


@click.command("trigger", epilog=f"EVENT is one of: {', '.join(_TYPES)}.")
@click.argument("event_type", type=click.Choice(_TYPES), metavar="EVENT")
@click.option("--job", "job_id", help="One of your jobs, for job.… events; by default one that does not exist.")
def trigger(event_type: str, *, job_id: str | None) -> None:
    """Make an EVENT to try receivers with, such as job.succeeded; its data say "test": true.

    It is delivered to your endpoints and to `kazheng listen` like any other.
    """
    with open_client(Settings.from_env()) as client:
        event_id = client.webhooks.trigger(event_type, job_id)
    click.echo(f"Made {event_id}.")
