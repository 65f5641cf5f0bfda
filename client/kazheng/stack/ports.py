"""Whether the ports of the stack are free, asked before anything starts."""

import socket
from collections.abc import Iterable
from contextlib import suppress

import psutil

from kazheng.stack.errors import PortTakenError
from kazheng.stack.processes import Process


def check_ports(processes: Iterable[Process]) -> None:
    """See that every port is free, and wanted once.

    Raises:
        PortTakenError: one is not.
    """
    wanted: dict[int, Process] = {}
    for process in processes:
        if process.port is None:
            continue
        other = wanted.setdefault(process.port.number, process)
        if other is not process and other.port:
            raise PortTakenError(
                f"{other.title} and {process.title} are both set to port {process.port.number}. Choose another one with"
                f" {other.port.setting} or {process.port.setting}."
            )
        family = socket.AF_INET6 if ":" in process.port.host else socket.AF_INET
        with socket.socket(family) as probe:
            # As servers do: a port whose last connections still fade away counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((process.port.host, process.port.number))
            except OSError as error:
                raise PortTakenError(
                    f"{process.title} cannot listen on {process.port.host}:{process.port.number}"
                    f" ({error.strerror}{_listener(process.port.number)}). Stop what uses that port, or choose another"
                    f" one, for example with {process.port.setting}={_other_port(process.port.number)}."
                ) from None


def _other_port(port: int) -> int:
    return port + 1000 if port < 60000 else port - 1000


def _listener(port: int) -> str:
    """Who listens there, as far as this user may know."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f": pid {connection.pid}, {psutil.Process(connection.pid).name()}"
    return ""
