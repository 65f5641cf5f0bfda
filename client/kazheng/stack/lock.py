"""One stack per home: a lock that ends with the processes that hold it, however they end.

`kazheng up` takes it and hands it down to supervisord, which keeps it while it stops what an `up` killed outright left
behind. The children of supervisord do not inherit it (supervisord closes all descriptors but three before it runs one).
"""

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from kazheng.stack.errors import AlreadyRunningError
from kazheng.stack.files import make_private_folder


@dataclass(frozen=True)
class Holder:
    """Who runs the stack of a home; 0 for a process not started yet."""

    up_pid: int
    supervisord_pid: int


class InstanceLock:
    """Held from before anything is touched until everything is stopped."""

    def __init__(self, home: Path) -> None:
        """Takes nothing yet."""
        self._home = home
        self._descriptor = -1

    @property
    def descriptor(self) -> int:
        """What a process must inherit to hold the lock too."""
        return self._descriptor

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            AlreadyRunningError: somebody has it.
        """
        path = make_private_folder(make_private_folder(self._home) / "run") / "lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._descriptor)
            found = holder(self._home)
            pid = f" (pid {found.up_pid})" if found and found.up_pid else ""
            raise AlreadyRunningError(
                f"Another `kazheng up`{pid} runs or is still stopping in {self._home}. Stop it with `kazheng down`,"
                " or start a second one beside it with another KAZHENG_HOME and other ports."
            ) from None
        self.write(Holder(os.getpid(), 0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go."""
        os.close(self._descriptor)

    def write(self, by: Holder) -> None:
        """Say who holds it."""
        text = json.dumps({"up_pid": by.up_pid, "supervisord_pid": by.supervisord_pid}).encode()
        os.pwrite(self._descriptor, text, 0)
        os.ftruncate(self._descriptor, len(text))


def holder(home: Path) -> Holder | None:
    """Who runs a stack in this home, or None when nobody does."""
    try:
        file = (home / "run" / "lock").open()
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                return Holder(**json.loads(file.read()))
            except (ValueError, TypeError):
                return Holder(0, 0)
    return None
