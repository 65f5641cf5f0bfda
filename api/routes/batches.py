"""`/v1/batches`: hand over, add, close, follow, cancel, try again."""

from http import HTTPStatus

from flask import Response, request

from api.auth import current_client
from api.batch_bodies import read_batch, read_items
from api.batch_presenting import batch_path, present_batch, present_items
from api.batch_schemas import (
    BatchFields,
    BatchForm,
    BatchList,
    BatchListQuery,
    BatchRequest,
    BatchView,
    DryRunView,
    ItemList,
    ItemListQuery,
    ItemsRequest,
    RetriedView,
    RetryRequest,
)
from api.bodies import read_object
from api.operations import Answer, Body, Operation, Parameter
from api.presenting import to_json
from api.routes.jobs import idempotency_key
from api.schemas import NoQuery
from api.services import services
from api.validation import validate, validate_query
from api.webhook_urls import check_webhook_url
from shared.database import batches as rows
from shared.database.batches import Batch
from shared.database.engine import transaction
from shared.database.jobs import get_results
from shared.domain.errors import (
    ArchiveRefusedError,
    BatchClosedError,
    BodyTooLargeError,
    BusyError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    InvalidRequestError,
    NotFoundError,
    StorageFullError,
    StorageUnavailableError,
    UnsupportedMediaTypeError,
)
from shared.domain.job import JobStatus

# Few enough for one statement to end well within its time.
_AT_ONCE = 2_000


def create_batch() -> Response:
    """Keep many images as one batch; or tell what would be done."""
    key = idempotency_key()
    with services().batch_intake.gate(), read_batch(request, services().settings) as submission:
        check_webhook_url(submission.fields.webhook_url, services().settings)
        if submission.fields.dry_run:
            view = services().batch_outlook.look(current_client(), submission)
            return Response(to_json(view), content_type="application/json")
        accepted = services().batch_intake.create(current_client(), submission, key)
    answer = _answer(accepted.batch, HTTPStatus.ACCEPTED)
    answer.headers["Location"] = batch_path(accepted.batch.id)
    if accepted.is_replay:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


def add_items(batch_id: str) -> Response:
    """Add items to an open batch: all of them, or none."""
    key = idempotency_key()
    intake = services().batch_intake
    batch = intake.find(current_client(), batch_id)
    if batch.closed_at is not None and key is None:
        raise BatchClosedError("The batch takes no more items: it was closed or canceled.")
    fields = BatchFields(document_type=batch.document_type, options=batch.options, lane=batch.lane, cache=batch.cache)
    with intake.gate():
        submission = read_items(request, fields, services().settings)
        accepted = intake.add(current_client(), batch_id, submission, key)
    answer = _answer(accepted.batch, HTTPStatus.ACCEPTED)
    if accepted.is_replay:
        answer.headers["Idempotent-Replayed"] = "true"
    return answer


def list_batches() -> Response:
    """A page of the client's batches."""
    query = validate_query(BatchListQuery, request.args)
    with transaction(services().engine) as connection:
        found = rows.list_batches(connection, current_client(), limit=query.limit + 1, after=query.after)
    page = found[: query.limit]
    body = BatchList(data=[show_batch(batch) for batch in page], next=page[-1].id if len(found) > query.limit else None)
    return Response(to_json(body), content_type="application/json")


def read_batch_state(batch_id: str) -> Response:
    """How a batch stands."""
    validate_query(NoQuery, request.args)
    return _answer(services().batch_intake.find(current_client(), batch_id))


def list_items(batch_id: str) -> Response:
    """A page of its items, in their order."""
    query = validate_query(ItemListQuery, request.args)
    batch = services().batch_intake.find(current_client(), batch_id)
    with transaction(services().engine) as connection:
        found = rows.list_items(connection, batch.id, statuses=query.status, limit=query.limit + 1, after=query.after)
        page = found[: query.limit]
        results = get_results(connection, [job.id for job in page if job.status is JobStatus.SUCCEEDED])
    body = ItemList(data=present_items(page, results), next=page[-1].item_number if len(found) > query.limit else None)
    return Response(to_json(body), content_type="application/json")


def close_batch(batch_id: str) -> Response:
    """Let it take no more items. Doing it twice changes nothing."""
    validate_query(NoQuery, request.args)
    batch = services().batch_intake.find(current_client(), batch_id)
    with transaction(services().engine) as connection:
        rows.close_batch(connection, batch.id, services().clock())
    return _answer(services().batch_intake.find(current_client(), batch_id))


def cancel_batch(batch_id: str) -> Response:
    """Start nothing more of it; what runs ends. Doing it twice changes nothing.

    Cut short, the worker that follows batches finishes it.
    """
    validate_query(NoQuery, request.args)
    batch = services().batch_intake.find(current_client(), batch_id)
    with transaction(services().engine) as connection:
        rows.call_off(connection, batch.id, services().clock())
    while batch.completed_at is None:
        with transaction(services().engine) as connection:
            canceled = rows.cancel_waiting(connection, batch.id, services().clock(), most=_AT_ONCE)
        if not canceled:
            break
    return _answer(services().batch_intake.find(current_client(), batch_id))


