"""Work crosses from one process to another by name.

A message is `{"job_id": "job_…"}` under a task name, on the queue of its lane, and nothing more. It may outlive a
deploy: add arguments only with a default, never rename a task while messages of it may wait.
"""

import time
from enum import StrEnum
from typing import Any

import structlog
from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError

from shared.domain.job import Lane
from shared.metrics import PUBLISH_FAILURES
from shared.settings import Settings

log = structlog.get_logger(__name__)

# How long publishing is left alone after the broker did not answer: intake must not wait for it at every request.
_PAUSE_SECONDS = 2.0


class QueueName(StrEnum):
    """Every queue; each is read by one of the two worker processes."""

    INTERACTIVE = "interactive"
    BULK = "bulk"
    WEBHOOKS = "webhooks"
    MAINTENANCE = "maintenance"


class TaskName(StrEnum):
    """Every task, as it reads in Flower and in a message."""

    RECOGNIZE = "kazheng.recognize"
    """Run the next attempt of a job."""
    SWEEP = "kazheng.sweep"
    """Put jobs back in line whose message or worker is gone, and end those past their time."""
    DELIVER = "kazheng.deliver"
    """Send an endpoint what is due for it."""
    WATCH_QUOTAS = "kazheng.watch_quotas"
    """Tell clients of quotas that are nearly used up."""
    PURGE = "kazheng.purge"
    """Forget keys, events and endpoints past their time, and erase images that nobody owns any more."""
    FOLLOW = "kazheng.follow"
    """Tell how far batches have come, and complete those whose items are all final."""


LANE_QUEUES = {Lane.INTERACTIVE: QueueName.INTERACTIVE, Lane.BULK: QueueName.BULK}

TASK_QUEUES = tuple(Queue(name.value) for name in QueueName)

# Every value is argued where the worker sets its own (worker/app.py); these concern whoever talks to the broker.
TRANSPORT_OPTIONS: dict[str, Any] = {
    "socket_timeout": 5,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 5,
    "max_connections": 200,
    "priority_steps": [0],
    "queue_order_strategy": "priority",
}


class Publisher:
    """Sends messages, best effort: Postgres remembers what was not sent. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        """Connects at the first message."""
        # A message lost here is found by the sweeper; a request that waits for the broker is not acceptable.
        options = {**TRANSPORT_OPTIONS, "socket_timeout": 1, "socket_connect_timeout": 1}
        self._celery = Celery("kazheng", broker=settings.require_redis_url(), set_as_current=False)
        self._celery.conf.update(
            broker_transport_options=options,
            task_queues=TASK_QUEUES,
            task_create_missing_queues=False,
            task_ignore_result=True,
            task_publish_retry=False,  # a reply lost on the wire would put the message in the queue twice
            task_serializer="json",
            task_send_sent_event=False,
        )
        self._paused_until = 0.0

    def publish(self, task: TaskName, queue: QueueName, **arguments: str) -> bool:
        """Send a message; False when the broker did not take it (or may not have)."""
        if time.monotonic() < self._paused_until:
            PUBLISH_FAILURES.inc()
            return False
        try:
            self._celery.send_task(task.value, kwargs=arguments, queue=queue.value)
        except (OperationalError, OSError) as error:
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            PUBLISH_FAILURES.inc()
            log.warning("publish_failed", task=task.value, queue=queue.value, error=type(error).__name__)
            return False
        return True

    def publish_job(self, job_id: str, lane: str) -> bool:
        """Send word that a job waits."""
        return self.publish(TaskName.RECOGNIZE, LANE_QUEUES[Lane(lane)], job_id=job_id)
