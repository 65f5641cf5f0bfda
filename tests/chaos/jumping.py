"""Kazheng's worker on a machine whose clock is off by as many seconds as a file says."""

import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import shared.clock

_FILE = Path(os.environ["CHAOS_CLOCK"])
_LOOK_SECONDS = 0.2
_true_time = time.time
_off, _looked_at = 0.0, 0.0


def _time() -> float:
    global _off, _looked_at  # noqa: PLW0603 - a clock of the whole process
    if time.monotonic() - _looked_at > _LOOK_SECONDS:
        _looked_at = time.monotonic()
        with suppress(OSError, ValueError):
            _off = float(_FILE.read_text())
    return _true_time() + _off


# Before anybody takes the true ones by name.
time.time = _time
shared.clock.utc_now = lambda: datetime.fromtimestamp(_time(), UTC)

from worker.main import app  # noqa: E402

__all__ = ["app"]
