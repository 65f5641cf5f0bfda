"""The text of a picture as layout rules see it: lines, rows of lines, and spans of their characters.

Two frames of coordinates, always named:
- image: pixels of the image as sent, origin top left, x to the right, y down; locations are answered in it.
- page: the text turned upright and leveled, so that a row of print has one y; rules compare positions in it.

Plain Python on purpose: rules are tested with tables of lines, without models.
"""

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
Quad: TypeAlias = tuple[Point, Point, Point, Point]
"""Four corners as one reads: start above, end above, end below, start below."""

NOWHERE = {"left": 0, "top": 0, "width": 0, "height": 0}
_WIDE = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\u3000-\u303f]")


@dataclass(frozen=True)
class Box:
    """An upright rectangle in the page frame."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        """Height of the print, about."""
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        """The y halfway down."""
        return (self.top + self.bottom) / 2


@dataclass(frozen=True)
class Line:
    """One piece of text that was detected and read as a whole.

    Attributes:
        text: as read, spaces left out.
        score: confidence of the reading, 0 to 1.
        box: where it is, page frame.
        quad: where it is, image frame.
        spaced: as read, spaces kept; empty if there are none.
    """

    text: str
    score: float
    box: Box
    quad: Quad
    spaced: str = ""

    @property
    def printed(self) -> str:
        """The text with its spaces."""
        return self.spaced or self.text

    def part(self, start: int, end: int) -> "Line":
        """Characters `start` to `end` as a line of their own, its place estimated from the widths of characters."""
        if (start, end) == (0, len(self.text)):
            return self
        widths = [2.0 if _WIDE.match(char) else 1.0 for char in self.text]
        total = sum(widths) or 1.0
        first, last = sum(widths[:start]) / total, sum(widths[:end]) / total
        width = self.box.right - self.box.left
        a, b, c, d = self.quad
        return Line(
            self.text[start:end],
            self.score,
            Box(self.box.left + first * width, self.box.top, self.box.left + last * width, self.box.bottom),
            (_between(a, b, first), _between(a, b, last), _between(d, c, last), _between(d, c, first)),
        )


def _between(start: Point, end: Point, share: float) -> Point:
    return (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)


@dataclass(frozen=True)
class Words:
    """A field's text and the lines it came from."""

    text: str
    lines: tuple[Line, ...] = ()

    @property
    def location(self) -> dict[str, int]:
        """The upright rectangle around it, image frame; all zero if it is nowhere."""
        points = [point for line in self.lines for point in line.quad]
        if not points:
            return dict(NOWHERE)
        left, top = round(min(x for x, _ in points)), round(min(y for _, y in points))
        return {
            "left": left,
            "top": top,
            "width": round(max(x for x, _ in points)) - left,
            "height": round(max(y for _, y in points)) - top,
        }

    def reading(self, text: str) -> "Words":
        """The same place with its text normalized."""
        return Words(text, self.lines)


NO_WORDS = Words("")


def join(lines: Iterable[Line]) -> Words:
    """Lines one after the other, as one field."""
    kept = tuple(lines)
    return Words("".join(line.text for line in kept), kept)


@dataclass(frozen=True)
class Row:
    """Lines beside each other, from left to right, and their text run together."""

    lines: tuple[Line, ...]
    text: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", "".join(line.text for line in self.lines))

    @property
    def middle(self) -> float:
        """The y halfway down, page frame."""
        return statistics.fmean(line.box.middle for line in self.lines)

    @property
    def height(self) -> float:
        """Height of its print, page frame."""
        return statistics.median(line.box.height for line in self.lines)

    def span(self, start: int, end: int | None = None) -> Words:
        """Characters `start` to `end` of its text."""
        return join(self._parts(start, len(self.text) if end is None else end))

    def run(self, start: int, end: int | None = None, *, widest_gap: float = 2.0) -> Words:
        """Characters from `start` until a gap, wider than `widest_gap` heights, that parts two lines."""
        kept: list[Line] = []
        for part in self._parts(start, len(self.text) if end is None else end):
            if kept and part.box.left - kept[-1].box.right > widest_gap * part.box.height:
                break
            kept.append(part)
        return join(kept)

    def _parts(self, start: int, end: int) -> Iterator[Line]:
        offset = 0
        for line in self.lines:
            first, last = max(start - offset, 0), min(end - offset, len(line.text))
            if first < last:
                yield line.part(first, last)
            offset += len(line.text)


@dataclass(frozen=True)
class Page:
    """All text of a picture.

    Attributes:
        lines: from top to bottom, page frame.
        direction: how the image is turned, in the vendor's numbers: 0 upright, 1 by 90° counterclockwise, 2 by 180°,
            3 by 270° counterclockwise; -1 if there is no text to tell by.
    """

    lines: tuple[Line, ...] = ()
    direction: int = -1

    @property
    def rows(self) -> list[Row]:
        """Its rows, from top to bottom."""
        return make_rows(self.lines)

    @property
    def confidence(self) -> float:
        """Mean score of its lines, 0 if there are none."""
        return statistics.fmean(line.score for line in self.lines) if self.lines else 0.0

    @property
    def text(self) -> str:
        """All rows, a line break between them."""
        return "\n".join(row.text for row in self.rows)


def make_rows(lines: Sequence[Line]) -> list[Row]:
    """Group lines that stand beside each other.

    A line joins the row whose middle is within half the smaller height of its own, so that the lines of two columns
    with different pitch stay apart.
    """
    groups: list[list[Line]] = []
    for line in sorted(lines, key=lambda each: each.box.middle):
        best: list[Line] | None = None
        best_distance = float("inf")
        for group in groups:
            middle = statistics.fmean(each.box.middle for each in group)
            height = min(line.box.height, statistics.median(each.box.height for each in group))
            distance = abs(line.box.middle - middle)
            if distance < height * 0.5 and distance < best_distance:
                best, best_distance = group, distance
        if best is None:
            groups.append([line])
        else:
            best.append(line)
    rows = [Row(tuple(sorted(group, key=lambda each: each.box.left))) for group in groups]
    return sorted(rows, key=lambda row: row.middle)
