"""Receivers of webhooks: real servers on this machine, good ones and hostile ones."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Seen:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Where it listens, and what it has seen."""

    url: str
    seen: list[Seen] = field(default_factory=list)
    connections: set[int] = field(default_factory=set)

    @property
    def event_ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.seen]


Behavior = Callable[[BaseHTTPRequestHandler], None]


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Callers that hang up are what some of these tests are about."""


@contextmanager
def receiver(behavior: Behavior | None = None, *, host: str = "127.0.0.1") -> Iterator[Receiver]:
    """A receiver that answers 200, or behaves otherwise."""
    behave = behavior or answers(200)
    found = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found.connections.add(self.client_address[1])
            found.seen.append(Seen(self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            with suppress(OSError):
                behave(self)

        def log_message(self, *_: object) -> None:
            pass

    server = _Quiet((host, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    found.url = f"http://{host}:{server.server_port}/hook"
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def answers(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"ok") -> Behavior:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def answers_as(status: list[int]) -> Behavior:
    """With whatever status stands in the list by then."""

    def behave(handler: BaseHTTPRequestHandler) -> None:
        answers(status[0])(handler)

    return behave


def hangs(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(60)


def drips_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _drip(handler)


def drips_body(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
    _drip(handler)


def _drip(handler: BaseHTTPRequestHandler) -> None:
    for _ in range(1200):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.05)


def floods(handler: BaseHTTPRequestHandler) -> None:
    """A body without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(b"x" * 65_536)


def floods_headers(handler: BaseHTTPRequestHandler) -> None:
    """Headers without an end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        handler.wfile.write(b"X-More: " + b"x" * 1000 + b"\r\n")


def cuts_off(handler: BaseHTTPRequestHandler) -> None:
    """Hangs up in the middle of its answer."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf")
    handler.close_connection = True


def hangs_up(handler: BaseHTTPRequestHandler) -> None:
    """Takes the request and closes the connection without a word."""
    handler.close_connection = True


def speaks_no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    handler.close_connection = True


def redirects(to: str) -> Behavior:
    return answers(302, {"Location": to})
