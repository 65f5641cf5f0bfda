"""Shows, in one terminal, what many processes write to their log files.

Children write to files (through supervisord, which rotates them), and the files are followed here: what scrolls by is
never the only copy. By default only what wants attention is shown, that is WARNING and above with what follows it (a
traceback); the form of a line is recognized from the programs in the stack.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.text import Text

_COLORS = ("cyan", "green", "magenta", "blue", "yellow", "bright_cyan", "bright_green", "bright_magenta", "bright_blue")
_ALARMING = {"WARNING", "WARN", "ERROR", "CRITICAL", "FATAL", "PANIC"}
_LEVELS = (
    re.compile(
        r"^\[[^]]*?\s*(DEBUG|INFO|WARNING|ERROR|CRITICAL)[/\]]"
    ),  # Celery: [2026-01-01 00:00:00,0: WARNING/Main]
    re.compile(r"^\[[^]]*\] \[\d+\] \[(DEBUG|INFO|WARNING|ERROR|CRITICAL)\]"),  # gunicorn
    re.compile(r"^\S+ \S+ \S+ \[\d+\] (DEBUG\d?|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC|HINT|DETAIL):"),  # PostgreSQL
    re.compile(r"^\[([DIWEC]) \d{6} "),  # Tornado, under Flower
)
_TORNADO = {"D": "DEBUG", "I": "INFO", "W": "WARNING", "E": "ERROR", "C": "CRITICAL"}
_VALKEY = re.compile(r"^\d+:[A-Z] .* #")


class LogFollower:
    """Follows the logs of several processes from where they end now."""

    def __init__(self, paths: Mapping[str, Path], console: Console, *, everything: bool) -> None:
        """Reads nothing yet.

        Args:
            paths: log file of each process, by its name; a file may appear later.
            everything: show all lines, not only warnings and errors.
        """
        self._console = console
        self._everything = everything
        width = max(map(len, paths), default=0)
        self._files = [
            (_File(path), Text(f"{name:<{width}} │ ", _COLORS[i % len(_COLORS)]))
            for i, (name, path) in enumerate(paths.items())
        ]

    def show_new(self) -> None:
        """Print what was written since the last time."""
        for file, prefix in self._files:
            for line in file.new_lines():
                shown = line_for_people(line)
                if is_alarming(line) is not None:
                    file.alarming = bool(is_alarming(line))
                if line.strip() and (self._everything or file.alarming):
                    # As text: a line from a log is not markup, and must not move the cursor.
                    self._console.print(prefix + Text(_printable(shown)), soft_wrap=True, highlight=False)


class _File:
    """One log file, followed through rotations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size if path.exists() else 0
        self._inode = path.stat().st_ino if path.exists() else 0
        self._rest = b""
        self.alarming = False

    def new_lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                found = self._path.stat()
                if found.st_ino != self._inode or found.st_size < self._position:  # rotated: go on at the new start
                    self._inode, self._position = found.st_ino, 0
                file.seek(self._position)
                data = file.read(1_000_000)
        except FileNotFoundError:
            return []
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in lines]


def is_alarming(line: str) -> bool | None:
    """Whether a line is a warning or worse; None when it does not say, and so belongs to the line before it."""
    if line.startswith("{"):
        try:
            return str(json.loads(line).get("level", "")).upper() in _ALARMING
        except ValueError:
            return None
    for pattern in _LEVELS:
        if match := pattern.match(line):
            return _TORNADO.get(match[1], match[1]) in _ALARMING
    if re.match(r"^\d+:[A-Z] ", line):
        # Valkey marks notices with * and warnings with #, and also says with # that it begins and ends.
        return bool(_VALKEY.match(line)) and "warning" in line.lower()
    return None


def line_for_people(line: str) -> str:
    """A structured line as `12:00:00 warning publish_failed task=…`; any other as it is."""
    if not line.startswith("{"):
        return line
    try:
        fields = json.loads(line)
        clock = str(fields.pop("timestamp", ""))[11:19]
        level, event = fields.pop("level", ""), fields.pop("event", "")
    except (ValueError, AttributeError):
        return line
    trace = fields.pop("exception", None)
    for name in ("logger", "process"):  # the prefix says it
        fields.pop(name, None)
    words = [clock, level, event, *(f"{name}={value}" for name, value in fields.items())]
    return " ".join(str(word) for word in words if word) + (f"\n{trace}" if trace else "")


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in line)
