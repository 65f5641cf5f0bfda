"""`/v1/webhook-endpoints`: where events are sent."""

import threading
from contextlib import closing
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from flask import Response, request

from api.auth import current_client
from api.bodies import read_object
from api.operations import Answer, Body, Operation
from api.presenting import to_json
from api.schemas import NoQuery
from api.services import services
from api.validation import validate, validate_query
from api.webhook_presenting import endpoint_path, endpoint_values, present_endpoint
from api.webhook_schemas import (
    MOST_ENDPOINTS,
    EndpointList,
    EndpointListQuery,
    EndpointPatch,
    EndpointRequest,
    EndpointView,
    NewEndpointView,
    PingView,
    RotationRequest,
    SecretView,
)
from api.webhook_urls import check_webhook_url
from shared.database import endpoints as rows
from shared.database.batches import get_batch
from shared.database.endpoints import Endpoint
from shared.database.engine import transaction
from shared.domain.errors import (
    BusyError,
    EndpointKindError,
    EndpointLimitError,
    FieldError,
    InvalidRequestError,
    NotFoundError,
    SigningSecretUnreadableError,
)
from shared.domain.webhook import DisabledReason, EndpointKind, EventType, Verdict
from shared.ids import new_id
from shared.outbound import OutboundPolicy
from shared.sending import Sender

# Each holds a thread of the API while the receiver is waited for.
_pings = threading.BoundedSemaphore(8)


def create_endpoint() -> Response:
    """Register an endpoint; the only answer that holds its secret."""
    validate_query(NoQuery, request.args)
    asked = validate(EndpointRequest, read_object(request))
    check_webhook_url(asked.url, services().settings, field="url")
    values, client_id, now = asked.model_dump(mode="json"), current_client(), services().clock()
    with transaction(services().engine) as connection:
        _check_batch(connection, asked.batch_id)
        if rows.count_registered(connection, client_id) >= MOST_ENDPOINTS:
            raise EndpointLimitError(f"There are {MOST_ENDPOINTS} endpoints already, and no more may be. Delete some.")
        endpoint = rows.insert_endpoint(connection, client_id, now, **values)
        secret = rows.ensure_secret(connection, endpoint.id, services().settings.require_secret_key())
    view = NewEndpointView(**endpoint_values(endpoint, now), secret=secret or "")
    answer = _answer(view, HTTPStatus.CREATED)
    answer.headers["Location"] = endpoint_path(endpoint.id)
    return answer


def list_endpoints() -> Response:
    """A page of the client's endpoints."""
    query, now = validate_query(EndpointListQuery, request.args), services().clock()
    with transaction(services().engine) as connection:
        found = rows.list_endpoints(connection, current_client(), limit=query.limit + 1, after=query.after)
    page = found[: query.limit]
    return _answer(
        EndpointList(
            data=[present_endpoint(endpoint, now) for endpoint in page],
            next=page[-1].id if len(found) > query.limit else None,
        )
    )


def read_endpoint(endpoint_id: str) -> Response:
    """One endpoint, and how it does."""
    validate_query(NoQuery, request.args)
    return _show(endpoint_id)


def change_endpoint(endpoint_id: str) -> Response:
    """Give an endpoint other values; those not named stay."""
    validate_query(NoQuery, request.args)
    given = read_object(request)
    asked = validate(EndpointPatch, given)
    wrong = [FieldError(f"/{name}", "must not be null") for name in ("url", "payload") if given.get(name, "") is None]
    if wrong:
        raise InvalidRequestError(wrong)
    endpoint = find_endpoint(endpoint_id)
    check_webhook_url(asked.url, services().settings, field="url")
    if endpoint.kind is EndpointKind.JOB_URLS and given.keys() - {"payload", "description"}:
        raise EndpointKindError("Of an endpoint that stands for webhook_url only payload and description can be set.")
    values = {name: value for name, value in asked.model_dump(mode="json").items() if name in given}
    with transaction(services().engine) as connection:
        _check_batch(connection, asked.batch_id)
        rows.change_endpoint(connection, endpoint_id, values, client_id=current_client())
    return _show(endpoint_id)


