"""How gunicorn runs the API. It is configuration, read by gunicorn as `python:api.gunicorn_conf`."""

import signal
from contextlib import suppress
from types import FrameType
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from api.services import services_of
from shared.settings import Settings

_settings = Settings.from_env()

bind = f"{_settings.api_host}:{_settings.api_port}"
worker_class = "gthread"
workers = _settings.api_workers
threads = _settings.api_threads
# Each process builds its engine and Redis clients after the fork; connections must not be shared by two.
preload_app = False
# Connections a process keeps; those beyond wait in the kernel's queue, where another process may take them.
worker_connections = 1000
backlog = 2048
# Longer than the 60 s a load balancer usually keeps a connection: the one who closes first must not be us.
keepalive = 75
# With gthread this is how long a process may be stuck altogether, not how long a request may take.
timeout = 60
# A poll is held for 60 s at most, and ends early when the process is told to stop.
graceful_timeout = 30
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
# Our own line per request holds no query (api/request_log.py).
accesslog = None
errorlog = "-"
loglevel = _settings.log_level.lower()
# It would listen on one path in the user's home for all instances of the machine.
control_socket_disable = True


def post_worker_init(worker: Any) -> None:
    """Let held polls end as soon as the process is told to stop, instead of holding it up."""
    waiting = services_of(worker.wsgi).final_watch

    def stop_polls_first(number: int, frame: FrameType | None) -> None:
        waiting.stop()
        if callable(gunicorns_own):
            gunicorns_own(number, frame)

    gunicorns_own = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, stop_polls_first)


def child_exit(_server: Any, worker: Any) -> None:
    """Drop the live gauges of a process that is gone."""
    with suppress(TypeError):  # no PROMETHEUS_MULTIPROC_DIR: nothing was shared
        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
