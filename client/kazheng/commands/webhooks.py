"""`kazheng webhooks`: endpoints, what was sent to them, and sending it again."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice

import click
from rich.console import Console
from rich.table import Column, Table

from kazheng.client import Client
from kazheng.commands.failures import CommandError
from kazheng.commands.recognizing import open_client
from kazheng.webhooks import Endpoint
from shared.settings import Settings

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


@click.group("webhooks")
def webhooks() -> None:
    """Where events are sent, and what came of it. For a program on this machine use `kazheng listen`."""


@contextmanager
def _client() -> Iterator[Client]:
    with open_client(Settings.from_env()) as client:
        yield client


@webhooks.command("list")
def list_endpoints() -> None:
    """Show the endpoints and how they do."""
    with _client() as client:
        found = list(client.webhooks.list())
    if not found:
        click.echo("There is no endpoint yet. Register one: kazheng webhooks create https://…")
        return
    rows = Table(_id("endpoint"), _text("url"), "status", "failures in a row", box=None, pad_edge=False)
    for endpoint in found:
        rows.add_row(endpoint.id, endpoint.url, endpoint.status, str(endpoint.failures))
    Console().print(rows)


@webhooks.command("create")
@click.argument("url")
@click.option("--events", default="", help="Only these types, comma separated; by default all but those for each step.")
@click.option("--types", default="", help="Only of jobs with these document types, comma separated.")
@click.option("--payload", type=click.Choice(["thin", "full"]), default="thin", show_default=True)
def create(url: str, *, events: str, types: str, payload: str) -> None:
    """Register URL, and show its signing secret this once."""
    with _client() as client:
        endpoint = client.webhooks.create(
            url, event_types=_listed(events), document_types=_listed(types), payload=payload
        )
    _show(endpoint)
    click.echo(f"Signing secret, shown this once: {endpoint.secret}")


@webhooks.command("ping")
@click.argument("endpoint_id")
def ping(endpoint_id: str) -> None:
    """Send a ping at once, and tell what came of it."""
    with _client() as client:
        report = client.webhooks.ping(endpoint_id)
    if not report["delivered"]:
        raise CommandError(f"Not delivered: {report['error']}")
    click.echo(f"Delivered: HTTP {report['status_code']} in {report['duration_ms']} ms.")


@webhooks.command("deliveries")
@click.argument("endpoint_id")
@click.option("--failed", is_flag=True, help="Only those of which all attempts failed.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="How many, newest first.")
def deliveries(endpoint_id: str, *, failed: bool, limit: int) -> None:
    """Show what was sent to an endpoint, and what it answered."""
    with _client() as client:
        found = list(islice(client.webhooks.deliveries(endpoint_id, status="failed" if failed else None), limit))
    heads = (_id("delivery"), _text("event"), _text("job"), "status", "attempts", _text("last answer"))
    rows = Table(*heads, box=None, pad_edge=False)
    for one in found:
        attempts = one["attempts"]
        last = (attempts[-1]["error"] or f"HTTP {attempts[-1]['status_code']}") if attempts else ""
        rows.add_row(one["id"], one["event_type"], one["job_id"] or "", one["status"], str(len(attempts)), last)
    Console().print(rows)


@webhooks.command("resend")
@click.argument("endpoint_id")
@click.argument("delivery_id")
def resend(endpoint_id: str, delivery_id: str) -> None:
    """Send a delivery once more."""
    with _client() as client:
        client.webhooks.resend(endpoint_id, delivery_id)
    click.echo("It is on its way.")


@webhooks.command("recover")
@click.argument("endpoint_id")
@click.option("--since", required=True, help="How long ago: 90m, 12h, 3d; or a moment such as 2026-11-23T08:00+08:00.")
def recover(endpoint_id: str, *, since: str) -> None:
    """Send everything that an endpoint has missed."""
    moment = _moment(since)
    with _client() as client:
        number = client.webhooks.recover(endpoint_id, moment)
    click.echo(f"{number} on their way.")


@webhooks.command("enable")
@click.argument("endpoint_id")
def enable(endpoint_id: str) -> None:
    """Send to an endpoint again; `recover` brings what it has missed."""
    with _client() as client:
        _show(client.webhooks.enable(endpoint_id))


@webhooks.command("disable")
@click.argument("endpoint_id")
def disable(endpoint_id: str) -> None:
    """Send nothing to an endpoint until it is enabled."""
    with _client() as client:
        _show(client.webhooks.disable(endpoint_id))


@webhooks.command("rotate-secret")
@click.argument("endpoint_id", required=False)
@click.option("--overlap-hours", default=24.0, show_default=True, help="How long the secret before signs too.")
def rotate_secret(endpoint_id: str | None, *, overlap_hours: float) -> None:
    """Make another signing secret; without ENDPOINT_ID the one for every webhook_url."""
    with _client() as client:
        secret = client.webhooks.rotate_secret(endpoint_id, overlap_hours=overlap_hours)
    click.echo(f"Signing secret, shown this once: {secret}")


@webhooks.command("delete")
@click.argument("endpoint_id")
def delete(endpoint_id: str) -> None:
    """Forget an endpoint and what was to be sent to it."""
    with _client() as client:
        client.webhooks.delete(endpoint_id)
    click.echo("Deleted.")


def _id(head: str) -> Column:
    """A column that is there to be copied from."""
    return Column(head, no_wrap=True, min_width=30)


def _text(head: str) -> Column:
    return Column(head, overflow="fold")


def _listed(text: str) -> list[str] | None:
    return [part.strip() for part in text.split(",") if part.strip()] or None


def _show(endpoint: Endpoint) -> None:
    click.echo(f"{endpoint.id}  {endpoint.url}  {endpoint.status}")


def _moment(text: str) -> datetime:
    """A moment, said as one or as how long ago it was."""
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isascii() and number.isdigit():
        return datetime.now().astimezone() - timedelta(**{_UNITS[unit]: int(number[:4])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise CommandError("--since has to be like 90m, 12h, 3d or 2026-11-23T08:00+08:00.") from None
