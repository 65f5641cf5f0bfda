"""What was read from a document."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

Point = tuple[float, float]


class FieldStatus(StrEnum):
    """What is known about a field."""

    READ = "read"
    """It was printed and read."""
    ABSENT = "absent"
    """The document does not have it, or nothing was found."""
    LONG_TERM = "long_term"
    """A date without an end (`长期`)."""
    UNPARSED = "unparsed"
    """It was read, but the text is no value of its kind; `value` is null."""


@dataclass(frozen=True)
class FieldValue:
    """One field of a result.

    `value` is normalized, `text` is as printed. `confidence` is in [0, 1], None when the vendor gives none. `polygon`
    is 4 points (x, y), fractions of the upright image's width and height, origin top left, clockwise. `source` says
    who the value comes from: `provider`.
    """

    value: str | None
    text: str | None
    label: str
    status: FieldStatus
    confidence: float | None = None
    polygon: tuple[Point, ...] | None = None
    source: str = "provider"

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> Self:
        """The field from the JSON values that `Recognition.fields_json` makes."""
        polygon = kept["polygon"]
        points = None if polygon is None else tuple((float(x), float(y)) for x, y in polygon)
        return cls(**{**kept, "status": FieldStatus(kept["status"]), "polygon": points})


class CheckStatus(StrEnum):
    """What a check found."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """A field it needs is missing."""


@dataclass(frozen=True)
class Check:
    """One test of the fields' sense: `severity` is `error` (surely wrong) or `warning` (worth a look)."""

    code: str
    status: CheckStatus
    severity: str
    fields: tuple[str, ...]
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The check as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Recognition:
    """What one successful upstream call says, in our words.

    `quality` and `risk` are there when the options asked for them.
    """

    fields: dict[str, FieldValue]
    upstream_log_id: str | None
    raw: dict[str, Any]
    quality: dict[str, Any] | None = None
    risk: dict[str, Any] | None = None

    def fields_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {name: asdict(value) for name, value in self.fields.items()}
