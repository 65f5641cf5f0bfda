"""Decoders as bad as they come, for processes that import them."""

import os
import signal
import time

from shared.domain.documents import Limits
from worker.providers.protocol import PreparedImage


def hang(content: bytes, limits: Limits) -> PreparedImage:
    """Never comes back."""
    time.sleep(3600)
    raise AssertionError


def eat_memory(content: bytes, limits: Limits) -> PreparedImage:
    """Wants more than there is."""
    hoard = [bytearray(100_000_000) for _ in range(1000)]
    raise AssertionError(len(hoard))


def die(content: bytes, limits: Limits) -> PreparedImage:
    """Takes its process with it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
