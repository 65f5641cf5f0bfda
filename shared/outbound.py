"""HTTP to addresses that clients gave us.

The host's name is resolved once, every address it has is checked, and the very address that was checked is the one
connected to: a name that resolves differently a moment later gains nothing. Name and TLS server name stay the client's,
so certificates are verified as ever. No redirect is followed, no proxy or credential of the environment is used, and
the whole exchange has one deadline: `requests` times single reads, so a watchdog shuts the socket of a peer that
drips.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.poolmanager import PoolManager

from shared.domain.errors import ImageTooLargeError, ImageUrlFailedError, ImageUrlRefusedError

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_CONNECT_SECONDS = 3.0
_CHUNK = 65_536
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


class AddressRefusedError(Exception):
    """The name stands for an address that may not be called."""


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
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, place in found:
        if not is_public(ip_address(str(place[0]).partition("%")[0]), allowed):
            raise AddressRefusedError("the address is not public")
    return found


class _Door:
    """Opens the sockets of one exchange, to checked addresses only, and can shut them all."""

    def __init__(self, allowed: tuple[Network, ...]) -> None:
        self._allowed = allowed
        self._lock = threading.Lock()
        self._opened: list[socket.socket] = []
        self._shut = False

    def connect(self, host: str, port: int) -> socket.socket:
        failure: OSError = OSError("no address")
        for family, kind, protocol, _, place in resolve(host, port, self._allowed):
            opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(_CONNECT_SECONDS)
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
            self._opened.append(socket.socket(fileno=os.dup(opened.fileno())))

    def shut(self) -> None:
        """End all connections, in whatever another thread waits for them."""
        with self._lock:
            self._shut = True
            for opened in self._opened:
                try:
                    opened.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def close(self) -> None:
        with self._lock:
            for opened in self._opened:
                opened.close()
            self._opened.clear()


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

    def __init__(self, door: _Door) -> None:
        self._door = door
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
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


@contextmanager
def guarded_session(allowed: tuple[Network, ...], *, deadline_seconds: float) -> Iterator[requests.Session]:
    """A session for one exchange: checked addresses, no environment, and an end after so many seconds."""
    door = _Door(allowed)
    watchdog = threading.Timer(deadline_seconds, door.shut)
    watchdog.daemon = True
    watchdog.start()
    session = requests.Session()
    session.trust_env = False
    adapter = _CheckedAdapter(door)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    try:
        yield session
    finally:
        watchdog.cancel()
        session.close()
        door.close()


def check_url(url: str, *, allow_http: bool) -> SplitResult:
    """The parts of a URL that may be called, as far as its text tells.

    Raises:
        ImageUrlRefusedError: it may not.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ImageUrlRefusedError("image_url is no URL.") from None
    schemes = ("https", "http") if allow_http else ("https",)
    if parts.scheme not in schemes:
        raise ImageUrlRefusedError(f"image_url must begin with {' or '.join(f'{name}://' for name in schemes)}.")
    if not parts.hostname or not url.isascii() or any(char.isspace() for char in url):
        raise ImageUrlRefusedError("image_url has no host, or characters that must be percent-encoded.")
    if parts.username is not None or parts.password is not None:
        raise ImageUrlRefusedError("image_url must not hold credentials.")
    if port is not None and port < 1024 and port not in (80, 443):
        raise ImageUrlRefusedError("image_url names a port that is not for HTTP.")
    return parts


def fetch_image(url: str, policy: OutboundPolicy, *, max_bytes: int, deadline_seconds: float) -> bytes:
    """The bytes behind a URL that a client gave us.

    Raises:
        ImageUrlRefusedError: the address may not be called.
        ImageUrlFailedError: it did not give the bytes, all of them, in time.
    """
    check_url(url, allow_http=policy.allow_http)
    give_up_at = time.monotonic() + deadline_seconds
    headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "kazheng"}
    try:
        with (
            guarded_session(policy.allowed_networks, deadline_seconds=deadline_seconds) as session,
            session.get(
                url,
                headers=headers,
                timeout=(_CONNECT_SECONDS, deadline_seconds),
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            content = _read(response, max_bytes)
    except AddressRefusedError:
        raise ImageUrlRefusedError("image_url stands for an address that is not public.") from None
    except (requests.RequestException, HTTPError, OSError) as error:
        if time.monotonic() >= give_up_at:
            raise ImageUrlFailedError("The host of image_url did not send the image in time.") from None
        detail = f"The host of image_url could not be reached ({type(error).__name__})."
        raise ImageUrlFailedError(detail) from None
    # A socket shut in the middle can look like the end of an answer without a length.
    if time.monotonic() >= give_up_at:
        raise ImageUrlFailedError("The host of image_url did not send the image in time.")
    return content


def _read(response: requests.Response, max_bytes: int) -> bytes:
    if response.status_code != requests.codes.ok:
        hint = " Redirects are not followed: give the final address." if response.is_redirect else ""
        raise ImageUrlFailedError(f"The host of image_url answered HTTP {response.status_code}.{hint}")
    content = bytearray()
    while chunk := response.raw.read(_CHUNK, decode_content=False):
        content += chunk
        if len(content) > max_bytes:
            raise ImageTooLargeError(f"The image behind image_url has more than {max_bytes} bytes. Scale it down.")
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != len(content):
        raise ImageUrlFailedError("The host of image_url cut the image off.")
    return bytes(content)
