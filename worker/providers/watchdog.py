"""An end to every call: `requests` times single reads, so a peer that drips its headers would hold a thread for ever.

A thread shuts the socket of each call that is over its time, whatever the other thread waits for there.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

from shared.outbound import connect_through

_LOOK_SECONDS = 0.25


class WatchedAdapter(HTTPAdapter):
    """Keeps one connection to a host, without retries, and knows which is in use."""

    def __init__(self) -> None:
        self._connection: HTTPConnection | None = None
        super().__init__(pool_maxsize=1, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make pools whose connections make themselves known."""
        super().init_poolmanager(*args, **kwargs)
        adapter = self

        class Plain(HTTPConnection):
            def request(self, *args: Any, **kwargs: Any) -> None:
                adapter._connection = self
                super().request(*args, **kwargs)

        class Secure(HTTPSConnection):
            def request(self, *args: Any, **kwargs: Any) -> None:
                adapter._connection = self
                super().request(*args, **kwargs)

        connect_through(self, Plain, Secure)

    def shut(self) -> None:
        """End the connection under the thread that waits for it."""
        opened = self._connection.sock if self._connection is not None else None
        if opened is None:
            return
        # A second handle: TLS would change its own while the other thread reads from it.
        with suppress(OSError), socket.socket(fileno=os.dup(opened.fileno())) as handle:
            handle.shutdown(socket.SHUT_RDWR)


class Watchdog:
    """Watches the calls of this process. Safe to share between threads."""

    def __init__(self) -> None:
        """Its thread starts with the first call."""
        self._lock = threading.Lock()
        self._watched: dict[int, tuple[Callable[[], bool], Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, shut: Callable[[], None], is_over: Callable[[], bool]) -> Iterator[None]:
        """Call `shut`, again and again, once `is_over` says so and the block has not ended."""
        me = threading.get_ident()
        with self._lock:
            self._watched[me] = (is_over, shut)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._watched.pop(me, None)

    def _run(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            with self._lock:
                for is_over, shut in self._watched.values():
                    if is_over():
                        shut()
