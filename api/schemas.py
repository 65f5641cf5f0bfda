"""Request and response bodies: the public contract. They validate, and the OpenAPI document is made of them.

What a field may hold is said here once. Options depend on the document type, so the table of types checks those
(`api.validation`). Times are RFC 3339, UTC.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.job import JobStatus, Lane, WaitingOn
from shared.domain.result import CheckStatus, FieldStatus
from shared.domain.webhook import DeliveryStatus, EventType
from shared.ids import is_id

MAX_WAIT_SECONDS = 60
MAX_METADATA_PAIRS = 20
MAX_METADATA_KEY = 40
MAX_METADATA_VALUE = 500
MAX_IDS = 100


class Contract(BaseModel):
    """What all bodies share. Errors never quote what was sent: it may be somebody's name."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def _not_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004 - pydantic lists a ValueError
    return value


def storable(text: str) -> str:
    """Text that Postgres can keep."""
    if "\0" in text:
        raise ValueError("must not contain the character U+0000")
    return text


def _known_document_type(name: str) -> str:
    if name not in DOCUMENT_TYPES:
        raise ValueError(f"must be one of: {', '.join(DOCUMENT_TYPES)}")
    return name


def _small_metadata(pairs: dict[str, str]) -> dict[str, str]:
    if len(pairs) > MAX_METADATA_PAIRS:
        raise ValueError(f"must have at most {MAX_METADATA_PAIRS} pairs")
    if any(not 1 <= len(key) <= MAX_METADATA_KEY for key in pairs):
        raise ValueError(f"keys must have 1 to {MAX_METADATA_KEY} characters")
    if any(len(value) > MAX_METADATA_VALUE for value in pairs.values()):
        raise ValueError(f"values must have at most {MAX_METADATA_VALUE} characters")
    if any("\0" in key or "\0" in value for key, value in pairs.items()):
        raise ValueError("must not contain the character U+0000")
    return pairs


def split_commas(value: object) -> object:
    """The values of a parameter that takes several."""
    return value.split(",") if isinstance(value, str) else value


def _job_ids(values: list[str]) -> list[str]:
    if not all(is_id(value, "job") for value in values):
        raise ValueError("must be job ids separated by commas")
    return values


def _job_id(value: str) -> str:
    if not is_id(value, "job"):
        raise ValueError("must be the `next` of an earlier page")
    return value


def _batch_id(value: str) -> str:
    if not is_id(value, "bat"):
        raise ValueError("must be the id of a batch")
    return value


def _comma_list(items: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"type": "array", "items": items})


DocumentTypeName = Annotated[
    str,
    AfterValidator(_known_document_type),
    Field(description="What the image shows.", json_schema_extra={"enum": list(DOCUMENT_TYPES)}),
]
ClientReference = Annotated[
    str,
    AfterValidator(storable),
    Field(min_length=1, max_length=200, description="Your own name of the job, to find it again."),
]
Metadata = Annotated[
    dict[str, str],
    AfterValidator(_small_metadata),
    Field(
        description=f"Comes back with the job: at most {MAX_METADATA_PAIRS} pairs of strings, keys of at most "
        f"{MAX_METADATA_KEY} and values of at most {MAX_METADATA_VALUE} characters."
    ),
]
WebhookUrl = Annotated[
    str,
    AfterValidator(storable),
    Field(min_length=1, max_length=2048, description="An https address that is told of the end, signed; no redirect."),
]
BatchId = Annotated[str, AfterValidator(_batch_id)]
WaitSeconds = Annotated[
    int, Field(ge=0, le=MAX_WAIT_SECONDS, description="Answer when the job is final, or after so many seconds.")
]
Includes = Annotated[
    list[Literal["geometry", "raw"]],
    BeforeValidator(split_commas),
    _comma_list({"enum": ["geometry", "raw"]}),
]
Time = Annotated[
    datetime,
    PlainSerializer(lambda moment: moment.isoformat().replace("+00:00", "Z"), return_type=str, when_used="json"),
]


# Requests


class JobFields(Contract):
    """What is said about an image, whichever form the body has."""

    document_type: DocumentTypeName
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Options of the document type, see `GET /v1/document-types`.",
        examples=[{"side": "front"}],
    )
    lane: Lane = Field(Lane.INTERACTIVE, description="`interactive`: somebody is waiting. `bulk`: nobody is.")
    client_reference_id: ClientReference | None = None
    metadata: Metadata = Field(default_factory=dict)
    cache: bool = Field(
        True,
        description="Whether the answer of an earlier job of yours will do: same bytes, type and options.",
    )
    expires_in: Annotated[int, BeforeValidator(_not_bool)] | None = Field(
        None, ge=1, le=604_800, description="Seconds after which a job that has not started is not wanted any more."
    )

    webhook_url: WebhookUrl | None = None


class JobForm(JobFields):
    """A `multipart/form-data` body. `options` and `metadata` are JSON, or one part each: `options.side`."""

    image: Annotated[Any, WithJsonSchema({"type": "string", "contentMediaType": "application/octet-stream"})] = Field(
        description="The image, as a file."
    )


class JobRequest(JobFields):
    """A JSON body: exactly one of `image_base64` and `image_url`."""

    image_base64: str | None = Field(
        None, description="The image in base64, with or without `data:image/jpeg;base64,` before it."
    )
    image_url: str | None = Field(
        None,
        min_length=1,
        max_length=2048,
        description="An https address that gives the image: public, without redirect, within a few seconds.",
    )