def delete_endpoint(endpoint_id: str) -> Response:
    """Forget an endpoint and what was to be sent to it."""
    validate_query(NoQuery, request.args)
    find_endpoint(endpoint_id)
    with transaction(services().engine) as connection:
        rows.delete_endpoint(connection, endpoint_id, client_id=current_client(), now=services().clock())
    return Response(status=HTTPStatus.NO_CONTENT)


def enable_endpoint(endpoint_id: str) -> Response:
    """Send again: what waits goes on by its schedule, `recover` brings the rest. Doing it twice changes nothing."""
    validate_query(NoQuery, request.args)
    find_endpoint(endpoint_id)
    with transaction(services().engine) as connection:
        rows.enable_endpoint(connection, endpoint_id, client_id=current_client())
    return _show(endpoint_id)


def disable_endpoint(endpoint_id: str) -> Response:
    """Send nothing more until it is enabled. Doing it twice changes nothing."""
    validate_query(NoQuery, request.args)
    if find_endpoint(endpoint_id).kind is EndpointKind.JOB_URLS:
        raise EndpointKindError("It stands for the webhook_url of your jobs; leave that out, or delete the endpoint.")
    with transaction(services().engine) as connection:
        rows.disable_endpoint(connection, endpoint_id, DisabledReason.CLIENT, services().clock())
    return _show(endpoint_id)


def rotate_endpoint_secret(endpoint_id: str) -> Response:
    """Another secret."""
    validate_query(NoQuery, request.args)
    return _rotate(find_endpoint(endpoint_id).secret_owner)


def rotate_client_secret() -> Response:
    """Another secret for every `webhook_url` of the client's jobs and batches."""
    validate_query(NoQuery, request.args)
    return _rotate(current_client())


def ping_endpoint(endpoint_id: str) -> Response:
    """Send a `webhook.ping` at once, and report."""
    validate_query(NoQuery, request.args)
    endpoint, settings = find_endpoint(endpoint_id), services().settings
    if endpoint.kind is EndpointKind.JOB_URLS:
        raise EndpointKindError("It stands for the webhook_url of your jobs; there is no one address to ping.")
    event_id, now = new_id("evt"), services().clock()
    body = {"type": EventType.WEBHOOK_PING, "timestamp": now.isoformat(), "data": {"endpoint_id": endpoint.id}}
    with transaction(services().engine) as connection:
        secrets = rows.signing_secrets(connection, endpoint.id, settings.require_secret_key(), now)
    if not _pings.acquire(blocking=False):
        raise BusyError("Too many pings are being sent at the moment. Try again in a few seconds.")
    try:
        with closing(Sender(OutboundPolicy.of(settings), deadline_seconds=settings.webhook_timeout_seconds)) as sender:
            outcome = sender.send(endpoint.url, secrets, event_id, body, now)
    finally:
        _pings.release()
    return _answer(
        PingView(
            delivered=outcome.verdict is Verdict.DELIVERED,
            event_id=event_id,
            status_code=outcome.status_code,
            duration_ms=outcome.duration_ms,
            error=outcome.error,
            excerpt=outcome.excerpt,
        )
    )


def find_endpoint(endpoint_id: str) -> Endpoint:
    """The client's endpoint.

    Raises:
        NotFoundError: there is none, or it is another client's.
    """
    with transaction(services().engine) as connection:
        endpoint = rows.get_endpoint(connection, endpoint_id, client_id=current_client())
    if endpoint is None:
        raise NotFoundError("There is no such endpoint.")
    return endpoint


def _rotate(owner_id: str) -> Response:
    asked = validate(RotationRequest, read_object(request, may_be_empty=True))
    until = services().clock() + timedelta(hours=asked.overlap_hours)
    with transaction(services().engine) as connection:
        secret_key = services().settings.require_secret_key()
        secret = rows.rotate_secret(connection, owner_id, secret_key, previous_until=until)
    return _answer(SecretView(secret=secret, previous_until=until))


def _check_batch(connection: Any, batch_id: str | None) -> None:
    if batch_id is not None and get_batch(connection, batch_id, client_id=current_client()) is None:
        raise InvalidRequestError([FieldError("/batch_id", "is no batch of yours")])


