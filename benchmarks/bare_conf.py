"""The API's gunicorn settings, without its hooks, which look for the API's services."""

from api import gunicorn_conf as _api

_SHARED = (
    "bind",
    "worker_class",
    "workers",
    "threads",
    "preload_app",
    "worker_connections",
    "backlog",
    "keepalive",
    "timeout",
    "graceful_timeout",
    "accesslog",
    "control_socket_disable",
)
globals().update({name: getattr(_api, name) for name in _SHARED})
