"""Every task. Each finds its use case, calls it, and returns nothing."""

from celery import shared_task

from shared.queues import TaskName
from worker.services import services


@shared_task(name=TaskName.RECOGNIZE.value)
def recognize(job_id: str) -> None:
    """Run the next attempt of a job."""
    services().recognition.run_attempt(job_id)


@shared_task(name=TaskName.SWEEP.value)
def sweep() -> None:
    """Put jobs back in line whose message or worker is gone, and end those past their time."""
    services().recovery.sweep()


@shared_task(name=TaskName.FOLLOW.value)
def follow() -> None:
    """Tell how far batches have come, and complete those whose items are all final."""
    services().batches.follow()


@shared_task(name=TaskName.DELIVER.value)
def deliver(endpoint_id: str) -> None:
    """Send an endpoint what is due for it."""
    services().deliveries.deliver(endpoint_id)


@shared_task(name=TaskName.WATCH_QUOTAS.value)
def watch_quotas() -> None:
    """Tell clients of quotas that are nearly used up."""
    services().quotas.look()


@shared_task(name=TaskName.PURGE.value)
def purge() -> None:
    """Forget keys, events and endpoints past their time, and erase images that nobody owns any more."""
    services().recovery.purge()
