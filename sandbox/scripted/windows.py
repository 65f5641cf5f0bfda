"""Four ways in which a vendor may count calls a second, strictly: nobody outside knows which one it uses."""

from collections import deque
from typing import Protocol

from sandbox.scripted.script import ScriptedAccount


class Window(Protocol):
    """Takes calls in or refuses them; times in seconds, never going back."""

    def admit(self, now: float) -> bool:
        """Whether the call that arrives now is taken; a refused one leaves no trace."""
        ...

    def leave(self) -> None:
        """A call that was taken has been answered."""
        ...


class SlidingWindow:
    """At most so many calls in any second behind the newest; below one a second, one in that many seconds."""

    def __init__(self, qps: float) -> None:
        self._limit = max(1, int(qps))
        self._seconds = 1.0 if qps >= 1 else 1.0 / qps
        self._taken: deque[float] = deque()

    def admit(self, now: float) -> bool:
        """Take or refuse the call that arrives now."""
        while self._taken and self._taken[0] <= now - self._seconds:
            self._taken.popleft()
        if len(self._taken) >= self._limit:
            return False
        self._taken.append(now)
        return True

    def leave(self) -> None:
        """Nothing is held by a call under way."""


class FixedWindow:
    """At most so many calls in each second of a clock; `phase` is where its seconds begin."""

    def __init__(self, qps: float, phase: float) -> None:
        self._limit = max(1, int(qps))
        self._seconds = 1.0 if qps >= 1 else 1.0 / qps
        self._phase = phase
        self._second, self._count = -1, 0

    def admit(self, now: float) -> bool:
        """Take or refuse the call that arrives now."""
        second = int((now - self._phase) // self._seconds)
        if second != self._second:
            self._second, self._count = second, 0
        if self._count >= self._limit:
            return False
        self._count += 1
        return True

    def leave(self) -> None:
        """Nothing is held by a call under way."""


class Bucket:
    """Holds so many tokens, filled at the rate; a call takes one."""

    def __init__(self, qps: float, size: float | None) -> None:
        self._qps = qps
        self._size = max(1.0, qps if size is None else size)
        self._tokens, self._at = self._size, float("-inf")

    def admit(self, now: float) -> bool:
        """Take or refuse the call that arrives now."""
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._qps)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def leave(self) -> None:
        """Nothing is held by a call under way."""


class InFlight:
    """At most so many calls under way, whatever their rate."""

    def __init__(self, qps: float) -> None:
        self._limit = max(1, int(qps))
        self._count = 0

    def admit(self, now: float) -> bool:  # noqa: ARG002 - the others' signature
        """Take or refuse the call that arrives now."""
        if self._count >= self._limit:
            return False
        self._count += 1
        return True

    def leave(self) -> None:
        """One fewer is under way."""
        self._count -= 1


def make_window(account: ScriptedAccount) -> Window:
    """The window of one endpoint of an account."""
    match account.window:
        case "sliding":
            return SlidingWindow(account.qps)
        case "fixed":
            return FixedWindow(account.qps, account.window_phase_seconds)
        case "bucket":
            return Bucket(account.qps, account.bucket_size)
        case "in_flight":
            return InFlight(account.qps)
