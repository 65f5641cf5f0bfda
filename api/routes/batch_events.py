"""`/v1/batches/{batch_id}/events`: how a batch goes, as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import threading
import time
from collections.abc import Iterator

from flask import Response, request, stream_with_context

from api.auth import current_client
from api.batch_schemas import BatchView
from api.operations import Answer, Operation, Parameter
from api.presenting import to_json
from api.routes.batches import show_batch
from api.schemas import NoQuery
from api.services import services
from api.validation import validate_query
from shared.database.batches import BatchStatus
from shared.domain.errors import BusyError, NotFoundError, UnavailableError

_LOOK_SECONDS = 1.0
_SIGN_OF_LIFE_SECONDS = 15.0
# Proxies and load balancers end longer ones anyway; a browser comes back by itself and names the last event it saw.
_LONGEST_SECONDS = 300.0
# Each holds a thread of the API.
_open = threading.BoundedSemaphore(24)


def follow_batch(batch_id: str) -> Response:
    """Events `progress` whenever the counts change, and `completed` at the end."""
    validate_query(NoQuery, request.args)
    client_id = current_client()
    services().batch_intake.find(client_id, batch_id)
    if not _open.acquire(blocking=False):
        raise BusyError("Too many batches are being followed at the moment. Ask for the batch itself instead.")
    events = stream_with_context(_events(client_id, batch_id, request.headers.get("Last-Event-ID", "")))
    answer = Response(events, content_type="text/event-stream")
    answer.call_on_close(_open.release)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["X-Accel-Buffering"] = "no"
    return answer


def _events(client_id: str, batch_id: str, seen: str) -> Iterator[str]:
    end, spoke_at = time.monotonic() + _LONGEST_SECONDS, time.monotonic()
    yield "retry: 2000\n\n"
    while time.monotonic() < end:
        try:
            view = show_batch(services().batch_intake.find(client_id, batch_id))
        except UnavailableError:
            return  # who follows comes back
        is_final = view.status in (BatchStatus.COMPLETED, BatchStatus.CANCELED)
        state = _state_of(view)
        if state != seen or is_final:
            yield f"id: {state}\nevent: {'completed' if is_final else 'progress'}\ndata: {to_json(view)}\n\n"
            seen, spoke_at = state, time.monotonic()
        if is_final:
            return
        if time.monotonic() - spoke_at > _SIGN_OF_LIFE_SECONDS:
            yield ": still here\n\n"
            spoke_at = time.monotonic()
        time.sleep(_LOOK_SECONDS)


def _state_of(view: BatchView) -> str:
    """Equal for equal counts, so that who comes back hears only of what is new."""
    return "-".join([view.status, *(str(count) for count in view.counts.model_dump().values())])


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/batches/{batch_id}/events",
        name="follow_batch",
        summary="Follow a batch",
        description="Server-sent events: `progress` whenever the counts change, `completed` at the end, each with the "
        "batch as data. A stream ends after five minutes; come back with `Last-Event-ID`, as browsers do.",
        view=follow_batch,
        query=NoQuery,
        headers=(Parameter("Last-Event-ID", "The last event seen.", {"type": "string"}),),
        answers={200: Answer("The events", media_type="text/event-stream")},
        errors=(NotFoundError, BusyError),
    ),
)