class JobQuery(Contract):
    """Query of one job."""

    wait: WaitSeconds = 0


class ResultQuery(Contract):
    """Query of a result."""

    include: Includes = Field(
        default_factory=list, description="`geometry`: where each field is. `raw`: the provider's own answer."
    )


class JobListQuery(Contract):
    """Query of the list of jobs."""

    status: JobStatus | None = None
    document_type: DocumentTypeName | None = None
    client_reference_id: ClientReference | None = None
    batch_id: BatchId | None = None
    ids: Annotated[
        list[str],
        BeforeValidator(split_commas),
        AfterValidator(_job_ids),
        _comma_list({"type": "string"}),
    ] = Field(default_factory=list, max_length=MAX_IDS, description=f"At most {MAX_IDS} ids, separated by commas.")
    limit: int = Field(50, ge=1, le=200)
    after: Annotated[str, AfterValidator(_job_id)] | None = Field(
        None, description="`next` of the page before: the jobs after it follow."
    )


class ReadyQuery(Contract):
    """Query of readiness."""

    verbose: str | None = Field(None, description="Tell about every part.")


class NoQuery(Contract):
    """No parameter is known."""


# Responses


class FieldView(Contract):
    """One field. `value` is normalized, `text` as printed."""

    value: str | None
    text: str | None
    label: str
    status: FieldStatus
    confidence: float | None = Field(description="In [0, 1]; null when the provider gives none.")
    source: str
    polygon: list[tuple[float, float]] | None = Field(
        None,
        description="4 points (x, y), fractions of the upright image, origin top left, clockwise; with "
        "`include=geometry` only.",
    )


class CheckView(Contract):
    """One test of the fields' sense. `error`: surely wrong; `warning`: worth a look."""

    code: str
    status: CheckStatus
    severity: str
    fields: list[str]
    detail: str


class ResultView(Contract):
    """What was read."""

    fields: dict[str, FieldView]
    checks: list[CheckView]
    image: dict[str, Any] = Field(description="`width`, `height`, `sha256`, `quality`, `risk`.")
    provider: str
    account: str
    upstream_log_id: str | None
    raw: dict[str, Any] | None = Field(None, description="The provider's own answer; with `include=raw` only.")


class QueueView(Contract):
    """Where a queued job stands. `position` counts from 1; null in lists."""

    position: int | None
    estimated_start_at: Time | None


class TimingsView(Contract):
    """Milliseconds: until a worker took it, waiting for permits, in calls, and from acceptance to the end."""

    queue: int | None
    throttle: int
    upstream: int
    total: int | None


class JobErrorView(Contract):
    """Why there is no result; `retryable`: the same image may succeed when it is sent again."""

    code: str
    detail: str
    retryable: bool
    billed: bool


class BillingView(Contract):
    """What the job cost: calls made, calls the provider bills.

    `cache_hit`: it was answered from an earlier, equal job of yours, `cache_source`.
    """

    calls: int
    billed: int
    cache_hit: bool
    cache_source: str | None


class LinksView(Contract):
    """Where to look next; `image` is null once it is erased."""

    self: str
    result: str
    image: str | None


class JobDeliveryView(Contract):
    """What one endpoint was, or is to be, told of the job."""

    id: str
    endpoint_id: str
    event_type: EventType
    status: DeliveryStatus
    attempts: int
    next_attempt_at: Time | None


class JobView(Contract):
    """One image to be recognized as one document type."""

    id: str
    object: Literal["job"]
    document_type: str
    options: dict[str, str | bool]
    lane: Lane
    status: JobStatus
    waiting_on: WaitingOn | None
    not_before: Time | None
    queue: QueueView | None = Field(description="While queued.")
    client_reference_id: str | None
    metadata: dict[str, str]
    batch_id: str | None
    attempts: int
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    timings_ms: TimingsView
    error: JobErrorView | None
    billing: BillingView
    result: ResultView | None = Field(description="When it succeeded and is not erased.")
    webhook_url: str | None
    deliveries: list[JobDeliveryView] | None = Field(None, description="The first 20; not in lists.")
    links: LinksView


class JobList(Contract):
    """Jobs, newest first; `next` is null on the last page."""

    data: list[JobView]
    next: str | None


class FieldErrorView(Contract):
    """One wrong field: a JSON pointer into the request, and what is wrong."""

    pointer: str
    detail: str


class JobErrorCodeView(Contract):
    """Why the job has no result."""

    code: str
    detail: str


class Problem(Contract):
    """RFC 9457 problem document. Programs act on `code`; people read `detail`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    retryable: bool = Field(description="Whether the same request may succeed later.")
    request_id: str
    errors: list[FieldErrorView] | None = None
    job_error: JobErrorCodeView | None = Field(None, description="With `result_not_available`.")


class Liveness(Contract):
    """The process answers."""

    status: Literal["alive"]


class Readiness(Contract):
    """Whether requests can be served; what is wrong is named in `failing`."""

    status: Literal["ready", "not_ready"]
    failing: list[str]
    checks: dict[str, str] | None = Field(None, description="Every part, with `?verbose`.")
    warnings: list[str] | None = Field(None, description="What needs the operator but stops no request.")
