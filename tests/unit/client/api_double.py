"""A scripted API behind the Python client, and a clock that only moves when somebody sleeps."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from kazheng import Client
from kazheng.transport import Timing

Reply = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


@dataclass
class StillClock:
    """Time passes while sleeping, and by what a reply is told to take."""

    now: float = 1000.0
    naps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds

    def timing(self) -> Timing:
        return Timing(monotonic=lambda: self.now, sleep=self.sleep, jitter=lambda: 0.0)


@dataclass
class ScriptedApi:
    """Answers each request with the next reply, the last one for good; remembers what it was asked."""

    replies: list[Reply]
    requests: list[httpx.Request] = field(default_factory=list)
    clock: StillClock = field(default_factory=StillClock)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, Exception):
            raise reply
        return reply(request) if callable(reply) else reply

    def client(self, **options: Any) -> Client:
        return Client(
            "kz_test", "http://api.test", transport=httpx.MockTransport(self), timing=self.clock.timing(), **options
        )

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]


def job_json(status: str = "queued", **changes: Any) -> dict[str, Any]:
    return {"id": "job_1", "object": "job", "status": status, "document_type": "id_card"} | changes


def answer(status: int, body: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=json.dumps(body if body is not None else {}), headers=named)


def problem(status: int, code: str, **members: Any) -> httpx.Response:
    body = {"code": code, "detail": "A sentence.", "request_id": "req_1"} | members
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})
