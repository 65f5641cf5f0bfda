"""HTTP to addresses that clients gave us: images are fetched from some, events delivered to others.

The host's name is resolved once, every address it has is checked, and the very address that was checked is the one
connected to: a name that resolves differently a moment later gains nothing. Name and TLS server name stay the client's,
so certificates are verified as ever. No redirect is followed, no proxy or credential of the environment is used, and
the whole exchange has one deadline: `requests` times single reads, so a watchdog shuts the socket of a peer that
drips.
"""

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError
from urllib3.poolmanager import PoolManager
from urllib3.util.ssl_ import create_urllib3_context

from shared.settings import Settings

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_CONNECT_SECONDS = 3.0
# Global to some version of Python's `ipaddress`, yet not to be called: NAT64 (RFC 6052, RFC 8215), which embeds an
# IPv4 address that may be private; site-local (RFC 3879); documentation (RFC 9637); 6to4 relays (RFC 7526).
_REFUSED: tuple[Network, ...] = (
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("fec0::/10"),
    IPv6Network("3fff::/20"),
    IPv4Network("192.88.99.0/24"),
)


@dataclass(frozen=True)
class OutboundPolicy:
    """Which addresses may be called: public ones, and those in the networks the operator allows."""

    allowed_networks: tuple[Network, ...] = ()
    allow_http: bool = False
    ca_file: Path | None = None
    """Certificates of authorities that are trusted instead of the public ones."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What the operator has set."""
        return cls(settings.outbound_allowed_networks, settings.outbound_allow_http, settings.outbound_ca_file)


class AddressRefusedError(Exception):
    """The address may not be called; the message says why, without its subject."""


def is_public(address: Address, allowed: tuple[Network, ...] = ()) -> bool:
    """Whether an address may be called: global unicast, or in a network the operator allows."""
    if any(address in network for network in allowed):
        return True
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped, allowed)
        if address.sixtofour is not None or address.teredo is not None:
            return False
    if any(address in network for network in _REFUSED):
        return False
    # `is_global` alone lets multicast through.
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_link_local
    )


def resolve(host: str, port: int, allowed: tuple[Network, ...]) -> list[Any]:
    """What `socket.getaddrinfo` says of a host, if all of it may be called.

    Raises:
        AddressRefusedError: one of its addresses may not be called.
        OSError: it has none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # what its codec takes for no name
        raise OSError("no name") from error
    for *_, place in found:
        if not is_public(ip_address(str(place[0]).partition("%")[0]), allowed):
            raise AddressRefusedError("stands for an address that is not public.")
    return found


def _resolve_until(host: str, port: int, allowed: tuple[Network, ...], deadline: float) -> list[Any]:
    """`resolve`, given up at an instant by `time.monotonic`: a name server may take half a minute to say nothing."""
    answers: SimpleQueue[list[Any] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(resolve(host, port, allowed))
        except Exception as error:  # noqa: BLE001 - raised by who waits for it
            answers.put(error)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
    except Empty:
        raise OSError("the name was not resolved in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class _Door:
    """Opens connections to checked addresses only, and can end the one in use."""

    def __init__(self, allowed: tuple[Network, ...]) -> None:
        self.deadline = float("inf")
        self._allowed = allowed
        self._lock = threading.Lock()
        self._opened: socket.socket | None = None
        self._shut = False

    def connect(self, host: str, port: int) -> socket.socket:
        _check_port(port)
        failure: OSError = OSError("no address")
        for family, kind, protocol, _, place in _resolve_until(host, port, self._allowed, self.deadline):
            opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(min(_CONNECT_SECONDS, max(0.001, self.deadline - time.monotonic())))
                # Head and body go in two segments: the second would wait 40 ms for the first's acknowledgement.
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                opened.connect(place)
                self._remember(opened)
            except OSError as error:
                opened.close()
                failure = error
            else:
                return opened
        raise failure

    def _remember(self, opened: socket.socket) -> None:
        # A second handle on the same connection: TLS takes the first one over.
        with self._lock:
            if self._shut:
                raise OSError("the deadline has passed")
            self._forget()
            self._opened = socket.socket(fileno=os.dup(opened.fileno()))

    def shut(self) -> None:
        """End the connection, in whatever another thread waits for it."""
        with self._lock:
            self._shut = True
            if self._opened is not None:
                with suppress(OSError):
                    self._opened.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def connect_through(adapter: HTTPAdapter, plain: type[HTTPConnection], secure: type[HTTPSConnection]) -> None:
    """Let an adapter make connections of these classes; for `init_poolmanager`."""

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = secure

    manager: PoolManager = adapter.poolmanager
    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}


class _CheckedAdapter(HTTPAdapter):
    """Connects through a door instead of by itself."""

    def __init__(self, door: _Door, tls: ssl.SSLContext) -> None:
        self._door = door
        self._tls = tls
        super().__init__(max_retries=0)

    def cert_verify(self, conn: HTTPConnectionPool, *_: object) -> None:
        """Leave it to the context: requests would read the authorities' file anew for each connection."""
        conn.cert_reqs = "CERT_REQUIRED"  # type: ignore[attr-defined]

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._tls)
        door = self._door

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return _open(door, self)

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return _open(door, self)

        connect_through(self, Plain, Secure)


