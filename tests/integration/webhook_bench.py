"""Deliveries on a real database to real receivers, with a clock that tests move."""

import threading
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

from sqlalchemy import Engine, select, text

from shared.database import deliveries as delivery_rows
from shared.database.delivery_log import Delivery, list_deliveries
from shared.database.endpoints import Endpoint, ensure_secret, get_endpoint, insert_endpoint
from shared.database.engine import transaction
from shared.database.events import Event, list_events, place_events
from shared.database.health import Trouble, find_troubles
from shared.database.jobs import Job, cancel_job, claim_job, succeed_job
from shared.database.tables import deliveries
from shared.domain.webhook import Payload
from shared.settings import Settings
from tests.factories import make_client, make_job
from tests.fakes import FakeClock
from worker.deliveries import DeliveryService

FIELD = {
    "value": "测样丽",
    "text": "测样丽",
    "label": "姓名",
    "confidence": None,
    "status": "read",
    "source": "provider",
}


def open_to_loopback(settings: Settings) -> Settings:
    """Settings under which receivers on this machine may be called, over plain HTTP."""
    networks = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
    return settings.model_copy(update={"outbound_allowed_networks": networks, "outbound_allow_http": True})


class WebhookBench:
    """Everything behind deliveries that a test wants to see or move."""

    def __init__(self, settings: Settings, engine: Engine, **changes: Any) -> None:
        self.settings = open_to_loopback(settings).model_copy(update=changes)
        self.engine = engine
        self.clock = FakeClock()
        self.stopping = threading.Event()
        self.client_id, self.key = make_client(engine)
        self.service = DeliveryService(engine=engine, settings=self.settings, clock=self.clock, stopping=self.stopping)

    def register(self, url: str, *, client_id: str | None = None, **values: Any) -> Endpoint:
        """An endpoint with a secret."""
        with transaction(self.engine) as connection:
            endpoint = insert_endpoint(
                connection,
                client_id or self.client_id,
                self.clock(),
                **{"url": url, "payload": Payload.THIN, **values},
            )
            self.secret = ensure_secret(connection, endpoint.id, self.settings.require_secret_key()) or ""
        return endpoint

    def job(self, **changes: Any) -> Job:
        return make_job(self.engine, self.client_id, **changes)

    def canceled(self, **changes: Any) -> Job:
        """A job that has just ended, in the cheapest way."""
        job = self.job(**changes)
        with transaction(self.engine) as connection:
            ended = cancel_job(connection, job.id, client_id=self.client_id, now=self.clock())
        assert ended is not None
        return ended

    def succeeded(self, **changes: Any) -> Job:
        job, now = self.job(**changes), self.clock()
        with transaction(self.engine) as connection:
            assert claim_job(connection, job.id, token="t", worker="w", now=now, lease_until=now + timedelta(hours=1))
            result = {
                "job_id": job.id,
                "fields": {"name": FIELD},
                "checks": [],
                "image": {},
                "provider": "baidu",
                "account": "sandbox",
                "upstream_log_id": "1",
                "raw": {},
                "created_at": now,
            }
            assert succeed_job(connection, job.id, "t", now=now, result=result)
        return job

    def place(self) -> None:
        """Give new events their places, and make their deliveries."""
        with transaction(self.engine) as connection:
            assert place_events(connection, self.clock(), most=1000) is not None

    def due(self) -> list[str]:
        with transaction(self.engine) as connection:
            return delivery_rows.find_due(connection, self.clock(), most=1000)

    def deliver(self, endpoint: Endpoint) -> int:
        """Place what is new and send what is due; how many were tried."""
        self.place()
        return self.service.deliver(endpoint.id)

    def log(self, endpoint: Endpoint) -> list[Delivery]:
        """Its deliveries, oldest first."""
        with transaction(self.engine) as connection:
            return list_deliveries(connection, endpoint.id, limit=1000)[::-1]

    def read(self, endpoint: Endpoint) -> Endpoint:
        with transaction(self.engine) as connection:
            found = get_endpoint(connection, endpoint.id, client_id=endpoint.client_id)
        assert found is not None
        return found

    def events(self, client_id: str | None = None, after: int = 0) -> list[Event]:
        self.place()
        with transaction(self.engine) as connection:
            return list_events(connection, client_id or self.client_id, after=after, limit=1000)

    def forward_to_next(self, endpoint: Endpoint) -> timedelta:
        """Move the clock to when a delivery is tried again; how far that was."""
        with transaction(self.engine) as connection:
            due = select(deliveries.c.next_attempt_at).where(
                deliveries.c.endpoint_id == endpoint.id, deliveries.c.status == "pending"
            )
            moment: datetime = min(connection.execute(due).scalars())
        paused_until = self.read(endpoint).health.paused_until
        moment = max(moment, paused_until or moment, self.clock())
        waited = moment - self.clock()
        self.clock.now = moment
        return waited

    def troubles(self) -> list[Trouble]:
        with transaction(self.engine) as connection:
            return find_troubles(connection, self.clock())

    def sql(self, statement: str, **values: Any) -> Any:
        with transaction(self.engine) as connection:
            return connection.execute(text(statement), values)
