"""`kazheng submit`: recognize pictures from the command line."""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kazheng.client import Client
from kazheng.commands.batches import is_good
from kazheng.commands.failures import CommandError
from kazheng.commands.folder import FolderRun, find_pictures, picture_of, read_manifest, watch
from kazheng.commands.recognizing import Outcome, Picture, open_client, progress_bar, recognize
from kazheng.errors import ApiUnreachableError
from kazheng.models import Check, Result
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.job import Lane
from shared.settings import Settings

# A file that was changed so lately may still be written to.
_SETTLED_SECONDS, _WATCH_SECONDS = 2.0, 2.0
_INTERRUPTED = 130  # what a shell expects of a command ended by Ctrl-C


class _Option(click.ParamType[tuple[str, str | bool]]):
    """`name=value`; `true` and `false` are booleans."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str | bool]:
        if isinstance(value, tuple):
            return value
        name, separator, text = str(value).partition("=")
        if not (name and separator):
            self.fail(f"{value!r} is not of the form name=value", param, ctx)
        return name, {"true": True, "false": False}.get(text.lower(), text)


@click.command("submit")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--type", "document_type", required=True, type=click.Choice(list(DOCUMENT_TYPES)), help="What they show.")
@click.option("--side", type=click.Choice(["front", "back"]), help="Side of an ID card; short for --option side=….")
@click.option("--option", "options", multiple=True, type=_Option(), help="An option of the type; may be repeated.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the fields, or only hand over.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for each file, as they come.")
@click.option("--lane", type=click.Choice([lane.value for lane in Lane]), help="`bulk` when nobody is waiting.")
@click.option("--recursive", is_flag=True, help="Of a folder: the folders in it too.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Of a folder: .xlsx, .csv or .jsonl to save."
)
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Of a folder: a CSV that says of single files (column file) their document_type, side or reference.",
)
@click.option(
    "--watch", "keeps_watching", is_flag=True, help="Of a folder: go on with what comes into it, until Ctrl-C."
)
@click.option("--retry-failed", is_flag=True, help="Of a folder: try once more what may succeed.")
@click.option("--timeout", default=120.0, show_default=True, type=click.FloatRange(0), help="Seconds to wait for one.")
def submit(
    files: tuple[Path, ...],
    *,
    document_type: str,
    side: str | None,
    options: tuple[tuple[str, str | bool], ...],
    wait: bool,
    as_json: bool,
    lane: str | None,
    recursive: bool,
    out: Path | None,
    manifest: Path | None,
    keeps_watching: bool,
    retry_failed: bool,
    timeout: float,
) -> None:
    """Recognize pictures and show their fields; or a folder of them, as a batch, into a table.

    \b
    Examples:
      kazheng submit card.jpg --type id_card
      kazheng submit back.jpg --type id_card --side back
      kazheng submit scans/*.png --type business_license --option detect_quality=true
      kazheng submit *.jpg --type bank_card --json > cards.jsonl
      kazheng submit ./scans --type id_card --recursive --out results.xlsx

    A folder goes on where it was when the same command is run again after Ctrl-C, or after the network was away.
    Nothing is paid twice: equal pictures are answered from the first.

    The API and its key are KAZHENG_API_URL and KAZHENG_API_KEY; where `kazheng up` runs, both are known.
    Exit code: 0 when all were recognized, 1 when some were not, 2 when nothing could be tried.
    """  # noqa: D301 - click wants the character itself
    chosen = dict(options) | ({"side": side} if side else {})
    if len(files) == 1 and files[0].is_dir():
        fields = {"document_type": document_type, "options": chosen, "lane": lane, "name": files[0].resolve().name}
        folder_out = out or Path(f"{files[0].resolve().name}.xlsx")
        said = read_manifest(manifest) if manifest else None
        with open_client(Settings.from_env()) as client:
            run = FolderRun(client, files[0], folder_out, console=Console(stderr=True), manifest=said)
            sys.exit(
                _submit_folder(
                    client,
                    run,
                    fields,
                    recursive=recursive,
                    keeps_watching=keeps_watching,
                    again=retry_failed,
                    as_json=as_json,
                )
            )
    if out is not None:
        raise click.UsageError("--out goes with a folder.")
    _refuse_folders(files)
    pictures = [Picture(path, document_type, chosen) for path in dict.fromkeys(files)]
    with open_client(Settings.from_env()) as client:
        outcomes = _follow(client, pictures, wait=wait, timeout_seconds=timeout, lane=lane, as_json=as_json)
    if not as_json:
        _show(outcomes, waited=wait)
    sys.exit(0 if all(outcome.is_good for outcome in outcomes) else 1)


def _refuse_folders(files: Iterable[Path]) -> None:
    for path in files:
        if path.is_dir():
            raise click.UsageError(f"{path} is a folder. Name one folder alone, or pictures: {path}/*.jpg …")


def _submit_folder(
    client: Client,
    run: FolderRun,
    fields: dict[str, Any],
    *,
    recursive: bool,
    keeps_watching: bool,
    again: bool,
    as_json: bool,
) -> int:
    """Hand over, follow, save; the exit code."""
    console = Console(stderr=True)
    pictures = find_pictures(run.folder, recursive=recursive)
    if not pictures and not run.is_resumed and not keeps_watching:
        raise CommandError(
            f"There is no picture in {run.folder}." + ("" if recursive else " --recursive looks deeper.")
        )
    try:
        if run.is_resumed:
            console.print(f"Going on with batch {run.state.batch_id}.", highlight=False)
        if keeps_watching and not run.state.closed:
            _watch_folder(run, fields, console, recursive=recursive)
            pictures = []  # Ctrl-C may have come in the middle of a request: it is sent again before the end
        run.hand_over(pictures, fields)
        batch = watch(client, run.close(), console, sleep=time.sleep)
        if again and client.batches.retry(batch):
            batch = watch(client, client.batches.get(batch), console, sleep=time.sleep)
    except KeyboardInterrupt:
        console.print("Interrupted. What was handed over goes on; run the same command again to follow it.")
        return _INTERRUPTED
    client.batches.export(batch, run.out)
    run.finish()
    if as_json:
        click.echo(json.dumps(batch.json, ensure_ascii=False))
    else:
        Console().print(picture_of(batch))
        click.echo(f"Saved {run.out}.")
    for name, why in run.state.unreadable.items():
        click.echo(f"Not handed over: {name} ({why})", err=True)
    return 0 if is_good(batch) and not run.state.unreadable else 1


def _watch_folder(run: FolderRun, fields: dict[str, Any], console: Console, *, recursive: bool) -> None:
    """Hand over what comes into a folder, until Ctrl-C."""
    console.print(f"Watching {run.folder}. Ctrl-C: no more; what was handed over is finished and saved.")
    with suppress(KeyboardInterrupt):
        while True:
            with suppress(ApiUnreachableError):  # it is tried again, with the same keys
                found = find_pictures(run.folder, recursive=recursive, settled_seconds=_SETTLED_SECONDS)
                run.hand_over(found, fields)
                with Live(picture_of(run.look()), console=console, transient=True):
                    time.sleep(_WATCH_SECONDS)


def _follow(
    client: Client,
    pictures: Sequence[Picture],
    *,
    wait: bool,
    timeout_seconds: float,
    lane: str | None,
    as_json: bool,
) -> list[Outcome]:
    """Recognize with a progress bar on standard error; outcomes in the order of the pictures."""
    found: dict[Path, Outcome] = {}
    title = "Recognizing" if wait else "Handing over"
    try:
        with progress_bar(Console(stderr=True), title, len(pictures)) as (progress, task):
            for outcome in recognize(client, pictures, wait=wait, timeout_seconds=timeout_seconds, lane=lane):
                found[outcome.picture.path] = outcome
                progress.advance(task)
                if as_json:
                    click.echo(json.dumps(_as_json(outcome), ensure_ascii=False))
    except KeyboardInterrupt:
        rest = len(pictures) - len(found)
        click.echo(f"Interrupted; {rest} of {len(pictures)} not finished. What was accepted goes on.", err=True)
        sys.exit(_INTERRUPTED)
    return [found[picture.path] for picture in pictures]


def _as_json(outcome: Outcome) -> dict[str, Any]:
    error = vars(outcome.failure) if outcome.failure else None
    return {
        "file": str(outcome.picture.path),
        "ok": outcome.is_good,
        "error": error,
        "job": dict(outcome.job.json) if outcome.job else None,
    }


def _show(outcomes: Sequence[Outcome], *, waited: bool) -> None:
    console = Console()
    rows = Table("file", "field", "value", "checks", header_style="bold", expand=False)
    rows.columns[1].no_wrap = True
    rows.columns[2].overflow = rows.columns[3].overflow = "fold"
    for outcome in outcomes:
        name = Text(str(outcome.picture.path), overflow="fold")
        if outcome.failure:
            rows.add_row(name, Text(outcome.failure.code, "red"), Text(outcome.failure.detail, "red"), "")
        elif outcome.job and outcome.job.result:
            _add_fields(rows, name, outcome.job.result)
        elif outcome.job:
            rows.add_row(name, outcome.job.status, Text(outcome.job.id, overflow="fold"), "")
        rows.add_section()
    console.print(rows)
    good = sum(outcome.is_good for outcome in outcomes)
    console.print(f"{good} of {len(outcomes)} {'recognized' if waited else 'accepted'}.", highlight=False)


def _add_fields(rows: Table, name: Text, result: Result) -> None:
    first: Text | str = name
    for field in result.fields.values():
        checks = [check for check in result.checks if field.name in check.fields]
        value = Text(field.value if field.value is not None else f"({field.status or 'none'})")
        if field.value is None:
            value.stylize("dim")
        rows.add_row(first, Text(field.label), value, _marks(checks))
        first = ""


def _marks(checks: Iterable[Check]) -> Text:
    """Each check that was made, with what is wrong."""
    marks = Text()
    for check in checks:
        if check.status not in ("passed", "failed"):
            continue
        if marks:
            marks.append("\n")
        if check.has_failed:
            color = "red" if check.severity == "error" else "yellow"
            marks.append(f"✗ {check.detail or check.code}", color)
        else:
            marks.append(f"✓ {check.code}", "green")
    return marks
