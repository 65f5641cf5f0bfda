"""Toy processes for the tests of the stack."""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kazheng.stack.lock import InstanceLock
from kazheng.stack.processes import Process
from kazheng.stack.supervisor import Supervisor
from shared.settings import Settings

NOTHING_SET = Settings.model_validate({})
SLEEPER = "import time; time.sleep(600)"


class Steps:
    """A listener that keeps the order in which processes got ready, or stopped."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def waiting(self, titles: Sequence[str]) -> None: ...

    def done(self, title: str, seconds: float) -> None:
        self.titles.append(title)


def toy(name: str, code: str = SLEEPER, priority: int = 1, **options: object) -> Process:
    code = f"exec({code!r})"  # one line, which is all a supervisord configuration takes
    return Process(name=name, title=name, argv=("python", "-c", code), priority=priority, **options)  # type: ignore[arg-type]


def http_toy(name: str, port: int, **options: object) -> Process:
    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    argv = ("python", "-m", "http.server", "--bind", "127.0.0.1", str(port))
    return Process(name=name, title=name, argv=argv, priority=1, is_ready=answers, **options)  # type: ignore[arg-type]


@contextmanager
def supervised(home: Path, processes: Sequence[Process]) -> Iterator[tuple[Supervisor, Steps]]:
    environment = dict(os.environ)
    with InstanceLock(home) as lock:
        supervisor = Supervisor(home, processes, lock=lock, environment=environment)
        try:
            yield supervisor, Steps()
        finally:
            supervisor.stop(Steps(), lambda: True)


def wait_until(claim: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777
