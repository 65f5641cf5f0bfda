"""Entry of the worker and beat processes: `celery -A worker.main worker`, `celery -A worker.main beat`."""

import sys
import threading
from typing import Any

from celery.signals import setup_logging, worker_ready, worker_shutting_down
from prometheus_client import start_http_server

from shared.log import configure_logging
from shared.metrics import metrics_registry
from shared.queues import QueueName
from shared.settings import Settings
from worker.app import make_celery
from worker.services import install_services, services

# A thread whose permit has come waits for the interpreter this long at most. Python waits 5 ms by default, which the
# margin of every call would have to make up for.
sys.setswitchinterval(0.0005)

settings = Settings.from_env()
app = make_celery(settings)
install_services(settings)


@setup_logging.connect(weak=False)
def _configure_logging(**_: Any) -> None:
    configure_logging(settings, process="worker")


@worker_shutting_down.connect(weak=False)
def _stop_waiting(**_: Any) -> None:
    """Threads that wait for a permit hand their job back at once."""
    services().stopping.set()


@worker_ready.connect(weak=False)
def _feed(**_: Any) -> None:
    """Every worker process feeds, so that the lines move while any of them lives."""
    built = services()
    threading.Thread(target=built.feeder.run, args=(built.stopping,), name="feeder", daemon=True).start()
    if QueueName.WEBHOOKS in app.amqp.queues.consume_from:
        threading.Thread(target=built.courier.run, args=(built.stopping,), name="courier", daemon=True).start()
    # Runs to the end of the process: a call that outlasts the order to stop must not be stolen.
    threading.Thread(target=built.leases.run, args=(threading.Event(),), name="leases", daemon=True).start()


@worker_ready.connect(weak=False)
def _serve_metrics(**_: Any) -> None:
    """On a machine without the API, nobody else shows what this worker counts."""
    if settings.worker_metrics_port is not None:
        start_http_server(settings.worker_metrics_port, registry=metrics_registry())
