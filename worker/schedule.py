"""What runs periodically, and how often. Every one of these may run twice, late, or in two places."""

from typing import Any

from shared.queues import TaskName

_SWEEP_SECONDS = 5.0
_FOLLOW_SECONDS = 2.0
_WATCH_SECONDS = 30.0
_PURGE_SECONDS = 3600.0


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Celery's schedule. A message not taken before the next one is due is dropped (`expires`, in seconds)."""
    return {
        "sweep": {
            "task": TaskName.SWEEP.value,
            "schedule": _SWEEP_SECONDS,
            "options": {"expires": _SWEEP_SECONDS * 2},
        },
        "follow": {
            "task": TaskName.FOLLOW.value,
            "schedule": _FOLLOW_SECONDS,
            "options": {"expires": _FOLLOW_SECONDS * 2},
        },
        "watch-quotas": {
            "task": TaskName.WATCH_QUOTAS.value,
            "schedule": _WATCH_SECONDS,
            "options": {"expires": _WATCH_SECONDS},
        },
        "purge": {"task": TaskName.PURGE.value, "schedule": _PURGE_SECONDS, "options": {"expires": _PURGE_SECONDS}},
    }
