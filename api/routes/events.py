"""`/v1/events`: the events of deliveries, pulled; and events to try receivers with."""

from http import HTTPStatus
from typing import Any

from flask import Response, request

from api.auth import current_client
from api.bodies import read_object
from api.operations import Answer, Body, Operation
from api.presenting import to_json
from api.routes.jobs import find_job
from api.schemas import NoQuery
from api.services import services
from api.validation import validate, validate_query
from api.webhook_schemas import EventList, EventListQuery, EventView, TriggeredView, TriggerRequest
from shared.database import events as rows
from shared.database.engine import transaction
from shared.database.events import Event
from shared.database.payloads import event_body, load_contents
from shared.domain.errors import FieldError, InvalidRequestError, NotFoundError
from shared.domain.webhook import EventType, Payload

# The id of nothing: no job, batch or endpoint has it.
_NOTHING = "0" * 26
_NO_JOB = f"job_{_NOTHING}"
_NO_BATCH = f"bat_{_NOTHING}"


def list_events() -> Response:
    """What is after a place, in order."""
    query = validate_query(EventListQuery, request.args)
    with transaction(services().engine) as connection:
        if query.after == "latest":
            return _answer(EventList(data=[], next=str(rows.last_position(connection, current_client()))))
        after = int(query.after or 0)
        found = rows.list_events(connection, current_client(), after=after, limit=query.limit, types=query.types)
        job_ids = {event.job_id for event in found if event.job_id} if query.payload is Payload.FULL else set()
        contents = load_contents(connection, job_ids) if job_ids else {}
    reached = found[-1].position if found else after
    return _answer(EventList(data=[_present(event, contents) for event in found], next=str(reached)))


def _present(event: Event, contents: dict[str, dict[str, Any]]) -> EventView:
    return EventView(id=event.id, **event_body(event, contents))


def trigger_event() -> Response:
    """Make an event that did not happen, told like any other."""
    validate_query(NoQuery, request.args)
    asked = validate(TriggerRequest, read_object(request))
    subject, _, step = asked.type.partition(".")
    if asked.job_id is not None and subject != "job":
        raise InvalidRequestError([FieldError("/job_id", "goes with events of jobs alone")])
    document_type = "id_card" if asked.job_id is None else find_job(asked.job_id).document_type
    with transaction(services().engine) as connection:
        event_id = rows.record_event(
            connection,
            asked.type,
            _sample(asked.type, subject, step, asked.job_id, document_type),
            services().clock(),
            client_id=current_client(),
            job_id=asked.job_id,
        )
    return _answer(TriggeredView(id=event_id, type=asked.type), HTTPStatus.ACCEPTED)


def _sample(event_type: EventType, subject: str, step: str, job_id: str | None, document_type: str) -> dict[str, Any]:
    if subject == "job":
        said: dict[str, Any] = {"job_id": job_id or _NO_JOB, "status": step, "document_type": document_type}
        if event_type is EventType.JOB_FAILED:
            said["error_code"] = "blurred"
    elif subject == "batch":
        said = {"batch_id": _NO_BATCH, "counts": {"total": 0}}
    elif subject == "quota":
        said = {"account": "example", "endpoint": "idcard", "quota": "day"}
    else:
        said = {"endpoint_id": f"whe_{_NOTHING}", "reason": "failing"}
    return {**said, "test": True}


def _answer(view: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(to_json(view), status, content_type="application/json")


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/events",
        name="list_events",
        summary="Pull events, oldest first",
        description="For whoever can't be called. Keep `next` and ask for what is after it; nothing is left out, and "
        "nothing comes twice.",
        view=list_events,
        query=EventListQuery,
        answers={200: Answer("Events in their order", EventList)},
    ),
    Operation(
        method="POST",
        path="/v1/events",
        name="trigger_event",
        summary="Make an event to try receivers with",
        view=trigger_event,
        query=NoQuery,
        bodies=(Body("application/json", TriggerRequest),),
        answers={202: Answer("The event", TriggeredView)},
        errors=(NotFoundError,),
    ),
)
