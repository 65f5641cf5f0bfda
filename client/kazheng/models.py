"""What the API answers, typed.

Keys that are not known here are kept in `json` and otherwise ignored, and missing ones get a neutral value: a newer
or older server is no error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from kazheng.errors import JobFailedError, ResultNotReadyError

Json = Mapping[str, Any]

_UNFINISHED = frozenset({"queued", "processing"})


def json_text(value: Any) -> str | None:
    """A text, or None."""
    return None if value is None else str(value)


def json_mapping(value: Any) -> Json:
    """An object, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def json_number(value: Any) -> float | None:
    """A number, or None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def json_time(value: Any) -> datetime | None:
    """A moment (RFC 3339), or None."""
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


@dataclass(frozen=True)
class Field:
    """One field of a result.

    `value` is normalized (ISO dates, no spaces in numbers), `text` is as printed, `label` is the document's own name
    of the field. `confidence` is in [0, 1], None when unknown. `polygon` is 4 points (x, y), fractions of the upright
    image's width and height, origin top left, clockwise; only when geometry was asked for.
    """

    name: str
    value: str | None
    text: str | None = None
    label: str = ""
    confidence: float | None = None
    polygon: tuple[tuple[float, float], ...] | None = None
    status: str = ""
    source: str = ""

    @classmethod
    def from_json(cls, name: str, json: Json) -> Self:
        """Read one entry of `fields`."""
        polygon = json.get("polygon")
        return cls(
            name=name,
            value=json_text(json.get("value")),
            text=json_text(json.get("text")),
            label=json_text(json.get("label")) or name,
            confidence=json_number(json.get("confidence")),
            polygon=tuple((float(x), float(y)) for x, y in polygon) if polygon else None,
            status=json_text(json.get("status")) or "",
            source=json_text(json.get("source")) or "",
        )


@dataclass(frozen=True)
class Check:
    """One test of the fields' sense.

    `status` is `passed`, `failed` or `skipped`; `severity` is `error` (surely wrong) or `warning` (worth a look);
    `fields` names those it looked at.
    """

    code: str
    status: str
    severity: str = ""
    fields: tuple[str, ...] = ()
    detail: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether something is wrong with the fields it looked at."""
        return self.status == "failed"

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read one entry of `checks`."""
        return cls(
            code=json_text(json.get("code")) or "",
            status=json_text(json.get("status")) or "",
            severity=json_text(json.get("severity")) or "",
            fields=tuple(str(name) for name in _sequence(json.get("fields"))),
            detail=json_text(json.get("detail")) or "",
        )


@dataclass(frozen=True)
class Result:
    """What was read from one image."""

    fields: Mapping[str, Field]
    checks: tuple[Check, ...] = ()
    image: Json = field(default_factory=dict)
    provider: str | None = None
    account: str | None = None
    upstream_log_id: str | None = None
    json: Json = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read a result."""
        return cls(
            fields={
                name: Field.from_json(name, json_mapping(value))
                for name, value in json_mapping(json.get("fields")).items()
            },
            checks=tuple(Check.from_json(json_mapping(check)) for check in _sequence(json.get("checks"))),
            image=json_mapping(json.get("image")),
            provider=json_text(json.get("provider")),
            account=json_text(json.get("account")),
            upstream_log_id=json_text(json.get("upstream_log_id")),
            json=json,
        )


@dataclass(frozen=True)
class JobError:
    """Why a job has no result; `code` is for programs, `detail` says what to do."""

    code: str
    detail: str
    retryable: bool = False

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read the `error` of a job."""
        code = json_text(json.get("code")) or "unknown"
        return cls(code=code, detail=json_text(json.get("detail")) or code, retryable=bool(json.get("retryable")))


@dataclass(frozen=True)
class Job:
    """One image to be recognized as one document type.

    `status` is `queued`, `processing`, `succeeded`, `failed`, `canceled` or `expired`; the last four are final.
    `result` is there when it succeeded, `error` when it ended otherwise. `json` is the answer as it came. Neither
    `result` nor `json` is part of the job's `repr`, which ends up in logs.
    """

    id: str
    status: str
    document_type: str = ""
    options: Json = field(default_factory=dict)
    lane: str = ""
    waiting_on: str | None = None
    not_before: datetime | None = None
    client_reference_id: str | None = None
    metadata: Json = field(default_factory=dict)
    batch_id: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    timings_ms: Json = field(default_factory=dict)
    error: JobError | None = None
    billing: Json = field(default_factory=dict)
    result: Result | None = field(default=None, repr=False)
    json: Json = field(default_factory=dict, repr=False)

    @property
    def is_final(self) -> bool:
        """Whether the job never changes again."""
        return self.status not in _UNFINISHED

    @property
    def has_succeeded(self) -> bool:
        """Whether there is a result."""
        return self.status == "succeeded"

    def require_result(self) -> Result:
        """The result.

        Raises:
            JobFailedError: the job ended without one.
            ResultNotReadyError: the job has not ended.
        """
        if self.result is not None:
            return self.result
        if not self.is_final:
            raise ResultNotReadyError(self.id)
        error = self.error or JobError(self.status, f"There is no result; the job is {self.status}.")
        raise JobFailedError(self.id, error.code, error.detail, retryable=error.retryable)

    @classmethod
    def from_json(cls, json: Json) -> Self:
        """Read a job."""
        error, result = json.get("error"), json.get("result")
        return cls(
            id=str(json["id"]),
            status=str(json["status"]),
            document_type=json_text(json.get("document_type")) or "",
            options=json_mapping(json.get("options")),
            lane=json_text(json.get("lane")) or "",
            waiting_on=json_text(json.get("waiting_on")),
            not_before=json_time(json.get("not_before")),
            client_reference_id=json_text(json.get("client_reference_id")),
            metadata=json_mapping(json.get("metadata")),
            batch_id=json_text(json.get("batch_id")),
            created_at=json_time(json.get("created_at")),
            started_at=json_time(json.get("started_at")),
            completed_at=json_time(json.get("completed_at")),
            timings_ms=json_mapping(json.get("timings_ms")),
            error=JobError.from_json(error) if isinstance(error, Mapping) else None,
            billing=json_mapping(json.get("billing")),
            result=Result.from_json(result) if isinstance(result, Mapping) else None,
            json=json,
        )
