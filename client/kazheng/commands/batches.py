"""`kazheng batches`: list, look at, follow, save, cancel, and try again."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from kazheng.batches import Batch
from kazheng.client import Client
from kazheng.commands.folder import picture_of, watch
from kazheng.commands.recognizing import open_client
from shared.settings import Settings

_SHOWN = 100


@click.group("batches")
def batches() -> None:
    """Many pictures handed over and followed together. `kazheng submit FOLDER` makes one."""


@contextmanager
def _client() -> Iterator[Client]:
    with open_client(Settings.from_env()) as client:
        yield client


@batches.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="How many, newest first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one a line.")
def list_batches(*, limit: int, as_json: bool) -> None:
    """Show the newest batches."""
    with _client() as client:
        found = list(islice(client.batches.list(), limit))
    if as_json:
        for batch in found:
            click.echo(json.dumps(batch.json, ensure_ascii=False))
        return
    if not found:
        click.echo("There is no batch yet. Make one: kazheng submit FOLDER --type … --out results.xlsx")
        return
    rows = Table("batch", "name", "status", "done", "read", "failed", "made", box=None, pad_edge=False)
    for batch in found:
        counts = batch.counts
        made = "" if batch.created_at is None else f"{batch.created_at.astimezone():%Y-%m-%d %H:%M}"
        figures = (f"{batch.percent:g} %", str(counts.get("succeeded", 0)), str(counts.get("failed", 0)))
        rows.add_row(batch.id, batch.name or "", batch.status, *figures, made)
    Console().print(rows)


@batches.command("show")
@click.argument("batch_id")
@click.option("--failed", is_flag=True, help="List the failed items and why.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(batch_id: str, *, failed: bool, as_json: bool) -> None:
    """Show how a batch stands."""
    with _client() as client:
        batch = client.batches.get(batch_id)
        items = list(islice(client.batches.items(batch, status=["failed", "expired"]), _SHOWN)) if failed else []
    if as_json:
        click.echo(json.dumps(batch.json, ensure_ascii=False))
        return
    console = Console()
    console.print(picture_of(batch))
    if items:
        rows = Table("item", "file", "error", "what to do", "again?", box=None, pad_edge=False)
        for item in items:
            error = item.job.error
            told = (
                (error.code, error.detail, "yes" if error.retryable else "no") if error else (item.job.status, "", "")
            )
            rows.add_row(str(item.number), item.name or "", *told)
        console.print(rows)


@batches.command("watch")
@click.argument("batch_id")
def watch_batch(batch_id: str) -> None:
    """Follow a batch until it has ended. Exit code: 0 when all was read, 1 when some was not."""
    with _client() as client:
        ended = watch(client, client.batches.get(batch_id), Console(stderr=True), sleep=time.sleep)
    Console().print(picture_of(ended))
    sys.exit(0 if is_good(ended) else 1)


@batches.command("export")
@click.argument("batch_id")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--format", "kind", type=click.Choice(["jsonl", "csv", "xlsx"]), help="By default what OUT ends with.")
@click.option("--fields", default="", help="Columns and their order, comma separated; all if not given.")
def export(batch_id: str, out: Path, *, kind: str | None, fields: str) -> None:
    """Save a batch as OUT: .xlsx, .csv or .jsonl."""
    with _client() as client:
        client.batches.export(batch_id, out, format=kind, fields=filter(None, fields.split(",")))
    click.echo(f"Saved {out}.")


@batches.command("cancel")
@click.argument("batch_id")
def cancel(batch_id: str) -> None:
    """Start nothing more of a batch; what runs ends."""
    with _client() as client:
        Console().print(picture_of(client.batches.cancel(batch_id)))


@batches.command("retry")
@click.argument("batch_id")
@click.option("--all", "everything", is_flag=True, help="Those too that failed for what they are.")
def retry(batch_id: str, *, everything: bool) -> None:
    """Try the failed items of a batch again."""
    with _client() as client:
        retried = client.batches.retry(batch_id, only_retryable=not everything)
    click.echo(f"{retried} tried again." + ("" if retried or everything else " --all takes the hopeless ones too."))


def is_good(batch: Batch) -> bool:
    """Whether everything was read."""
    return batch.counts.get("succeeded", 0) == batch.counts.get("total", 0)
