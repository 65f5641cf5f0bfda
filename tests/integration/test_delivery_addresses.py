"""Where deliveries go: to the address that was checked, with the right name, and nowhere else."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine

from shared.domain.webhook import DeliveryStatus
from shared.outbound import AddressRefusedError, OutboundPolicy, check_url
from shared.settings import Settings
from tests.integration.webhook_bench import WebhookBench
from tests.receivers import answers, receiver

HOSTILE = [
    "http://127.0.0.1/hook",
    "http://localhost/hook",
    "http://anything.localhost/hook",
    "http://[::1]/hook",
    "http://0.0.0.0/hook",
    "http://[::]/hook",
    "http://127.1/hook",
    "http://2130706433/hook",
    "http://0x7f000001/hook",
    "http://0177.0.0.1/hook",
    "http://[::ffff:127.0.0.1]/hook",
    "http://[::ffff:7f00:1]/hook",
    "http://10.0.0.1/hook",
    "http://172.16.0.1/hook",
    "http://192.168.1.1/hook",
    "http://100.64.0.1/hook",
    "http://169.254.169.254/latest/meta-data",
    "http://[fe80::1]/hook",
    "http://[fd00:ec2::254]/hook",
    "http://[64:ff9b::7f00:1]/hook",
    "http://[2002:7f00:1::]/hook",
    "http://224.0.0.1/hook",
    "http://255.255.255.255/hook",
    "http://198.18.0.1/hook",
    "http://192.0.2.1/hook",
]


@pytest.fixture
def walled(settings: Settings, engine: Engine) -> WebhookBench:
    """As operated: no private network is allowed. Plain HTTP is, so that nothing else stops these."""
    return WebhookBench(settings, engine, outbound_allowed_networks=())


@pytest.mark.parametrize("url", HOSTILE)
def test_no_hostile_address_is_connected_to(walled: WebhookBench, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AddressRefusedError):
        check_url(url, OutboundPolicy(allow_http=True))
    endpoint = walled.register(url)
    walled.canceled()
    walled.place()
    connect = socket.socket.connect

    def refuse(opened: socket.socket, place: Any) -> None:
        if opened.family != socket.AF_UNIX and str(place[1]) in ("80", "443"):
            pytest.fail(f"connected to {place}")
        connect(opened, place)

    monkeypatch.setattr(socket.socket, "connect", refuse)
    walled.service.deliver(endpoint.id)

    (delivery,) = walled.log(endpoint)
    assert delivery.status is DeliveryStatus.PENDING
    assert "not public" in delivery.attempts[0]["error"]


@contextmanager
def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> Iterator[list[str]]:
    """A name server for `.example`: each question gets the next answer, the last one for good."""
    asked: list[str] = []
    real, left = socket.getaddrinfo, list(answers)

    def resolve(host: str, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        if not str(host).endswith(".example"):
            return real(host, port, *args, **kwargs)
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield asked


def test_a_name_that_answers_twice_differently_gains_nothing(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = WebhookBench(settings, engine)
    with receiver() as there, names(monkeypatch, ["127.0.0.1"], ["10.0.0.1"]) as asked:
        port = there.url.split(":")[2].split("/")[0]
        endpoint = bench.register(f"http://hooks.example:{port}/hook")
        bench.canceled()
        bench.canceled()
        bench.deliver(endpoint)

    assert asked == ["hooks.example"]
    assert len(there.seen) == 2
    assert there.seen[0].headers["host"] == f"hooks.example:{port}"


def test_one_private_address_among_public_ones_is_enough(walled: WebhookBench, monkeypatch: pytest.MonkeyPatch) -> None:
    with names(monkeypatch, ["93.184.216.34", "10.0.0.1"]):
        endpoint = walled.register("http://hooks.example/hook")
        walled.canceled()
        walled.deliver(endpoint)

    assert "not public" in walled.log(endpoint)[0].attempts[0]["error"]


def test_a_receiver_that_closes_each_connection_uses_up_no_file_descriptors(settings: Settings, engine: Engine) -> None:
    bench, process = WebhookBench(settings, engine), psutil.Process()
    opened: list[int] = []

    def closes(handler: BaseHTTPRequestHandler) -> None:
        answers(200, {"Connection": "close", "Set-Cookie": "session=1"})(handler)
        handler.close_connection = True
        opened.append(process.num_fds())

    with receiver(closes) as there:
        endpoint = bench.register(there.url)
        for _ in range(40):
            bench.canceled()
        bench.deliver(endpoint)

    assert len(there.connections) == 40
    assert max(opened[20:]) - min(opened[:20]) < 10
    assert not [seen for seen in there.seen if "cookie" in seen.headers]


def test_plain_http_needs_leave(settings: Settings, engine: Engine) -> None:
    bench = WebhookBench(settings, engine, outbound_allow_http=False)
    with receiver() as there:
        endpoint = bench.register(there.url)
        bench.canceled()
        bench.deliver(endpoint)

    assert there.seen == []
    assert "must begin with https://" in bench.log(endpoint)[0].attempts[0]["error"]


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of its own for hooks.example, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hooks.example")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()))
    return certificate_file, key_file


@contextmanager
def encrypted(certificate: Path, key: Path) -> Iterator[tuple[int, list[str | None]]]:
    """A receiver behind TLS: its port, and which names it was asked for (SNI)."""
    wanted: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.sni_callback = lambda _socket, name, _context: wanted.append(name)
    server = Quiet(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_port, wanted
    finally:
        server.shutdown()
        server.server_close()


def test_the_certificate_is_checked_for_the_name_not_the_address(
    settings: Settings, engine: Engine, authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = WebhookBench(settings, engine, outbound_allow_http=False, outbound_ca_file=authority[0])
    with encrypted(*authority) as (port, wanted), names(monkeypatch, ["127.0.0.1"]):
        good = bench.register(f"https://hooks.example:{port}/hook")
        other = bench.register(f"https://other.example:{port}/hook")
        bench.canceled()
        bench.deliver(good)
        bench.deliver(other)

    assert bench.log(good)[0].status is DeliveryStatus.SUCCEEDED
    assert wanted == ["hooks.example", "other.example"]
    assert "certificate is not valid" in bench.log(other)[0].attempts[0]["error"]


def test_an_unknown_authority_is_refused(
    settings: Settings, engine: Engine, authority: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = WebhookBench(settings, engine)
    with encrypted(*authority) as (port, _), names(monkeypatch, ["127.0.0.1"]):
        endpoint = bench.register(f"https://hooks.example:{port}/hook")
        bench.canceled()
        bench.deliver(endpoint)

    assert "certificate is not valid" in bench.log(endpoint)[0].attempts[0]["error"]


def test_a_name_server_that_says_nothing_does_not_hold_a_thread_for_long(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = WebhookBench(settings, engine, webhook_timeout_seconds=0.3)
    silent = threading.Event()
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host == "hooks.example":
            silent.wait(30)
            raise OSError
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    endpoint = bench.register("https://hooks.example/hook")
    bench.canceled()
    bench.deliver(endpoint)
    silent.set()

    assert "No complete answer within" in bench.log(endpoint)[0].attempts[0]["error"]
