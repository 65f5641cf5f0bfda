"""Each request has an id, one log line and its metrics.

The line holds the route's template and no query: clients put names into queries.
"""

import re
import time

import structlog
from flask import Flask, Response, g, request

from shared.ids import new_id
from shared.metrics import REQUEST_SECONDS, REQUESTS

log = structlog.get_logger(__name__)

HEADER = "X-Request-Id"

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked every few seconds by machines; they would bury the rest.
_QUIET_ROUTES = frozenset({"/livez", "/readyz", "/metrics"})


def register_request_log(app: Flask) -> None:
    """Name each request first, and write it down last."""
    app.before_request(_begin)
    app.after_request(_end)


def request_id() -> str:
    """The id of this request: the one it came with, if it is acceptable, or a new one."""
    if "request_id" not in g:
        given = request.headers.get(HEADER, "")
        g.request_id = given if _ACCEPTED_ID.fullmatch(given) else new_id("req")
    found: str = g.request_id
    return found


def _begin() -> None:
    g.started = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(process="api", request_id=request_id())


def _end(response: Response) -> Response:
    response.headers[HEADER] = request_id()
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    route = request.url_rule.rule if request.url_rule else "unmatched"
    method = request.method if request.method in _METHODS else "other"
    seconds = time.perf_counter() - g.get("started", time.perf_counter())
    REQUESTS.labels(route, method, str(response.status_code)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)
    write = log.debug if route in _QUIET_ROUTES else log.info
    write(
        "request",
        method=method,
        route=route,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
        bytes_in=request.content_length,
        bytes_out=response.content_length,
    )
    return response
