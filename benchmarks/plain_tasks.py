"""Celery alone, and Celery with a call and nothing kept: what durability and quotas are compared with."""

import base64
import os
import threading
from pathlib import Path

import requests
from celery import Celery
from redis import Redis

_redis_url = os.environ.get("PLAIN_REDIS", "redis://127.0.0.1/0")
app = Celery("plain", broker=_redis_url)
app.conf.update(
    task_ignore_result=True,
    task_default_queue="plain",
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"max_connections": 200},
)
_done = Redis.from_url(_redis_url)
_local = threading.local()


@app.task
def do_nothing() -> None:
    """Count itself."""
    _done.incr("plain:done")


@app.task
def call() -> None:
    """Call the provider with the picture, and forget the answer."""
    session: requests.Session | None = getattr(_local, "session", None)
    url = os.environ["PLAIN_URL"]
    if session is None:
        session = _local.session = requests.Session()
        keys = {"grant_type": "client_credentials", "client_id": "bench", "client_secret": "secret"}
        _local.token = session.post(f"{url}/oauth/2.0/token", params=keys, timeout=10).json()["access_token"]
        _local.form = {"image": base64.b64encode(Path(os.environ["PLAIN_IMAGE"]).read_bytes()).decode()}
    address = f"{url}/rest/2.0/ocr/v1/bankcard"
    answer = session.post(address, params={"access_token": _local.token}, data=_local.form, timeout=60).json()
    if "result" in answer:
        _done.incr("plain:done")
