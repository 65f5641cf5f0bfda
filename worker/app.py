"""Celery, each setting with its reason. Versions: celery 5.7, kombu 5.7, a Redis or Valkey broker.

No setting makes Celery on Redis lossless: a worker killed between taking a message and noting it down loses it. The
sweeper does (`worker.recovery`): Postgres is the truth, a message is a hint.
"""

from celery import Celery

from shared.queues import TASK_QUEUES, TRANSPORT_OPTIONS, QueueName, TaskName
from shared.settings import Settings
from worker.broker import use_patient_transport
from worker.schedule import beat_schedule

_MARGIN_SECONDS = 60


def make_celery(settings: Settings) -> Celery:
    """The Celery application of workers and beat."""
    use_patient_transport()
    app = Celery("kazheng", broker=settings.require_redis_url(), include=["worker.tasks"])
    app.conf.update(
        # Results live in Postgres; a backend would cost five commands a job for something nobody reads.
        task_ignore_result=True,
        result_backend=None,
        task_queues=TASK_QUEUES,
        task_default_queue=QueueName.MAINTENANCE.value,
        # A message to a queue that no worker reads would wait for ever.
        task_create_missing_queues=False,
        # Acknowledged when done: early acknowledgement loses everything that runs or waits in a killed worker.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        # We wrote the outcome ourselves; a message that comes back would find nothing to claim.
        task_acks_on_failure=True,
        # With late acknowledgement this reserves exactly as many messages as there are threads.
        worker_prefetch_multiplier=1,
        # Aborting on a lost connection would abort paid calls; the claim guards against the redelivered message.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options={
            **TRANSPORT_OPTIONS,
            # Longer than any task in good health: a message that comes back earlier would find nothing to claim.
            "visibility_timeout": round(settings.longest_attempt_seconds) + _MARGIN_SECONDS,
            # Look for messages of dead workers every 5 s; by default it is every 100 s.
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            # By default a worker that dies while looking stops all others from looking for 5 minutes.
            "unacked_mutex_expire": 30,
        },
        # The default gives up after 100 tries; a worker should outlast any outage of the broker.
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        # Celery's own waits up to 30 s before it tries the broker again.
        worker_consumer="worker.consumer:PromptConsumer",
        # One quick second try: more would hold a thread while the broker is away.
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "interval_max": 0.1},
        # Only JSON: pickle would run whatever stands in a message.
        task_serializer="json",
        accept_content=["json"],
        # Flower needs events; they cost up to 45 % of the throughput.
        worker_send_task_events=settings.task_events,
        # Would make every API process a "worker" in Flower's metrics.
        task_send_sent_event=False,
        task_routes={
            TaskName.SWEEP.value: {"queue": QueueName.MAINTENANCE.value},
            TaskName.PURGE.value: {"queue": QueueName.MAINTENANCE.value},
            TaskName.FOLLOW.value: {"queue": QueueName.MAINTENANCE.value},
            TaskName.WATCH_QUOTAS.value: {"queue": QueueName.MAINTENANCE.value},
            TaskName.DELIVER.value: {"queue": QueueName.WEBHOOKS.value},
        },
        beat_schedule=beat_schedule(),
        beat_max_loop_interval=5,
        timezone="UTC",
        # Our own logging is set up in worker/main.py.
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
    )
    return app
