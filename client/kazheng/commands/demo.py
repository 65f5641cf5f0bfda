"""The demo: recognizes the sample pictures and compares every field with what they really say."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kazheng.commands.failures import CommandError
from kazheng.commands.recognizing import Outcome, Picture, open_client, progress_bar, recognize
from shared.settings import Settings

_FOLDER = "samples"
_LIST = "expected.json"
# All samples at once on two cores, right after the models were loaded.
_TIMEOUT_SECONDS = 180.0


@dataclass(frozen=True)
class Sample:
    """A picture and what it says: field names with their normalized values, None where it says nothing."""

    picture: Picture
    fields: dict[str, str | None]


@dataclass(frozen=True)
class FieldVerdict:
    """One field that was asked for, beside what was read."""

    label: str
    expected: str | None
    read: str | None
    is_right: bool


def run_demo(settings: Settings) -> bool:
    """Recognize the samples and show how well; False if one failed or a field differs.

    Raises:
        CommandError: the samples are not there.
        KazhengError: the API refuses the key.
    """
    samples = load_samples(find_samples())
    console = Console()
    found: dict[Path, Outcome] = {}
    pictures = [sample.picture for sample in samples]
    with (
        open_client(settings) as client,
        progress_bar(console, "Recognizing the samples", len(samples)) as (progress, task),
    ):
        for outcome in recognize(client, pictures, wait=True, timeout_seconds=_TIMEOUT_SECONDS):
            found[outcome.picture.path] = outcome
            progress.advance(task)
    return _show(console, samples, [found[sample.picture.path] for sample in samples])


def find_samples() -> Path:
    """The folder of the samples: in the working directory, or where this code was checked out.

    Raises:
        CommandError: there is none.
    """
    candidates = [Path(_FOLDER), Path(__file__).resolve().parents[3] / _FOLDER]
    for folder in candidates:
        if (folder / _LIST).is_file():
            return folder
    raise CommandError(
        f"There is no {_FOLDER}/{_LIST} here. The sample pictures come with the repository: run this from its folder."
    )


def load_samples(folder: Path) -> list[Sample]:
    """The samples of a folder.

    Raises:
        CommandError: their list can't be read, or a picture is missing.
    """
    try:
        entries: list[dict[str, Any]] = json.loads((folder / _LIST).read_text(encoding="utf-8"))
        samples = [
            Sample(
                Picture(folder / entry["file"], entry["document_type"], entry.get("options") or {}),
                entry["fields"],
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"{folder / _LIST} can't be read ({type(error).__name__}).") from error
    missing = [str(sample.picture.path) for sample in samples if not sample.picture.path.is_file()]
    if missing:
        raise CommandError(f"Sample pictures are missing: {', '.join(missing)}.")
    if not samples:
        raise CommandError(f"{folder / _LIST} names no picture.")
    return samples


def judge(sample: Sample, outcome: Outcome) -> list[FieldVerdict]:
    """Every field that was asked for; values are compared as they are, a picture that failed has none right."""
    result = outcome.job.result if outcome.job and outcome.is_good else None
    verdicts = []
    for name, expected in sample.fields.items():
        field = result.fields.get(name) if result else None
        read = field.value if field else None
        # A field that is not there at all is wrong even where nothing was expected of it.
        is_right = field is not None and read == expected
        verdicts.append(FieldVerdict(field.label if field else name, expected, read, is_right))
    return verdicts


def _show(console: Console, samples: list[Sample], outcomes: list[Outcome]) -> bool:
    rows = Table("picture", "field", "value", "", "ms", header_style="bold")
    rows.columns[0].overflow = rows.columns[2].overflow = "fold"
    rows.columns[1].no_wrap = rows.columns[3].no_wrap = True
    rows.columns[-1].justify = "right"
    right = asked = 0
    for sample, outcome in zip(samples, outcomes, strict=True):
        verdicts = judge(sample, outcome)
        right += sum(verdict.is_right for verdict in verdicts)
        asked += len(verdicts)
        _add_picture(rows, sample, outcome, verdicts)
        rows.add_section()
    console.print(rows)
    recognized = sum(outcome.is_good for outcome in outcomes)
    passed = recognized == len(outcomes) and right == asked
    summary = f"{recognized} of {len(outcomes)} pictures recognized, {right} of {asked} fields right."
    console.print(Text(summary, "bold green" if passed else "bold red"))
    return passed


def _add_picture(rows: Table, sample: Sample, outcome: Outcome, verdicts: list[FieldVerdict]) -> None:
    side = sample.picture.options.get("side")
    kind = f"{sample.picture.document_type} {side}" if side else sample.picture.document_type
    # The type stands under the name, beside the second field, so that values have room on a narrow screen.
    heads = iter([Text(sample.picture.path.name), Text(kind, "dim")])
    milliseconds = str(outcome.milliseconds)
    if outcome.failure:
        head = Text("\n").join(heads)
        detail = f"{outcome.failure.code}: {outcome.failure.detail}"
        rows.add_row(head, "", Text(detail, "red"), Text("✗", "red"), milliseconds)
        return
    for verdict in verdicts:
        mark = Text("✓", "green") if verdict.is_right else Text("✗", "red")
        rows.add_row(next(heads, Text()), Text(verdict.label), _difference(verdict), mark, milliseconds)
        milliseconds = ""


def _difference(verdict: FieldVerdict) -> Text:
    """The value; where it is wrong, what it should be, too."""
    read = "none" if verdict.read is None else verdict.read
    if verdict.is_right:
        return Text(read, "dim" if verdict.read is None else "")
    expected = "none" if verdict.expected is None else verdict.expected
    return Text.assemble((read, "red"), "\n", (f"expected {expected}", "yellow"))