def _open(door: _Door, connection: HTTPConnection) -> socket.socket:
    try:
        return door.connect(connection.host.strip("[]"), int(connection.port or 0))
    except OSError as error:
        raise NewConnectionError(connection, type(error).__name__) from error


@cache
def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Reading all public authorities takes 12 ms: once a process."""
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    context.load_verify_locations(str(ca_file or DEFAULT_CA_BUNDLE_PATH))
    return context


class GuardedSession:
    """Exchanges with one host, over a connection that is kept; for one thread.

    Checked addresses, no proxy or credential of the environment, no redirect, no second try. After an exchange that
    ran into its deadline the session is spent: open another.
    """

    def __init__(self, policy: OutboundPolicy) -> None:
        """Nothing is connected yet."""
        self._door = _Door(policy.allowed_networks)
        self._session = requests.Session()
        self._session.trust_env = False
        adapter = _CheckedAdapter(self._door, _tls_context(policy.ca_file))
        self._session.adapters.clear()
        self._session.mount("https://", adapter)
        if policy.allow_http:
            self._session.mount("http://", adapter)
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    @contextmanager
    def exchange(
        self, method: str, url: str, *, deadline_seconds: float, headers: Mapping[str, str], body: bytes | None = None
    ) -> Iterator[requests.Response]:
        """One request; its answer is read inside of the block, whose end is that of the exchange.

        A socket shut in the middle can look like the end of an answer: compare the clock before it is called one.

        Raises:
            AddressRefusedError: the address may not be called.
            requests.RequestException, urllib3.exceptions.HTTPError, OSError: no answer, or not all of it.
        """
        self._door.deadline = time.monotonic() + deadline_seconds
        watchdog = threading.Timer(deadline_seconds, self._door.shut)
        watchdog.daemon = True
        watchdog.start()
        try:
            with self._session.request(
                method,
                url,
                data=body,
                headers=dict(headers),
                timeout=(_CONNECT_SECONDS, deadline_seconds),
                allow_redirects=False,
                stream=True,
            ) as response:
                yield response
        finally:
            watchdog.cancel()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()
        self._door.close()

    def __enter__(self) -> Self:
        """The session itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()


def check_url(url: str, policy: OutboundPolicy) -> SplitResult:
    """The parts of a URL that may be called, as far as its text tells; no name is resolved.

    Raises:
        AddressRefusedError: it may not.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise AddressRefusedError("is no URL.") from None
    schemes = ("https", "http") if policy.allow_http else ("https",)
    if parts.scheme not in schemes:
        raise AddressRefusedError(f"must begin with {' or '.join(f'{name}://' for name in schemes)}.")
    if not parts.hostname or not url.isascii() or any(char.isspace() or not char.isprintable() for char in url):
        raise AddressRefusedError("has no host, or characters that must be percent-encoded.")
    if parts.username is not None or parts.password is not None:
        raise AddressRefusedError("must not hold credentials.")
    if port is not None:
        _check_port(port)
    _check_host(parts.hostname, policy.allowed_networks)
    return parts


def _check_port(port: int) -> None:
    if port < 1024 and port not in (80, 443):
        raise AddressRefusedError("names a port that is not for HTTP.")


def _check_host(host: str, allowed: tuple[Network, ...]) -> None:
    """Refuse what is no name, and an address in some spelling, or this machine's own name, that may not be called."""
    name = host.removesuffix(".").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761
        name = "127.0.0.1"
    labels = name.split(".")
    if ":" not in name and not labels[-1][:1].isdigit():
        if len(name) > 253 or not all(1 <= len(label) <= 63 for label in labels):  # RFC 1035
            raise AddressRefusedError("has a host that is neither a name nor an address.")
        return
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        raise AddressRefusedError("has a host that is neither a name nor an address.") from None
    if not all(is_public(ip_address(str(place[0]).partition("%")[0]), allowed) for *_, place in found):
        raise AddressRefusedError("stands for an address that is not public.")
