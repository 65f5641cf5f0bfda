"""A link between two processes that can be cut, slowed and made to swallow what is sent."""

import asyncio
import threading
from contextlib import suppress
from enum import Enum

_SLOW_SECONDS = 0.1


class Mode(Enum):
    """What the link does to what comes along."""

    PASS = "pass"
    CUT = "cut"
    """Connections are reset, new ones refused."""
    SLOW = "slow"
    """Whatever is sent arrives a tenth of a second later."""
    SWALLOW = "swallow"
    """Nothing arrives any more, and nobody is told."""


class Proxy:
    """A TCP proxy on loopback, in a thread of its own."""

    def __init__(self, port: int) -> None:
        """Forwards to this port of 127.0.0.1."""
        self._target = port
        self._mode = Mode.PASS
        self._writers: set[asyncio.StreamWriter] = set()
        listening = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening,), name="proxy", daemon=True)
        self._thread.start()
        listening.wait(10)

    def set(self, mode: Mode) -> None:
        """From now on."""
        self._mode = mode
        # Connections that were swallowed or cut are dead: both sides learn of it when the link is mended.
        if mode is not Mode.SWALLOW:
            self._loop.call_soon_threadsafe(self._drop_all)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(10)

    def _run(self, listening: threading.Event) -> None:
        asyncio.run(self._serve(listening))

    async def _serve(self, listening: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port: int = server.sockets[0].getsockname()[1]
        listening.set()
        async with server:
            await self._stopped.wait()
            self._drop_all()

    def _drop_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.CUT:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            there_reader, there = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            self._writers.discard(writer)
            writer.transport.abort()
            return
        self._writers.add(there)
        await asyncio.gather(self._pump(reader, there), self._pump(there_reader, writer))
        self._writers -= {writer, there}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while content := await reader.read(65_536):
                if self._mode is Mode.SLOW:
                    await asyncio.sleep(_SLOW_SECONDS)
                if self._mode is not Mode.SWALLOW:
                    writer.write(content)
                    await writer.drain()
        if self._mode is not Mode.SWALLOW:
            writer.transport.abort()
