"""Runs a table of processes under supervisord: starts in order, restarts what dies, stops in order.

supervisord, instead of honcho: it restarts with growing pauses, rotates logs, drops privileges and stops groups in
order, and honcho stops everything as soon as one process ends.
"""

import os
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

from kazheng.stack.control import UNREACHABLE, State, connect, full_name, log_path, read_states, write_control
from kazheng.stack.errors import StackError, StartFailedError
from kazheng.stack.files import make_private_folder
from kazheng.stack.leftovers import end_leftovers, is_alive, kill_group, note_running
from kazheng.stack.lock import Holder, InstanceLock
from kazheng.stack.ports import check_ports
from kazheng.stack.processes import Process

_TAIL_LINES = 20


class Listener(Protocol):
    """Hears how far a start or stop has come."""

    def waiting(self, titles: Sequence[str]) -> None:
        """These are starting, or stopping, now; called again and again."""

    def done(self, title: str, seconds: float) -> None:
        """One got ready, or stopped, after so many seconds."""


class Supervisor:
    """The processes of one home, from first to last."""

    def __init__(
        self, home: Path, processes: Sequence[Process], *, lock: InstanceLock, environment: Mapping[str, str]
    ) -> None:
        """Starts nothing yet.

        Args:
            environment: the whole environment of the children.
        """
        self._home = home
        self._processes = {process.name: process for process in processes}
        self._supervised = {name: p for name, p in self._processes.items() if not p.one_shot}
        self._lock = lock
        self._environment = {**environment, **{k: v for p in processes for k, v in p.environment.items()}}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._one_shots: dict[str, subprocess.Popen[bytes]] = {}
        self._started_at: dict[str, float] = {}
        self._pids: dict[str, int] = {}
        self._fatal_since: dict[str, float] = {}

    # Start

    def start(self, listener: Listener) -> None:
        """Start everything, each after what it needs, and return when all are ready.

        Raises:
            PortTakenError: somebody else listens where a process wants to.
            StartFailedError: a process ended, or did not get ready in time; its last lines are in the message.
        """
        make_private_folder(self._home / "logs")
        for folder in ("beat", "run"):
            make_private_folder(self._home / folder)
        end_leftovers(self._home)
        check_ports(self._supervised.values())
        self._start_daemon()
        pending = dict(self._processes)
        ready: set[str] = set()
        probes: dict[str, Future[bool]] = {}
        executor = ThreadPoolExecutor(max_workers=len(self._processes), thread_name_prefix="probe")
        try:
            while len(ready) < len(self._processes):
                for name, process in list(pending.items()):
                    if process.after & self._processes.keys() <= ready:
                        del pending[name]
                        self._start_one(process)
                listener.waiting([self._processes[name].title for name in self._started_at if name not in ready])
                states = self.states()
                for name in self._started_at.keys() - ready:
                    if self._is_ready(self._processes[name], states.get(name), probes, executor):
                        ready.add(name)
                        listener.done(self._processes[name].title, time.monotonic() - self._started_at[name])
                time.sleep(0.05)
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    def _start_daemon(self) -> None:
        config = write_control(self._home, list(self._supervised.values()))
        errors = self._home / "logs" / "supervisord.stderr.log"
        with errors.open("wb") as stderr:
            # Its own session: Ctrl-C in the terminal must reach `kazheng up` alone, which stops all in order.
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "kazheng.stack.daemon", str(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=self._environment,
                pass_fds=[self._lock.descriptor],
                start_new_session=True,
                umask=0o077,  # logs, schedule and images are for their owner alone
            )
        self._lock.write(Holder(os.getpid(), self._daemon.pid))
        deadline = time.monotonic() + 20
        while True:
            with suppress(*UNREACHABLE), connect(self._home) as supervisord:
                supervisord.getState()
                return
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                log = self._home / "logs" / "supervisord.log"
                raise StartFailedError(f"supervisord did not start:\n{last_lines(errors)}\n{last_lines(log)}")
            time.sleep(0.05)

    def _start_one(self, process: Process) -> None:
        self._started_at[process.name] = time.monotonic()
        if not process.one_shot:
            with connect(self._home) as supervisord:
                supervisord.startProcess(full_name(process), False)
            return
        with self.log_path(process.name).open("ab") as log:
            self._one_shots[process.name] = subprocess.Popen(
                process.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                umask=0o077,  # logs, schedule and images are for their owner alone
            )

    def _is_ready(
        self, process: Process, state: State | None, probes: dict[str, Future[bool]], executor: ThreadPoolExecutor
    ) -> bool:
        if time.monotonic() - self._started_at[process.name] > process.ready_seconds:
            raise self._failure(process, f"did not get ready within {process.ready_seconds} seconds")
        if process.one_shot:
            code = self._one_shots[process.name].poll()
            if code:
                raise self._failure(process, f"failed (exit code {code})")
            return code == 0
        if state is None:
            return False
        first_pid = self._pids.setdefault(process.name, state.pid) or state.pid
        self._pids[process.name] = first_pid
        if state.state in ("BACKOFF", "EXITED", "FATAL") or (state.runs and state.pid != first_pid):
            raise self._failure(process, "ended while starting")
        if process.is_ready is None:
            return state.state == "RUNNING"
        # In a thread: a probe may wait for an answer, and the others need not wait with it.
        probe = probes.get(process.name)
        if probe is None or (probe.done() and not probe.result()):
            probes[process.name] = executor.submit(process.is_ready)
            return False
        return probe.done()

    def _failure(self, process: Process, what: str) -> StartFailedError:
        path = self.log_path(process.name)
        return StartFailedError(f"{process.title} {what}. The last lines of {path}:\n\n{last_lines(path)}")

    # While it runs

    @property
    def is_started(self) -> bool:
        """Whether there is anything to stop."""
        return self._daemon is not None

    def log_path(self, name: str) -> Path:
        """Where the output of a process is kept."""
        return log_path(self._home, name)

    def states(self) -> dict[str, State]:
        """How each supervised process is.

        Raises:
            StackError: supervisord is gone.
        """
        if self._daemon and self._daemon.poll() is not None:
            raise StackError(
                f"supervisord ended unexpectedly; see {self._home / 'logs' / 'supervisord.log'}. Start again with"
                " `kazheng up`: nothing accepted is lost."
            )
        try:
            found = read_states(self._home)
        except UNREACHABLE as error:
            raise StackError(f"supervisord does not answer ({type(error).__name__}).") from error
        note_running(self._home, {s.pid: self._supervised[s.name].stop_signal for s in found.values() if s.runs})
        return found

    def check(self) -> list[str]:
        """Look after the processes once everything runs.

        Returns:
            a sentence for each process that ended since the last time, which supervisord starts again.
        """
        before = dict(self._pids)
        sentences = []
        for name, state in self.states().items():
            title, old = self._supervised[name].title, before.get(name, 0)
            if state.state == "FATAL":
                if name not in self._fatal_since:
                    sentences.append(f"{title} does not stay up; trying again every minute. See {self.log_path(name)}")
                self._revive(name)
            elif state.runs and old and state.pid != old:
                sentences.append(f"{title} ended unexpectedly and was started again. See {self.log_path(name)}")
            if state.state == "RUNNING":
                self._fatal_since.pop(name, None)
            if state.runs:
                self._pids[name] = state.pid
        return sentences

    def _revive(self, name: str) -> None:
        now = time.monotonic()
        if now - self._fatal_since.setdefault(name, now) >= 60:
            self._fatal_since[name] = now
            with suppress(xmlrpc.client.Fault), connect(self._home) as supervisord:
                supervisord.startProcess(full_name(self._supervised[name]), False)

    # Stop

    def stop(self, listener: Listener, is_hurried: Callable[[], bool]) -> None:
        """Stop everything in order and return when nothing runs any more. Safe after a start cut short.

        Args:
            is_hurried: asked again and again; once True, what does not guard data is killed.
        """
        for one_shot in self._one_shots.values():
            if one_shot.poll() is None:
                one_shot.terminate()
                with suppress(subprocess.TimeoutExpired):
                    one_shot.wait(10)
                one_shot.kill()
        if self._daemon is None:
            return
        with suppress(StackError):
            for name, state in self.states().items():
                self._pids[name] = state.pid
        began = time.monotonic()
        running = {name for name, pid in self._pids.items() if pid and psutil.pid_exists(pid)}
        try:
            with connect(self._home) as supervisord:
                supervisord.shutdown()
        except UNREACHABLE:
            self._daemon.terminate()
        while self._daemon.poll() is None:
            listener.waiting([self._processes[name].title for name in self._in_stop_order(running)])
            for name in self._in_stop_order(running):
                if not is_alive(self._pids[name]):
                    running.discard(name)
                    listener.done(self._processes[name].title, time.monotonic() - began)
                elif is_hurried() and not self._processes[name].guards_data:
                    kill_group(self._pids[name])
            # supervisord looks at its children once a second, or when it is spoken to: seven groups, seven seconds.
            with suppress(*UNREACHABLE), connect(self._home) as supervisord:
                supervisord.getState()
            time.sleep(0.05)
        if self._daemon.stdin:
            self._daemon.stdin.close()
        for name in self._in_stop_order(running):
            listener.done(self._processes[name].title, time.monotonic() - began)
        end_leftovers(self._home)  # nothing, unless supervisord itself was killed

    def _in_stop_order(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=lambda name: (-self._processes[name].priority, name))


def last_lines(path: Path, count: int = _TAIL_LINES) -> str:
    """The end of a log, indented."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 65536))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        lines = []
    return "\n".join(f"    {line}" for line in lines[-count:]) or "    (it wrote nothing)"
