"""The supervisor, with real processes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from kazheng.stack.control import read_states
from kazheng.stack.errors import AlreadyRunningError, PortTakenError, StackError, StartFailedError
from kazheng.stack.lock import InstanceLock, holder
from kazheng.stack.ports import check_ports
from kazheng.stack.processes import Port
from kazheng.stack.valkey import free_port
from tests.integration.stack_tools import SLEEPER, Steps, http_toy, supervised, toy, wait_until


def test_processes_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    mark = tmp_path / "migrated"
    processes = [
        toy("intake", priority=3, after=frozenset({"tables"}), settle_seconds=0),
        toy("tables", f"open({str(mark)!r}, 'w')", one_shot=True, after=frozenset({"store"})),
        http_toy("store", free_port()),
        toy("feeder", priority=2, after=frozenset({"intake"}), settle_seconds=0),
    ]
    stopped = Steps()

    with supervised(tmp_path / "home", processes) as (supervisor, started):
        supervisor.start(started)
        supervisor.stop(stopped, lambda: False)

    assert started.titles == ["store", "tables", "intake", "feeder"]
    assert mark.exists()
    assert stopped.titles == ["intake", "feeder", "store"]


def test_process_that_dies_is_started_again(tmp_path: Path) -> None:
    with supervised(tmp_path / "home", [toy("worker", settle_seconds=0)]) as (supervisor, steps):
        supervisor.start(steps)
        supervisor.check()
        first = supervisor.states()["worker"].pid

        os.kill(first, signal.SIGKILL)

        wait_until(lambda: supervisor.states()["worker"].pid not in (0, first))
        assert supervisor.check() == [
            f"worker ended unexpectedly and was started again. See {supervisor.log_path('worker')}"
        ]
        assert supervisor.check() == []


def test_process_that_fails_to_start_is_named_with_its_last_lines(tmp_path: Path) -> None:
    failing = toy("api", "import sys; print('no such card'); sys.exit(3)")

    with (
        supervised(tmp_path / "home", [toy("store"), failing]) as (supervisor, steps),
        pytest.raises(StartFailedError, match=r"(?s)api ended while starting.*api\.log.*no such card"),
    ):
        supervisor.start(steps)


def test_failed_command_stops_the_start(tmp_path: Path) -> None:
    processes = [
        toy("tables", "raise SystemExit('table is locked')", one_shot=True),
        toy("api", after=frozenset({"tables"})),
    ]

    with supervised(tmp_path / "home", processes) as (supervisor, steps):
        with pytest.raises(StartFailedError, match=r"(?s)tables failed \(exit code 1\).*table is locked"):
            supervisor.start(steps)

        assert not supervisor.states()["api"].runs


def test_silent_process_is_given_up(tmp_path: Path) -> None:
    silent = toy("api", is_ready=lambda: False, ready_seconds=1)

    with (
        supervised(tmp_path / "home", [silent]) as (supervisor, steps),
        pytest.raises(StartFailedError, match="did not get ready within 1 seconds"),
    ):
        supervisor.start(steps)


def test_impatient_stop_kills_all_but_what_guards_data(tmp_path: Path) -> None:
    ready, stubborn = tmp_path / "ready", "import signal, time; signal.signal(15, lambda *_: None)"
    code = f"{stubborn}\nopen({str(ready)!r}, 'w')\nwhile True: time.sleep(1)"
    goodbye = tmp_path / "goodbye"
    polite = f"import signal, sys, time; signal.signal(15, lambda *_: (open({str(goodbye)!r}, 'w'), sys.exit()))"
    processes = [
        toy("worker", code, priority=2, stop_seconds=60, is_ready=ready.exists),
        toy("store", f"{polite}\nwhile True: time.sleep(1)", guards_data=True),
    ]

    with supervised(tmp_path / "home", processes) as (supervisor, steps):
        supervisor.start(steps)
        began = time.monotonic()
        supervisor.stop(steps, lambda: time.monotonic() - began > 0.5)

    assert time.monotonic() - began < 10
    assert goodbye.exists()


def test_home_too_deep_for_a_socket_still_works(tmp_path: Path) -> None:
    home = tmp_path / ("d" * 60) / ("e" * 60)

    with supervised(home, [toy("worker", settle_seconds=0)]) as (supervisor, steps):
        supervisor.start(steps)

        assert read_states(home)["worker"].runs
        assert not (home / "run" / "supervisor.sock").exists()


def test_taken_port_is_named_with_the_setting_that_moves_it() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        api = toy("api", port=Port("127.0.0.1", port, "KAZHENG_API_PORT"))

        with pytest.raises(PortTakenError, match=rf"api cannot listen on 127\.0\.0\.1:{port}.*KAZHENG_API_PORT="):
            check_ports([api])


def test_one_port_for_two_is_refused() -> None:
    port = free_port()
    processes = [toy(name, port=Port("127.0.0.1", port, f"KAZHENG_{name}_PORT")) for name in ("API", "FLOWER")]

    with pytest.raises(PortTakenError, match=r"API and FLOWER.*KAZHENG_API_PORT or KAZHENG_FLOWER_PORT"):
        check_ports(processes)


def test_second_instance_is_told_of_the_first(tmp_path: Path) -> None:
    with InstanceLock(tmp_path):
        with pytest.raises(AlreadyRunningError, match=rf"pid {os.getpid()}.*kazheng down"), InstanceLock(tmp_path):
            pass

        assert holder(tmp_path) is not None
    assert holder(tmp_path) is None


def test_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()

    with pytest.raises(StackError, match=r"cannot be written.*KAZHENG_HOME"), InstanceLock(in_the_way / "home"):
        pass


# `up` itself is killed. It is played by a small program, for it cannot be this one.

_UP = f"""
import os, sys, time
from pathlib import Path
from kazheng.stack.lock import InstanceLock
from kazheng.stack.processes import Process
from kazheng.stack.supervisor import Supervisor

class Quiet:
    def waiting(self, titles): pass
    def done(self, title, seconds): pass

home = Path(sys.argv[1])
toy = Process(name="toy", title="toy", argv=("python", "-c", {SLEEPER!r}), priority=1)
with InstanceLock(home) as lock:
    supervisor = Supervisor(home, [toy], lock=lock, environment=dict(os.environ))
    supervisor.start(Quiet())
    supervisor.states()
    (home / "started").touch()
    time.sleep(600)
"""


@contextmanager
def killed_up(home: Path, *, with_supervisord: bool) -> Iterator[psutil.Process]:
    """The toy process of an `up` that was just killed."""
    up = subprocess.Popen([sys.executable, "-c", _UP, str(home)])
    wait_until((home / "started").exists)
    found = holder(home)
    assert found is not None
    child = psutil.Process(read_states(home)["toy"].pid)
    try:
        if with_supervisord:
            os.kill(found.supervisord_pid, signal.SIGKILL)
        up.kill()
        up.wait()
        if with_supervisord:  # a killed process keeps its locks until the system has taken it apart
            wait_until(lambda: holder(home) is None)
        yield child
    finally:
        if child.is_running():
            child.kill()


def test_killed_up_leaves_nothing_behind(tmp_path: Path) -> None:
    with killed_up(tmp_path, with_supervisord=False) as child:
        wait_until(lambda: not child.is_running() and holder(tmp_path) is None)


def test_next_start_ends_what_a_killed_supervisord_left(tmp_path: Path) -> None:
    with killed_up(tmp_path, with_supervisord=True) as child:
        assert child.is_running()

        with supervised(tmp_path, [toy("other", settle_seconds=0)]) as (supervisor, steps):
            supervisor.start(steps)

            assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
