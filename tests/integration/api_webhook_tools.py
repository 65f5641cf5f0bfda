"""Endpoints and events through the API, as one client sees them."""

import threading
from typing import Any

from shared.database.engine import transaction
from shared.database.events import place_events
from tests.integration.api_tools import ApiBench
from worker.deliveries import Courier, DeliveryService

PUBLIC = "https://receiver.example/hook"


def call(api: ApiBench, method: str, path: str, status: int = 200, body: Any = None, **request: Any) -> Any:
    answer = api.call(method, path, **({} if body is None else {"json": body}), **request)
    assert answer.status_code == status, answer.text
    return answer.json


def register(api: ApiBench, url: str = PUBLIC, **values: Any) -> Any:
    return call(api, "POST", "/v1/webhook-endpoints", 201, {"url": url, **values})


def path_of(endpoint: Any, *rest: str) -> str:
    return "/".join([str(endpoint["links"]["self"]), *rest])


def place(api: ApiBench) -> None:
    with transaction(api.engine) as connection:
        place_events(connection, api.services.clock(), most=1000)


class _NoBroker:
    def publish(self, *_: object, **__: object) -> bool:
        return True


def deliver(api: ApiBench, endpoint_id: str) -> int:
    """As a worker does it."""
    clock = api.services.clock
    Courier(engine=api.engine, publisher=_NoBroker(), clock=clock).round()  # type: ignore[arg-type]
    service = DeliveryService(engine=api.engine, settings=api.settings, clock=clock, stopping=threading.Event())
    return service.deliver(endpoint_id)