def _show(endpoint_id: str) -> Response:
    return _answer(present_endpoint(find_endpoint(endpoint_id), services().clock()))


def _answer(view: Any, status: HTTPStatus = HTTPStatus.OK) -> Response:
    answer = Response(to_json(view), status, content_type="application/json")
    answer.headers["Cache-Control"] = "no-store"
    return answer


_PATH = "/v1/webhook-endpoints"
_ONE = f"{_PATH}/{{endpoint_id}}"

OPERATIONS = (
    Operation(
        method="POST",
        path=_PATH,
        name="create_webhook_endpoint",
        summary="Register a webhook endpoint",
        description="Deliveries are signed by the Standard Webhooks specification. The answer alone holds the secret.",
        view=create_endpoint,
        query=NoQuery,
        bodies=(Body("application/json", EndpointRequest),),
        answers={201: Answer("The endpoint, and its secret", NewEndpointView, headers=("Location",))},
        errors=(EndpointLimitError,),
    ),
    Operation(
        method="GET",
        path=_PATH,
        name="list_webhook_endpoints",
        summary="List webhook endpoints, newest first",
        view=list_endpoints,
        query=EndpointListQuery,
        answers={200: Answer("A page", EndpointList)},
    ),
    Operation(
        method="GET",
        path=_ONE,
        name="read_webhook_endpoint",
        summary="Read a webhook endpoint, and how it does",
        view=read_endpoint,
        query=NoQuery,
        answers={200: Answer("The endpoint", EndpointView)},
        errors=(NotFoundError,),
    ),
    Operation(
        method="PATCH",
        path=_ONE,
        name="change_webhook_endpoint",
        summary="Change a webhook endpoint",
        view=change_endpoint,
        query=NoQuery,
        bodies=(Body("application/json", EndpointPatch),),
        answers={200: Answer("The endpoint", EndpointView)},
        errors=(NotFoundError, EndpointKindError),
    ),
    Operation(
        method="DELETE",
        path=_ONE,
        name="delete_webhook_endpoint",
        summary="Delete a webhook endpoint",
        view=delete_endpoint,
        query=NoQuery,
        answers={204: Answer("Deleted")},
        errors=(NotFoundError,),
    ),
    Operation(
        method="POST",
        path=f"{_ONE}/enable",
        name="enable_webhook_endpoint",
        summary="Send to an endpoint again",
        view=enable_endpoint,
        query=NoQuery,
        answers={200: Answer("The endpoint", EndpointView)},
        errors=(NotFoundError,),
    ),
    Operation(
        method="POST",
        path=f"{_ONE}/disable",
        name="disable_webhook_endpoint",
        summary="Send nothing to an endpoint",
        view=disable_endpoint,
        query=NoQuery,
        answers={200: Answer("The endpoint", EndpointView)},
        errors=(NotFoundError, EndpointKindError),
    ),
    Operation(
        method="POST",
        path=f"{_ONE}/ping",
        name="ping_webhook_endpoint",
        summary="Send a ping at once, and report what came of it",
        view=ping_endpoint,
        query=NoQuery,
        answers={200: Answer("The report, whether it was delivered or not", PingView)},
        errors=(NotFoundError, EndpointKindError, SigningSecretUnreadableError, BusyError),
    ),
    Operation(
        method="POST",
        path=f"{_ONE}/rotate-secret",
        name="rotate_webhook_endpoint_secret",
        summary="Make another signing secret",
        view=rotate_endpoint_secret,
        query=NoQuery,
        bodies=(Body("application/json", RotationRequest),),
        answers={200: Answer("The secret, shown this once", SecretView)},
        errors=(NotFoundError,),
    ),
    Operation(
        method="POST",
        path="/v1/webhook-secret/rotate",
        name="rotate_webhook_secret",
        summary="Make another signing secret for every webhook_url",
        description="Deliveries to the `webhook_url` of jobs and batches are signed with one secret a client.",
        view=rotate_client_secret,
        query=NoQuery,
        bodies=(Body("application/json", RotationRequest),),
        answers={200: Answer("The secret, shown this once", SecretView)},
    ),
)
