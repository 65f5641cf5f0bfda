"""A closed loop of requests over kept-alive connections: cheap, so that the server and not the client is measured."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Load:
    """What came back: statuses, and seconds from the first byte sent to the last one received."""

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return sum(self.statuses.values()) / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds below which this share of the answers stayed."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def request_bytes(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    """A POST as it goes over the wire."""
    parts = urlsplit(url)
    head = {"Host": parts.netloc, "Content-Length": str(len(body)), **headers}
    lines = [f"POST {parts.path}?{parts.query} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def run_load(url: str, request: bytes, *, connections: int, seconds: float) -> Load:
    """Send the same request again and again."""
    return asyncio.run(_run(url, request, connections, seconds))


async def _run(url: str, request: bytes, connections: int, seconds: float) -> Load:
    parts = urlsplit(url)
    load, started = Load(), time.perf_counter()
    loops = (
        _loop(str(parts.hostname), int(parts.port or 80), request, started + seconds, load) for _ in range(connections)
    )
    await asyncio.gather(*loops)
    load.seconds = time.perf_counter() - started
    return load


async def _loop(host: str, port: int, request: bytes, end: float, load: Load) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while time.perf_counter() < end:
        began = time.perf_counter()
        writer.write(request)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.split("content-length:", 1)[1].split("\r\n", 1)[0])
        await reader.readexactly(length)
        load.latencies.append(time.perf_counter() - began)
        load.statuses[int(head.split(" ", 2)[1])] += 1
        if "connection: close" in head:
            writer.close()
            reader, writer = await asyncio.open_connection(host, port)
    writer.close()
