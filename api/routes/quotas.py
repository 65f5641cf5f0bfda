"""`/v1/quotas`: what each account may still do, live."""

import structlog
from flask import Response, request
from redis.exceptions import RedisError

from api.operations import Answer, Operation
from api.outlooks import ENDPOINTS
from api.presenting import to_json
from api.quota_schemas import LineView, Quotas, QuotaView, StopView
from api.schemas import NoQuery
from api.services import services
from api.validation import validate_query
from shared.database.engine import transaction
from shared.database.lines import count_queued
from shared.domain.errors import LimiterAwayError
from shared.domain.job import Lane
from shared.limits.outlook import QuotaState

log = structlog.get_logger(__name__)


def read_quotas() -> Response:
    """Each endpoint of each account, and the lines before them."""
    validate_query(NoQuery, request.args)
    try:
        states = services().outlooks.states()
    except RedisError as error:
        log.warning("no_quotas", error=type(error).__name__)
        raise LimiterAwayError("What is left can't be told while Redis is away. Try again in a few seconds.") from error
    with transaction(services().engine) as connection:
        queued = count_queued(connection)
    open_endpoints = {state.endpoint for state in states if state.is_open}
    lines = []
    for endpoint in ENDPOINTS:
        interactive, bulk = (queued.get((endpoint, lane), 0) for lane in (Lane.INTERACTIVE, Lane.BULK))
        parked = 0 if endpoint in open_endpoints else interactive + bulk
        lines.append(LineView(endpoint=endpoint, interactive=interactive, bulk=bulk, parked=parked))
    body = Quotas(object="quotas", data=[_present(state) for state in states], lines=lines)
    answer = Response(to_json(body), content_type="application/json")
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _present(state: QuotaState) -> QuotaView:
    stop = state.stop
    return QuotaView(
        account=state.account,
        endpoint=state.endpoint,
        billing=state.billing.value,
        state=state.state,
        qps_limit=state.qps,
        pace=round(state.pace, 3),
        learnt_share=round(state.learnt_share, 4),
        calls_last_second=state.calls_last_second,
        in_flight=state.in_flight,
        in_flight_limit=state.in_flight_limit,
        used_today=state.used_today or 0,
        day_limit=state.day_limit,
        left_today=state.left_today,
        day_ends_at=state.day_ends_at,
        used_in_all=state.used_in_all,
        total_limit=state.total_limit,
        stop=None
        if stop is None
        else StopView(
            reason=stop.reason.value,
            upstream_code=stop.upstream_code,
            detail=stop.detail,
            since=stop.since,
            until=stop.until,
        ),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/quotas",
        name="read_quotas",
        summary="What the accounts at the provider may still do",
        view=read_quotas,
        query=NoQuery,
        answers={200: Answer("Every endpoint of every account, and the lines before them", Quotas)},
        errors=(LimiterAwayError,),
    ),
)
