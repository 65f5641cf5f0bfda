"""How gunicorn serves the sandbox."""

from shared.settings import Settings

_settings = Settings.from_env()

bind = f"{_settings.sandbox_host}:{_settings.sandbox_port}"
# Tokens and QPS windows live in memory: one process, never more.
workers = 1
worker_class = "gthread"
# Callers wait in line for the one engine; each holds a thread, the health check must still find one.
threads = 64
# Not preloaded: onnxruntime's threads do not survive a fork.
preload_app = False
# For the process as a whole, not for a call: a slow card holds its thread, not the heartbeat.
timeout = 60
graceful_timeout = 10
keepalive = 30
# Its place is one per user, and the API's gunicorn runs beside this one.
control_socket_disable = True
