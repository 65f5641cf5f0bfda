"""`/livez`, `/readyz`, `/metrics`: for whoever operates this. They ask for no key and tell nothing of any client."""

from collections.abc import Callable, Iterator
from http import HTTPStatus

import structlog
from flask import Response, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

from api.operations import Answer, Operation
from api.schemas import Liveness, NoQuery, Readiness, ReadyQuery
from api.services import services
from api.validation import validate_query
from shared.database.engine import transaction
from shared.database.health import Ages, find_troubles, read_ages
from shared.database.migrate import is_at_head
from shared.domain.errors import UnavailableError
from shared.metrics import render_metrics

log = structlog.get_logger(__name__)


def read_liveness() -> Response:
    """The process answers; nothing behind it is asked, or an outage there would restart everything here."""
    validate_query(NoQuery, request.args)
    return Response(Liveness(status="alive").model_dump_json(), content_type="application/json")


def read_readiness() -> Response:
    """Whether requests can be served: every part behind this process is asked."""
    query = validate_query(ReadyQuery, request.args)
    checks = {name: _ask(name, check) for name, check in _CHECKS.items()}
    failing = [name for name, said in checks.items() if said != "ok"]
    body = Readiness(
        status="not_ready" if failing else "ready",
        failing=failing,
        checks=None if query.verbose is None else checks,
        warnings=None if query.verbose is None else _warnings(),
    )
    status = HTTPStatus.SERVICE_UNAVAILABLE if failing else HTTPStatus.OK
    return Response(body.model_dump_json(exclude_none=True), status, content_type="application/json")


def read_metrics() -> Response:
    """What Prometheus reads, of all processes of this machine."""
    validate_query(NoQuery, request.args)
    return Response(render_metrics() + _render_ages(), content_type=CONTENT_TYPE_LATEST)


class _AgesCollector(Collector):
    """Gauges read when they are asked for: whoever would have to set them may be what is dead."""

    def __init__(self, ages: Ages) -> None:
        self._ages = ages

    def collect(self) -> Iterator[Metric]:
        for name, (metric, says) in _AGES.items():
            seconds = getattr(self._ages, name)
            if seconds is not None:
                yield GaugeMetricFamily(metric, says, value=seconds)


_AGES = {
    "oldest_sent": ("kazheng_oldest_message_seconds", "Since the oldest message that nobody has taken was sent"),
    "oldest_overdue": ("kazheng_oldest_overdue_claim_seconds", "Since the oldest lease ran out that is not taken back"),
    "oldest_event": ("kazheng_oldest_event_seconds", "Since the oldest event was written that has no place yet"),
    "oldest_delivery": ("kazheng_oldest_delivery_seconds", "Since the oldest delivery was due to a healthy endpoint"),
    "sweep": ("kazheng_sweep_age_seconds", "Since the sweeper last ran"),
}


def _render_ages() -> bytes:
    try:
        with transaction(services().engine) as connection:
            if not is_at_head(connection):  # `/readyz` says so
                return b""
            ages = read_ages(connection, services().clock())
    except UnavailableError:
        return b""
    registry = CollectorRegistry()
    registry.register(_AgesCollector(ages))
    return generate_latest(registry)


def _warnings() -> list[str]:
    """What does not keep requests from being served, and yet needs somebody."""
    return [*_stopped_endpoints(), *_stuck_things()]


def _stuck_things() -> list[str]:
    try:
        with transaction(services().engine) as connection:
            if not is_at_head(connection):  # a check of its own says so
                return []
            return [f"{trouble.what}: {trouble.seen}" for trouble in find_troubles(connection, services().clock())]
    except UnavailableError:
        return []


def _stopped_endpoints() -> list[str]:
    """Jobs for these are accepted, and wait."""
    try:
        states = services().outlooks.states()
    except (UnavailableError, RedisError):
        return []
    return [
        f"{state.account}/{state.endpoint} is stopped since {state.stop.since.isoformat(timespec='seconds')}:"
        f" {state.stop.reason}, {state.stop.detail}"
        for state in states
        if state.stop is not None and state.state != "paused"
    ]


def _check_database() -> str:
    with transaction(services().engine) as connection:
        return "ok" if is_at_head(connection) else "the tables are not migrated to this version: run `kazheng migrate`"


def _check_broker() -> str:
    services().redis.ping()
    return "ok"


def _check_store() -> str:
    services().store.check()
    return "ok"


_CHECKS: dict[str, Callable[[], str]] = {"database": _check_database, "broker": _check_broker, "store": _check_store}


def _ask(name: str, check: Callable[[], str]) -> str:
    try:
        return check()
    except UnavailableError as error:
        return error.detail
    except (RedisError, OSError) as error:
        log.warning("not_ready", part=name, error=type(error).__name__)
        return "It does not answer."


OPERATIONS = (
    Operation(
        method="GET",
        path="/livez",
        name="read_liveness",
        summary="Does the process answer",
        view=read_liveness,
        query=NoQuery,
        answers={200: Answer("It does", Liveness)},
        is_open=True,
    ),
    Operation(
        method="GET",
        path="/readyz",
        name="read_readiness",
        summary="Can requests be served",
        view=read_readiness,
        query=ReadyQuery,
        answers={200: Answer("They can", Readiness), 503: Answer("`failing` names what is wrong", Readiness)},
        is_open=True,
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="read_metrics",
        summary="Metrics for Prometheus",
        view=read_metrics,
        query=NoQuery,
        answers={200: Answer("The text format", media_type="text/plain")},
        is_open=True,
    ),
)