def retry_batch(batch_id: str) -> Response:
    """Put failed items back in line."""
    asked = validate(RetryRequest, read_object(request, may_be_empty=True))
    batch = services().batch_intake.find(current_client(), batch_id)
    retried, now = 0, services().clock()
    while True:
        with transaction(services().engine) as connection:
            rows.lock_batch(connection, batch.id)
            found = rows.retry_failed(connection, batch.id, now, only_retryable=asked.only_retryable, most=_AT_ONCE)
            if found:
                rows.reopen(connection, batch.id)
        retried += len(found)
        if len(found) < _AT_ONCE:
            break
    view = show_batch(services().batch_intake.find(current_client(), batch_id))
    return Response(to_json(RetriedView(retried=retried, batch=view)), content_type="application/json")


def _answer(batch: Batch, status: HTTPStatus = HTTPStatus.OK) -> Response:
    answer = Response(to_json(show_batch(batch)), status, content_type="application/json")
    answer.headers["Cache-Control"] = "private, no-cache"
    if batch.completed_at is None:
        answer.headers["Retry-After"] = "2"
    return answer


def show_batch(batch: Batch) -> BatchView:
    """A batch as it stands now."""
    with transaction(services().engine) as connection:
        counts = rows.count_items(connection, batch.id)
    ends_at = None if batch.completed_at else services().batch_outlook.ends_at(batch, counts)
    return present_batch(
        batch,
        counts,
        ends_at=ends_at,
        parked=services().batch_outlook.parked(counts),
        cost=services().batch_outlook.cost_of(counts.billed),
        now=services().clock(),
    )


_KEY = Parameter(
    "Idempotency-Key",
    "The same key and request add the same items once; a request cut short goes on where it was.",
    {"type": "string", "minLength": 1, "maxLength": 255},
)
_INTAKE_ERRORS = (
    InvalidRequestError,
    BodyTooLargeError,
    UnsupportedMediaTypeError,
    IdempotencyMismatchError,
    IdempotencyInProgressError,
    BusyError,
    StorageUnavailableError,
    StorageFullError,
)

OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/batches",
        name="create_batch",
        summary="Hand over many images",
        description="As JSON (items with `image_base64` or `image_url`), as many files of a multipart body, as a ZIP, "
        "or as a manifest of addresses (JSON lines, or CSV with the columns `image_url`, `document_type`, "
        "`client_reference_id`, `options.side`, `metadata.…`); for the last two, what is said of the batch stands in "
        "the query. What is said wrong refuses all, with every mistake listed. A file that is no image costs its item.",
        view=create_batch,
        query=BatchFields,
        headers=(_KEY,),
        bodies=(
            Body("application/json", BatchRequest),
            Body("multipart/form-data", BatchForm),
            Body("application/zip", None),
            Body("application/x-ndjson", None),
            Body("text/csv", None),
        ),
        answers={
            202: Answer("The batch is kept", BatchView, headers=("Location", "Retry-After", "Idempotent-Replayed")),
            200: Answer("With `dry_run`: what would be done", DryRunView),
        },
        errors=(*_INTAKE_ERRORS, ArchiveRefusedError),
    ),
    Operation(
        method="GET",
        path="/v1/batches",
        name="list_batches",
        summary="List batches, newest first",
        view=list_batches,
        query=BatchListQuery,
        answers={200: Answer("A page", BatchList)},
    ),
    Operation(
        method="GET",
        path="/v1/batches/{batch_id}",
        name="read_batch",
        summary="Read how a batch stands",
        view=read_batch_state,
        query=NoQuery,
        answers={200: Answer("The batch", BatchView, headers=("Retry-After",))},
        errors=(NotFoundError,),
    ),
    Operation(
        method="POST",
        path="/v1/batches/{batch_id}/items",
        name="add_items",
        summary="Add items to an open batch",
        view=add_items,
        headers=(_KEY,),
        bodies=(Body("application/json", ItemsRequest), Body("multipart/form-data", BatchForm)),
        answers={202: Answer("The items are kept", BatchView, headers=("Retry-After", "Idempotent-Replayed"))},
        errors=(NotFoundError, BatchClosedError, *_INTAKE_ERRORS),
    ),
    Operation(
        method="GET",
        path="/v1/batches/{batch_id}/items",
        name="list_items",
        summary="List the items of a batch, in their order",
        view=list_items,
        query=ItemListQuery,
        answers={200: Answer("A page", ItemList)},
        errors=(NotFoundError,),
    ),
    Operation(
        method="POST",
        path="/v1/batches/{batch_id}/close",
        name="close_batch",
        summary="Let a batch take no more items",
        view=close_batch,
        query=NoQuery,
        answers={200: Answer("The batch", BatchView)},
        errors=(NotFoundError,),
    ),
    Operation(
        method="POST",
        path="/v1/batches/{batch_id}/cancel",
        name="cancel_batch",
        summary="Start nothing more of a batch",
        view=cancel_batch,
        query=NoQuery,
        answers={200: Answer("The batch; what runs ends", BatchView)},
        errors=(NotFoundError,),
    ),
    Operation(
        method="POST",
        path="/v1/batches/{batch_id}/retry",
        name="retry_batch",
        summary="Try failed items again",
        view=retry_batch,
        bodies=(Body("application/json", RetryRequest),),
        answers={200: Answer("How many", RetriedView)},
        errors=(NotFoundError, InvalidRequestError),
    ),
)
