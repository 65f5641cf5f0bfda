"""What outlives its supervisord, which takes `kill -9` on it and on `kazheng up` both."""

import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from kazheng.stack.files import write_private


def note_running(home: Path, stop_signals: Mapping[int, str]) -> None:
    """Write down what runs now, for the next start.

    Args:
        stop_signals: by process id, the signal that ends it in good order.
    """
    rows = []
    for pid, stop_signal in stop_signals.items():
        with suppress(psutil.NoSuchProcess):
            rows.append([pid, psutil.Process(pid).create_time(), stop_signal])
    path = home / "run" / "processes.json"
    text = json.dumps(rows)
    if not path.exists() or path.read_text() != text:
        write_private(path, text)


def end_leftovers(home: Path) -> None:
    """End processes noted as running by a start before this one.

    A process id may belong to somebody else by now, so the time of its start must match too.
    """
    path = home / "run" / "processes.json"
    try:
        rows = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return
    found: list[psutil.Process] = []
    for pid, created_at, stop_signal in rows:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.create_time() == created_at:
                process.send_signal(signal.Signals[f"SIG{stop_signal}"])
                found.append(process)
    for process in psutil.wait_procs(found, timeout=15)[1]:
        kill_group(process.pid)
    psutil.wait_procs(found, timeout=5)
    path.unlink(missing_ok=True)


def is_alive(pid: int) -> bool:
    """Whether the process still runs; one that ended and was not asked for its exit code does not."""
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def kill_group(pid: int) -> None:
    """Kill a supervised process and what it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # supervisord makes each process the leader of its own group
