"""Folders of pictures as one batch: handed over, followed, saved; goes on where it was after whatever stopped it.

What was sent is noted in a small file beside the output (`results.xlsx.kazheng.json`), before and after each request. A
request whose answer got lost is sent again with the same key and the same files, which adds them once.
"""

import csv
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from kazheng.batches import PORTION_BYTES, PORTION_IMAGES, Batch, NamedImage
from kazheng.client import Client
from kazheng.commands.failures import CommandError
from kazheng.errors import ApiError, ApiUnreachableError
from kazheng.models import json_number

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".heic", ".heif")
FORMATS = (".xlsx", ".csv", ".jsonl")
_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0
# The server takes no more in one request.
_LARGEST_FILE = 60_000_000


@dataclass
class State:
    """How far a folder has come: the batch, and the files of each request, of which the first `sent` were answered."""

    key: str
    batch_id: str | None = None
    requests: list[list[str]] = field(default_factory=list)
    sent: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    closed: bool = False


def find_pictures(folder: Path, *, recursive: bool, settled_seconds: float = 0.0) -> list[Path]:
    """The pictures in a folder by the ends of their names, in the order of their paths; hidden ones are left out.

    Args:
        settled_seconds: leave out what was changed since so short a time: it may still be written to.
    """
    settled_at = time.time() - settled_seconds
    found = folder.rglob("*") if recursive else folder.iterdir()
    return sorted(
        path
        for path in found
        if path.suffix.lower() in _SUFFIXES
        and path.is_file()
        and (not settled_seconds or path.stat().st_mtime < settled_at)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """What a CSV says of single files: by `file`, the columns `document_type`, `side`, `option.…`, `reference`.

    Raises:
        CommandError: it is no such CSV.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restkey=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CommandError(f"{path} can't be read as a CSV in UTF-8 ({type(error).__name__}).") from error
    if not rows or "file" not in rows[0]:
        raise CommandError(f"{path} must have a column `file`; document_type, side and reference may stand beside it.")
    return {row["file"]: _said_of(path, row) for row in rows}


def _said_of(path: Path, row: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for column, cell in row.items():
        if column == "file" or not cell:
            continue
        if column == "side" or column.startswith("option."):
            options[column.removeprefix("option.")] = {"true": True, "false": False}.get(cell.lower(), cell)
        elif column in ("document_type", "reference"):
            said["client_reference_id" if column == "reference" else column] = cell
        else:
            known = "file, document_type, side, option.…, reference"
            raise CommandError(f"{path} has an unknown column {column!r}; known: {known}.")
    return said | ({"options": options} if options else {})


class FolderRun:
    """One folder on its way through the API."""

    def __init__(
        self,
        client: Client,
        folder: Path,
        out: Path,
        *,
        console: Console,
        manifest: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Take the folder, where its table is to be saved, and what is said of single files.

        Raises:
            CommandError: nothing can be saved there, which is better told now than at the end.
        """
        if out.suffix.lower() not in FORMATS:
            raise CommandError(f"{out} must end with one of {', '.join(FORMATS)}.")
        if not out.parent.is_dir():
            raise CommandError(f"{out.parent} is no folder. Make it, or save elsewhere.")
        self._manifest = manifest or {}
        self._client = client
        self.folder = folder
        self._state_path = out.with_name(f"{out.name}.kazheng.json")
        self._console = console
        self.out = out
        self.state = self._load()

    @property
    def is_resumed(self) -> bool:
        """Whether an earlier run was stopped before its end."""
        return self.state.batch_id is not None

    def hand_over(self, pictures: Sequence[Path], fields: Mapping[str, Any]) -> None:
        """Send all that was not sent yet.

        Raises:
            ApiError: something was not accepted.
            ApiUnreachableError: no answer came; run it again.
        """
        if not self.state.closed:
            planned = {name for names in self.state.requests for name in names} | self.state.unreadable.keys()
            new = [path for path in pictures if path.relative_to(self.folder).as_posix() not in planned]
            if new:
                self.state.requests += _plan(self.folder, new, self.state.unreadable)
                self._save()
        if self.state.batch_id is None:
            batch = self._client.batches.create(close=False, idempotency_key=self.state.key, **fields)
            self.state.batch_id = batch.id
            self._save()
        if self.state.sent == len(self.state.requests):
            return
        columns = (TextColumn("Handing over"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            total = sum(map(len, self.state.requests))
            task = progress.add_task("", total=total, completed=sum(map(len, self.state.requests[: self.state.sent])))
            while self.state.sent < len(self.state.requests):
                names = self.state.requests[self.state.sent]
                images = [
                    NamedImage(name, content, **self._manifest.get(name, {}))
                    for name in names
                    if (content := self._read(name)) is not None
                ]
                if images:
                    key = f"{self.state.key}-{self.state.sent}"
                    self._send(images, key)
                self.state.sent += 1
                self._save()
                progress.advance(task, len(names))

    def _send(self, images: Sequence[NamedImage], key: str) -> None:
        try:
            self._client.batches.add(self.state.batch_id or "", images, idempotency_key=key)
        except ApiError as error:
            if error.code != "idempotency_key_reused":
                raise
            names = ", ".join(image.name for image in images[:3])
            raise CommandError(
                f"Files were changed after they were sent and before the answer came ({names}, …). Delete"
                f" {self._state_path} to begin anew: what was read before is not paid again."
            ) from error

    def close(self) -> Batch:
        """Let the batch take no more: all is handed over.

        Raises:
            ApiUnreachableError: no answer came; run it again.
        """
        if not self.state.closed:
            self._client.batches.close(self.state.batch_id or "")
            self.state.closed = True
            self._save()
        return self.look()

    def look(self) -> Batch:
        """The batch as it stands now."""
        return self._client.batches.get(self.state.batch_id or "")

    def _read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except OSError as error:
            self.state.unreadable[name] = error.strerror or type(error).__name__
            return None

    def finish(self) -> None:
        """Forget how far it came: it is done."""
        self._state_path.unlink(missing_ok=True)

    def _load(self) -> State:
        try:
            return State(**json.loads(self._state_path.read_text("utf-8")))
        except FileNotFoundError:
            return State(key=str(uuid.uuid4()))
        except (ValueError, TypeError) as error:
            raise CommandError(
                f"{self._state_path} is damaged. Delete it to begin anew: what was read before is not paid again."
            ) from error

    def _save(self) -> None:
        part = self._state_path.with_name(f".{self._state_path.name}.part")
        part.write_text(json.dumps(asdict(self.state), ensure_ascii=False), "utf-8")
        part.replace(self._state_path)


def _plan(folder: Path, pictures: Sequence[Path], unreadable: dict[str, str]) -> Iterator[list[str]]:
    """The names of the files of each request."""
    names: list[str] = []
    size = 0
    for path in pictures:
        name = path.relative_to(folder).as_posix()
        try:
            length = path.stat().st_size
        except OSError as error:
            unreadable[name] = error.strerror or type(error).__name__
            continue
        if length > _LARGEST_FILE:
            unreadable[name] = f"has {length} bytes; no photo does"
            continue
        if names and (len(names) == PORTION_IMAGES or size + length > PORTION_BYTES):
            yield names
            names, size = [], 0
        names.append(name)
        size += length
    if names:
        yield names


def watch(client: Client, batch: Batch, console: Console, *, sleep: Any) -> Batch:
    """Show how a batch goes until all of its items have ended; a network that is away is waited for."""
    away, pace = False, ""
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            live.update(picture_of(batch, away=away, pace=pace))
            if batch.is_final:
                return batch
            sleep(_PATIENCE_SECONDS if away else _POLL_SECONDS)
            away = True
            try:
                batch = client.batches.get(batch.id)
                pace = _pace_of(client.quotas())
                away = False
            except ApiUnreachableError:
                continue
            except ApiError as error:
                if not error.retryable:
                    raise


def _pace_of(quotas: Sequence[Mapping[str, Any]]) -> str:
    """Calls a second just made, of those that may be, where any are made."""
    busy = [quota for quota in quotas if quota.get("calls_last_second")]
    calls = sum(json_number(quota.get("calls_last_second")) or 0 for quota in busy)
    pace = sum(json_number(quota.get("pace")) or 0 for quota in busy)
    return f"{calls:g} of {pace:.1f} calls/s" if busy else ""


def picture_of(batch: Batch, *, away: bool = False, pace: str = "") -> Group:
    """A batch as a bar and a line of counts; `pace`: how much of the quota is in use."""
    counts, cost = batch.counts, batch.billing.get("cost_at_most")
    total, done = counts.get("total", 0), 0
    done = total - counts.get("queued", 0) - counts.get("processing", 0)
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pct]} %"),
    )
    bar.add_task(batch.name or batch.id, total=total or 1, completed=done, pct=f"{batch.percent:g}")
    parts = (
        f"[green]{counts.get('succeeded', 0)} read[/]",
        f"[red]{counts.get('failed', 0) + counts.get('expired', 0)} failed[/]",
        f"{batch.billing.get('cached', 0)} cached",
        f"{batch.billing.get('billed', 0)} billed" + (f" (≤ {cost} CNY)" if cost not in (None, "0.00") else ""),
        "" if batch.is_final else f"{counts.get('queued', 0) + counts.get('processing', 0)} to do",
        f"[yellow]{batch.parked} parked[/]" if batch.parked else "",
        pace or ("" if batch.rate_per_second is None else f"{batch.rate_per_second:g}/s"),
        _ending(batch),
        "[yellow]the API does not answer; waiting for it[/]" if away else "",
    )
    line = Text.from_markup("  ".join(filter(None, parts)))
    return Group(bar, line)


def _ending(batch: Batch) -> str:
    if batch.is_final:
        return batch.status
    end = batch.estimated_completion_at
    if end is None:
        return "nobody knows when it will be done"
    local, now = end.astimezone(), datetime.now().astimezone()
    return f"done about {local:%H:%M:%S}" if local.date() == now.date() else f"done about {local:%Y-%m-%d %H:%M}"
