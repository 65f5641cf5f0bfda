"""The time of day, replaceable in tests; the sandbox shares no code but the settings with what it tests."""

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Gives the present moment."""

    def __call__(self) -> datetime:
        """The present moment, aware, UTC."""
        ...


def utc_now() -> datetime:
    """The present moment, aware, UTC."""
    return datetime.now(UTC)
