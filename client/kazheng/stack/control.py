"""supervisord's configuration, and its XML-RPC interface.

It is reached on a unix socket in the home, or on a random port of 127.0.0.1 where the home is too deep for a socket
path. Either way it wants a password, which is in files of mode 0600.
"""

import http.client
import json
import os
import secrets
import shlex
import xmlrpc.client
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from kazheng.stack.errors import StackError
from kazheng.stack.files import write_private
from kazheng.stack.processes import Process
from kazheng.stack.valkey import free_port

# macOS allows 104 bytes with the ending zero, and supervisord first binds a longer name: the path, a dot, its pid.
_SOCKET_PATH_BYTES = 104 - 1 - 8
# After this many pauses of 1, 2, 3 … seconds supervisord gives up; `Supervisor.check` starts over.
_RETRIES = 30
UNREACHABLE = (OSError, http.client.HTTPException, xmlrpc.client.Error)
"""What is raised when a supervisord starts, stops or is gone."""


@dataclass(frozen=True)
class State:
    """What supervisord knows about one process."""

    name: str
    state: str
    """RUNNING, STARTING, BACKOFF, STOPPING, EXITED, STOPPED or FATAL."""
    pid: int
    """0 when it does not run."""
    started_at: int
    """Seconds since 1970."""

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self.pid != 0


@contextmanager
def connect(home: Path) -> Iterator[Any]:
    """The XML-RPC interface of the supervisord that runs in a home.

    Raises:
        OSError: none does.
    """
    control = json.loads((home / "run" / "control.json").read_text())
    transport = SupervisorTransport(control["username"], control["password"], control["address"])
    # The address in the proxy is not used: the transport knows it, and proxies accept no unix socket.
    with closing(transport):
        yield xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor


def read_states(home: Path) -> dict[str, State]:
    """How each process of the running stack is, by name.

    Raises:
        UNREACHABLE: no supervisord runs in this home, or it stops.
    """
    with connect(home) as supervisord:
        rows = supervisord.getAllProcessInfo()
    return {row["name"]: State(row["name"], row["statename"], row["pid"], row["start"]) for row in rows}


def log_path(home: Path, name: str) -> Path:
    """Where the output of a process is kept."""
    return home / "logs" / f"{name}.log"


def full_name(process: Process) -> str:
    """What supervisord calls a process: those that stop together are a group."""
    return f"{_group(process.priority)}:{process.name}"


def _group(priority: int) -> str:
    return f"stop{priority}"


def write_control(home: Path, processes: Sequence[Process]) -> Path:
    """Write supervisord's configuration, and beside it how to reach it.

    Returns:
        the configuration file.
    """
    run = home / "run"
    username, password = "kazheng", secrets.token_urlsafe(24)
    socket_path = run / "supervisor.sock"
    if len(os.fsencode(socket_path)) <= _SOCKET_PATH_BYTES:
        server, address = {"unix_http_server": {"file": socket_path, "chmod": "0700"}}, f"unix://{socket_path}"
    else:
        port = free_port()
        server, address = {"inet_http_server": {"port": f"127.0.0.1:{port}"}}, f"http://127.0.0.1:{port}"
    next(iter(server.values())).update(username=username, password=password)
    sections: dict[str, dict[str, object]] = {
        "supervisord": {
            "logfile": home / "logs" / "supervisord.log",
            "logfile_maxbytes": "1MB",
            "logfile_backups": 1,
            "pidfile": run / "supervisord.pid",
            "childlogdir": home / "logs",
            "silent": "true",
            **({"user": "root"} if os.geteuid() == 0 else {}),
        },
        **server,
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
    }
    for process in processes:
        sections[f"program:{process.name}"] = _program(home, process)
    for priority in sorted({process.priority for process in processes}):
        members = [process.name for process in processes if process.priority == priority]
        sections[f"group:{_group(priority)}"] = {"programs": ",".join(members), "priority": priority}
    control = {"address": address, "username": username, "password": password}
    write_private(run / "control.json", json.dumps(control))
    write_private(run / "supervisord.conf", _render(sections))
    return run / "supervisord.conf"


def _program(home: Path, process: Process) -> dict[str, object]:
    return {
        "command": shlex.join(process.command),
        "autostart": "false",
        "autorestart": "true",
        "startsecs": process.settle_seconds,
        "startretries": _RETRIES,
        "stopsignal": process.stop_signal,
        "stopwaitsecs": process.stop_seconds,
        # The first signal goes to the process alone, which leads its own children out (gunicorn, PostgreSQL);
        # the last one, after the wait, to all it has started.
        "stopasgroup": "false",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": log_path(home, process.name),
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": 3,
        **({"user": process.user} if process.user else {}),
        **({"directory": process.directory} if process.directory else {}),
    }


def _render(sections: Mapping[str, Mapping[str, object]]) -> str:
    text = ""
    for section, values in sections.items():
        text += f"[{section}]\n"
        for name, value in values.items():
            line = str(value)
            if "\n" in line or " #" in line or " ;" in line:  # a comment to supervisord's parser, quoted or not
                raise StackError(
                    f"supervisord cannot take {line!r}. Choose a KAZHENG_HOME without ' #' and ' ;' in it."
                )
            text += f"{name} = {line.replace('%', '%%')}\n"
        text += "\n"
    return text
