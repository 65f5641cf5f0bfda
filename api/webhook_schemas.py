"""Bodies of `/v1/webhook-endpoints` and `/v1/events`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, WithJsonSchema

from api.schemas import BatchId, Contract, DocumentTypeName, Time, split_commas, storable
from shared.domain.webhook import (
    OPT_IN,
    DeliveryStatus,
    DisabledReason,
    EndpointKind,
    EventType,
    Payload,
)
from shared.ids import is_id

MOST_ENDPOINTS = 200
LONGEST_OVERLAP_HOURS = 168


def _without_repetitions(values: list[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _not_ping(values: list[EventType]) -> list[EventType]:
    if EventType.WEBHOOK_PING in values:
        raise ValueError("webhook.ping is sent by pings alone")
    return values


def _delivery_id(value: str) -> str:
    if not is_id(value, "dlv"):
        raise ValueError("must be the `next` of an earlier page")
    return value


def _endpoint_id(value: str) -> str:
    if not is_id(value, "whe"):
        raise ValueError("must be the `next` of an earlier page")
    return value


def _job_id(value: str) -> str:
    if not is_id(value, "job"):
        raise ValueError("must be the id of a job")
    return value


_Url = Annotated[str, AfterValidator(storable), Field(min_length=1, max_length=2048)]
_EventTypes = Annotated[
    list[EventType],
    AfterValidator(_not_ping),
    AfterValidator(_without_repetitions),
    Field(min_length=1, description=f"Null: all but {' and '.join(OPT_IN)}, which have to be asked for."),
]
_DocumentTypes = Annotated[
    list[DocumentTypeName],
    AfterValidator(_without_repetitions),
    Field(min_length=1, description="Of jobs with these types only; null: all. Events without a type come anyhow."),
]
_Description = Annotated[str, AfterValidator(storable), Field(max_length=500)]
_JobId = Annotated[str, AfterValidator(_job_id)]


class EndpointRequest(Contract):
    """A webhook endpoint to register."""

    url: _Url = Field(description="An https address: public, without redirect; answers 2xx within 15 seconds.")
    description: _Description | None = None
    event_types: _EventTypes | None = None
    document_types: _DocumentTypes | None = None
    batch_id: BatchId | None = Field(None, description="Only events of this batch and its jobs.")
    payload: Payload = Field(Payload.THIN, description="`thin`: ids, states and links. `full`: the fields too.")


class EndpointPatch(Contract):
    """What to change; what is not named stays."""

    url: _Url | None = None
    description: _Description | None = None
    event_types: _EventTypes | None = None
    document_types: _DocumentTypes | None = None
    batch_id: BatchId | None = None
    payload: Payload | None = None


class RotationRequest(Contract):
    """How long the secret before goes on signing too."""

    overlap_hours: float = Field(24, ge=0, le=LONGEST_OVERLAP_HOURS)


class RecoveryRequest(Contract):
    """The time whose events are sent (again)."""

    since: AwareDatetime
    until: AwareDatetime | None = None
    after: Annotated[str, Field(pattern=r"^\d{1,18}$")] | None = Field(
        None, description="`next` of the answer before, to go on where it stopped."
    )


class EndpointListQuery(Contract):
    """Query of the list of endpoints."""

    limit: int = Field(50, ge=1, le=200)
    after: Annotated[str, AfterValidator(_endpoint_id)] | None = Field(None, description="`next` of the page before.")


class DeliveryListQuery(Contract):
    """Query of the deliveries to an endpoint."""

    status: DeliveryStatus | None = None
    event_type: EventType | None = None
    job_id: _JobId | None = None
    limit: int = Field(50, ge=1, le=200)
    after: Annotated[str, AfterValidator(_delivery_id)] | None = Field(None, description="`next` of the page before.")


class EventListQuery(Contract):
    """Query of the events."""

    after: Annotated[str, Field(pattern=r"^(latest|\d{1,18})$")] | None = Field(
        None, description="`next` of the answer before; `latest`: nothing that has been; none: from the first kept on."
    )
    types: Annotated[
        list[EventType],
        BeforeValidator(split_commas),
        WithJsonSchema({"type": "array", "items": {"type": "string"}}),
    ] = Field(default_factory=list, description="Only these, separated by commas.")
    payload: Payload = Payload.THIN
    limit: int = Field(100, ge=1, le=500)


class TriggerRequest(Contract):
    """An event to try receivers with; its data say `"test": true`."""

    type: Annotated[EventType, AfterValidator(lambda kind: _not_ping([kind])[0])]
    job_id: _JobId | None = Field(None, description="One of your jobs, for `job.…`; none: one that does not exist.")


class EndpointLinks(Contract):
    """Where to look next."""

    self: str
    deliveries: str


class EndpointView(Contract):
    """A webhook endpoint and how it does. `paused`: it failed several times in a row and gets a rest."""

    id: str
    object: Literal["webhook_endpoint"]
    kind: EndpointKind = Field(description="`job_urls`: stands for every `webhook_url` of your jobs at this host.")
    url: str
    description: str | None
    event_types: list[EventType]
    document_types: list[str] | None
    batch_id: str | None
    payload: Payload
    status: Literal["enabled", "paused", "disabled"]
    disabled_at: Time | None
    disabled_reason: DisabledReason | None
    paused_until: Time | None
    failing_since: Time | None
    failures: int = Field(description="In a row.")
    succeeded_at: Time | None = Field(description="The last delivery it took.")
    created_at: Time
    links: EndpointLinks


class NewEndpointView(EndpointView):
    """A new endpoint. The secret is shown this once."""

    secret: str = Field(description="`whsec_…`: verifies the signatures.")


class EndpointList(Contract):
    """Endpoints, newest first; `next` is null on the last page."""

    data: list[EndpointView]
    next: str | None


class SecretView(Contract):
    """A new secret, shown this once; until `previous_until` deliveries are signed with the one before too."""

    secret: str
    previous_until: Time


class PingView(Contract):
    """What came of a ping."""

    delivered: bool
    event_id: str
    status_code: int | None
    duration_ms: int
    error: str | None
    excerpt: str | None = Field(description="The first characters of the answer.")


class AttemptView(Contract):
    """One attempt. `excerpt`: the first characters of the answer."""

    at: Time
    duration_ms: int
    status_code: int | None
    error: str | None
    excerpt: str | None = None


class DeliveryView(Contract):
    """One event to one endpoint."""

    id: str
    object: Literal["delivery"]
    endpoint_id: str
    event_id: str = Field(description="The `webhook-id` of all its attempts.")
    event_type: EventType
    job_id: str | None
    status: DeliveryStatus
    next_attempt_at: Time | None = Field(description="While it is pending.")
    created_at: Time
    completed_at: Time | None
    attempts: list[AttemptView]


class DeliveryList(Contract):
    """Deliveries, newest first; `next` is null on the last page."""

    data: list[DeliveryView]
    next: str | None


class RecoveryView(Contract):
    """How many events are sent (again). While `next` is not null there is more: ask again with it as `after`."""

    recovered: int
    next: str | None


class EventBody(Contract):
    """Something that happened, as deliveries tell it."""

    type: EventType
    timestamp: str = Field(description="When it happened, RFC 3339, UTC.")
    data: dict[str, Any] = Field(description="Ids and states; with `payload: full` the fields too.")


class EventView(EventBody):
    """An event, pulled; `id` is the `webhook-id` of its deliveries."""

    id: str


class EventList(Contract):
    """Events in their order. `next` is always there: ask for what is after it."""

    data: list[EventView]
    next: str


class TriggeredView(Contract):
    """The event that was made."""

    id: str
    type: EventType
