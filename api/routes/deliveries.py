"""`/v1/webhook-endpoints/{endpoint_id}/deliveries`: what was sent, and send it again."""

import time
from datetime import datetime
from http import HTTPStatus

from flask import Response, request

from api.bodies import read_object
from api.operations import Answer, Body, Operation
from api.presenting import to_json
from api.routes.webhook_endpoints import find_endpoint
from api.schemas import NoQuery
from api.services import services
from api.validation import validate, validate_query
from api.webhook_presenting import present_delivery
from api.webhook_schemas import DeliveryList, DeliveryListQuery, DeliveryView, RecoveryRequest, RecoveryView
from shared.database import delivery_log as rows
from shared.database.delivery_log import Delivery
from shared.database.endpoints import Endpoint
from shared.database.engine import transaction
from shared.domain.errors import DeliveryNotSendableError, EndpointDisabledError, NotFoundError
from shared.domain.webhook import DeliveryStatus, EndpointKind

_AT_ONCE = 500
# What is left is asked for again: a request must not outlast the patience of proxies.
_LONGEST_SECONDS = 15.0


def list_deliveries(endpoint_id: str) -> Response:
    """A page of the deliveries to an endpoint."""
    query = validate_query(DeliveryListQuery, request.args)
    endpoint = find_endpoint(endpoint_id)
    with transaction(services().engine) as connection:
        found = rows.list_deliveries(
            connection,
            endpoint.id,
            status=query.status,
            event_type=query.event_type,
            job_id=query.job_id,
            limit=query.limit + 1,
            after=query.after,
        )
    page = found[: query.limit]
    view = DeliveryList(
        data=[present_delivery(delivery) for delivery in page], next=page[-1].id if len(found) > query.limit else None
    )
    return Response(to_json(view), content_type="application/json")


def read_delivery(endpoint_id: str, delivery_id: str) -> Response:
    """One delivery with all its attempts."""
    validate_query(NoQuery, request.args)
    return _show(_find(find_endpoint(endpoint_id), delivery_id))


def resend_delivery(endpoint_id: str, delivery_id: str) -> Response:
    """Send a delivery once more, whatever became of it."""
    validate_query(NoQuery, request.args)
    endpoint = _sendable(endpoint_id)
    _find(endpoint, delivery_id)
    with transaction(services().engine) as connection:
        is_sent = rows.send_again(connection, endpoint.id, delivery_id, services().clock())
    delivery = _find(endpoint, delivery_id)
    if not is_sent:
        if delivery.status is DeliveryStatus.SENDING:
            raise DeliveryNotSendableError("The delivery is being sent. Ask again in some seconds.")
        raise DeliveryNotSendableError("Its job was erased, and nothing more is told of it.")
    return _show(delivery)


def recover_deliveries(endpoint_id: str) -> Response:
    """Send everything of a time that the endpoint wants and has not taken. Doing it twice sends nothing twice."""
    validate_query(NoQuery, request.args)
    asked = validate(RecoveryRequest, read_object(request))
    endpoint, now = _sendable(endpoint_id), services().clock()
    until = asked.until or now
    if endpoint.kind is EndpointKind.JOB_URLS:
        with transaction(services().engine) as connection:
            number = rows.recover_failed(connection, endpoint, since=asked.since, until=until, now=now)
        return _tell(RecoveryView(recovered=number, next=None))
    return _tell(_recover(endpoint, asked.since, until, now, after=int(asked.after or 0)))


def _recover(endpoint: Endpoint, since: datetime, until: datetime, now: datetime, *, after: int) -> RecoveryView:
    number, reached, stop_at = 0, after, time.monotonic() + _LONGEST_SECONDS
    while True:
        with transaction(services().engine) as connection:
            step = rows.recover(connection, endpoint, since=since, until=until, now=now, after=reached, most=_AT_ONCE)
        number += step.sent_again
        if step.last_position is None:
            return RecoveryView(recovered=number, next=None)
        reached = step.last_position
        if time.monotonic() > stop_at:
            return RecoveryView(recovered=number, next=str(reached))


def _sendable(endpoint_id: str) -> Endpoint:
    endpoint = find_endpoint(endpoint_id)
    if endpoint.disabled_at is not None:
        raise EndpointDisabledError("Nothing is sent to a disabled endpoint. Enable it first.")
    return endpoint


def _find(endpoint: Endpoint, delivery_id: str) -> Delivery:
    with transaction(services().engine) as connection:
        delivery = rows.get_delivery(connection, endpoint.id, delivery_id)
    if delivery is None:
        raise NotFoundError("There is no such delivery to this endpoint.")
    return delivery


def _show(delivery: Delivery) -> Response:
    return Response(to_json(present_delivery(delivery)), content_type="application/json")


def _tell(view: RecoveryView) -> Response:
    return Response(to_json(view), HTTPStatus.ACCEPTED, content_type="application/json")


_PATH = "/v1/webhook-endpoints/{endpoint_id}/deliveries"

OPERATIONS = (
    Operation(
        method="GET",
        path=_PATH,
        name="list_deliveries",
        summary="List deliveries to an endpoint, newest first",
        view=list_deliveries,
        query=DeliveryListQuery,
        answers={200: Answer("A page", DeliveryList)},
        errors=(NotFoundError,),
    ),
    Operation(
        method="GET",
        path=f"{_PATH}/{{delivery_id}}",
        name="read_delivery",
        summary="Read a delivery with its attempts",
        view=read_delivery,
        query=NoQuery,
        answers={200: Answer("The delivery", DeliveryView)},
        errors=(NotFoundError,),
    ),
    Operation(
        method="POST",
        path=f"{_PATH}/{{delivery_id}}/resend",
        name="resend_delivery",
        summary="Send a delivery once more",
        view=resend_delivery,
        query=NoQuery,
        answers={200: Answer("The delivery, pending again", DeliveryView)},
        errors=(NotFoundError, EndpointDisabledError, DeliveryNotSendableError),
    ),
    Operation(
        method="POST",
        path="/v1/webhook-endpoints/{endpoint_id}/recover",
        name="recover_deliveries",
        summary="Send everything that an endpoint has missed",
        description="Every event since then (until then) that it wants and has not taken: those of which all attempts "
        "failed, and those that came while it was disabled or before it was registered.",
        view=recover_deliveries,
        query=NoQuery,
        bodies=(Body("application/json", RecoveryRequest),),
        answers={202: Answer("How many are sent", RecoveryView)},
        errors=(NotFoundError, EndpointDisabledError),
    ),
)
