"""What Prometheus reads. Labels hold no id and no content.

All processes write to the files of one folder (`PROMETHEUS_MULTIPROC_DIR`, set by whoever starts them), so that
`/metrics` on the API tells about the workers too.
"""

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest, multiprocess

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)

JOBS_ACCEPTED = Counter("kazheng_jobs_accepted_total", "Jobs accepted", ["document_type", "lane"])
JOBS_SETTLED = Counter("kazheng_jobs_settled_total", "Jobs that reached a terminal state", ["document_type", "status"])
CALLS = Counter("kazheng_upstream_calls_total", "Upstream calls ended", ["endpoint", "outcome"])
CALL_SECONDS = Histogram("kazheng_upstream_call_seconds", "Time of an upstream call", ["endpoint"], buckets=_SECONDS)
PERMIT_WAIT_SECONDS = Histogram("kazheng_permit_wait_seconds", "Wait for a permit", ["endpoint"], buckets=_SECONDS)
PERMIT_LATENESS_SECONDS = Histogram(
    "kazheng_permit_lateness_seconds", "From the permit's instant to the call", buckets=(0.001, 0.005, 0.01, 0.05, 0.1)
)
TOKEN_FETCHES = Counter("kazheng_token_fetches_total", "Access tokens fetched", ["outcome"])
PUBLISH_FAILURES = Counter("kazheng_publish_failures_total", "Messages the broker did not take")
SWEPT = Counter("kazheng_swept_total", "Jobs whose message or worker the sweeper found lost", ["reason"])
POISONED = Counter("kazheng_poisoned_total", "Jobs given up because workers died preparing them")
CACHE_HITS = Counter("kazheng_cache_hits_total", "Jobs answered from an earlier, equal one", ["document_type"])
DELIVERIES = Counter("kazheng_deliveries_total", "Attempts to deliver an event", ["verdict"])
DELIVERY_SECONDS = Histogram("kazheng_delivery_seconds", "Time of an attempt to deliver", buckets=_SECONDS)
REQUESTS = Counter("kazheng_http_requests_total", "Requests served", ["route", "method", "status"])
REQUEST_SECONDS = Histogram("kazheng_http_request_seconds", "Time of a request", ["route"], buckets=_SECONDS)


def metrics_registry() -> CollectorRegistry:
    """All processes' metrics; outside of a multi-process start, this process's."""
    registry = CollectorRegistry()
    try:
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    except ValueError:  # no PROMETHEUS_MULTIPROC_DIR
        return REGISTRY
    return registry


def render_metrics() -> bytes:
    """The metrics in Prometheus' text format."""
    return generate_latest(metrics_registry())
