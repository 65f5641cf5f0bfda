"""No address that a client made up is called unless it is checked."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from shared.domain.errors import ImageTooLargeError, ImageUrlFailedError, ImageUrlRefusedError
from shared.image_urls import fetch_image
from shared.outbound import OutboundPolicy, is_public

LOOPBACK = OutboundPolicy((ip_network("127.0.0.0/8"),), allow_http=True)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",  # loopback
        "::1",
        "0.0.0.0",
        "10.1.2.3",  # private
        "172.16.0.1",
        "192.168.1.1",
        "fd00::1",
        "100.64.0.1",  # carrier-grade NAT
        "169.254.169.254",  # link-local, where clouds keep their metadata
        "fe80::1",
        "224.0.0.1",  # multicast
        "ff02::1",
        "240.0.0.1",  # reserved
        "255.255.255.255",
        "192.0.2.1",  # documentation
        "2001:db8::1",
        "3fff::1",
        "198.18.0.1",  # benchmarks
        "192.88.99.1",  # 6to4 relay
        "fec0::1",  # site-local
        "::ffff:10.0.0.1",  # IPv4 in IPv6
        "2002:0a00:0001::1",  # 6to4 of 10.0.0.1
        "64:ff9b::a00:1",  # NAT64 of 10.0.0.1
        "64:ff9b:1::a00:1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "::ffff:93.184.216.34"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_the_operator_may_allow_a_network() -> None:
    assert is_public(ip_address("10.1.2.3"), (ip_network("10.1.0.0/16"),))
    assert is_public(ip_address("::ffff:10.1.2.3"), (ip_network("10.1.0.0/16"),))
    assert not is_public(ip_address("10.2.2.3"), (ip_network("10.1.0.0/16"),))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a.jpg",  # not encrypted
        "ftp://example.com/a.jpg",
        "file:///etc/passwd",
        "https:///a.jpg",
        "https://user:password@example.com/a.jpg",
        "https://example.com:22/a.jpg",
        "https://example.com:99999/a.jpg",
        "https://" + "a" * 64 + ".example/a.jpg",
        "https://" + "a." * 130 + "example/a.jpg",
        "https://a..example/a.jpg",
        "https://.example/a.jpg",
        "https://./a.jpg",
        "https://127.0.0.1/a.jpg",
        "https://[::1]/a.jpg",
        "https://[::ffff:127.0.0.1]/a.jpg",
        "https://2130706433/a.jpg",  # 127.0.0.1 as one number
        "https://0x7f000001/a.jpg",
        "https://0177.0.0.1/a.jpg",
        "https://169.254.169.254/latest/meta-data",
        "https://例子.测试/a.jpg",
    ],
)
def test_hostile_urls_are_refused_before_any_connection(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        pytest.fail("a connection was made")

    monkeypatch.setattr(socket.socket, "connect", connect)

    with pytest.raises(ImageUrlRefusedError):
        fetch_image(url, OutboundPolicy(), max_bytes=1000, deadline_seconds=5)


@contextmanager
def host(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[int, list[dict[str, str]]]]:
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        server.server_close()


def says(
    body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def fetch(port: int, *, name: str = "127.0.0.1", deadline: float = 5.0) -> bytes:
    return fetch_image(f"http://{name}:{port}/a.jpg", LOOPBACK, max_bytes=1000, deadline_seconds=deadline)


def test_an_allowed_host_gives_its_bytes() -> None:
    with host(says(b"image")) as (port, _):
        assert fetch(port) == b"image"


def test_the_name_is_resolved_once_and_that_address_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["127.0.0.1", "10.0.0.1"]
    asked: list[str] = []

    def resolve(name: str, port: int, *_: Any, **__: Any) -> list[Any]:
        asked.append(name)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers[len(asked) - 1], port))]

    with host(says(b"image")) as (port, seen):
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        content = fetch(port, name="cards.example")

    assert content == b"image"
    assert asked == ["cards.example"]
    assert seen[0]["Host"] == f"cards.example:{port}"


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [("93.184.216.34", 443), ("10.0.0.1", 443)]
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in places]
    )

    with pytest.raises(ImageUrlRefusedError):
        fetch_image("https://cards.example/a.jpg", OutboundPolicy(), max_bytes=1000, deadline_seconds=5)


def test_redirects_are_not_followed() -> None:
    with (
        host(says(b"", 302, {"Location": "http://127.0.0.1:1/"})) as (port, _),
        pytest.raises(ImageUrlFailedError, match="Redirects are not followed"),
    ):
        fetch(port)


def test_more_bytes_than_allowed_are_not_read() -> None:
    with host(says(b"x" * 100_000)) as (port, _), pytest.raises(ImageTooLargeError):
        fetch(port)


def test_an_image_cut_off_is_told() -> None:
    with host(says(b"half", 200, {"Content-Length": "500"})) as (port, _), pytest.raises(ImageUrlFailedError):
        fetch(port)


def test_no_credential_or_cookie_is_sent() -> None:
    with host(says(b"image")) as (port, seen):
        fetch(port)

    assert not {"Authorization", "Cookie"} & set(seen[0])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the peer is cut off in the middle
@pytest.mark.parametrize("where", ["headers", "body"])
def test_a_host_that_drips_is_cut_off(where: str) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        if where == "body":
            handler.send_response(200)
            handler.end_headers()
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(200):
            try:
                handler.wfile.write(b"x")
            except OSError:
                return
            time.sleep(0.05)

    with host(drip) as (port, _), pytest.raises(ImageUrlFailedError):
        fetch(port, deadline=0.5)
