"""What `kazheng doctor` found, and how it is shown."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rich.table import Table
from rich.text import Text


class State(StrEnum):
    """How one thing stands."""

    OK = "ok"
    """As it should be."""
    WRONG = "wrong"
    """Something does not work, or will not."""
    UNKNOWN = "unknown"
    """It could not be looked at, because of something else that is wrong."""


_COLORS = {State.OK: "green", State.WRONG: "bold red", State.UNKNOWN: "yellow"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: what was seen, and what to do when it is wrong."""

    what: str
    state: State
    seen: str
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {"what": self.what, "state": self.state.value, "seen": self.seen, "remedy": self.remedy or None}


def ok(what: str, seen: str) -> Finding:
    """A thing that is as it should be."""
    return Finding(what, State.OK, seen)


def wrong(what: str, seen: str, remedy: str) -> Finding:
    """A thing that needs somebody."""
    return Finding(what, State.WRONG, seen, remedy)


def unknown(what: str, because: str) -> Finding:
    """A thing that could not be looked at."""
    return Finding(what, State.UNKNOWN, because)


def table_of(findings: list[Finding]) -> Table:
    """The findings for people."""
    rows = Table("", "what", "seen", "what to do", header_style="bold", box=None, pad_edge=False)
    for finding in findings:
        state = Text(finding.state.value, _COLORS[finding.state])
        rows.add_row(state, Text(finding.what), Text(finding.seen, overflow="fold"), Text(finding.remedy))
    return rows
