"""Endpoints and deliveries as clients see them."""

from datetime import datetime
from typing import Any

from api.webhook_schemas import AttemptView, DeliveryView, EndpointLinks, EndpointView
from shared.database.delivery_log import Delivery
from shared.database.endpoints import Endpoint
from shared.domain.webhook import (
    BY_DEFAULT,
    OF_A_BATCHS_URL,
    OF_A_JOBS_URL,
    DeliveryStatus,
    EndpointKind,
    EventType,
)


def endpoint_path(endpoint_id: str) -> str:
    """Where an endpoint is found."""
    return f"/v1/webhook-endpoints/{endpoint_id}"


def endpoint_values(endpoint: Endpoint, now: datetime) -> dict[str, Any]:
    """What EndpointView holds."""
    health = endpoint.health
    is_paused = health.paused_until is not None and health.paused_until > now
    status = "disabled" if endpoint.disabled_at else "paused" if is_paused else "enabled"
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "kind": endpoint.kind,
        "url": endpoint.url,
        "description": endpoint.description,
        "event_types": _event_types(endpoint),
        "document_types": endpoint.document_types,
        "batch_id": endpoint.batch_id,
        "payload": endpoint.payload,
        "status": status,
        "disabled_at": endpoint.disabled_at,
        "disabled_reason": endpoint.disabled_reason,
        "paused_until": health.paused_until if is_paused else None,
        "failing_since": health.failing_since,
        "failures": health.failures,
        "succeeded_at": endpoint.succeeded_at,
        "created_at": endpoint.created_at,
        "links": EndpointLinks(self=endpoint_path(endpoint.id), deliveries=f"{endpoint_path(endpoint.id)}/deliveries"),
    }


def _event_types(endpoint: Endpoint) -> list[EventType]:
    if endpoint.kind is EndpointKind.JOB_URLS:
        return [*OF_A_JOBS_URL, *OF_A_BATCHS_URL]
    return [EventType(kind) for kind in endpoint.event_types or BY_DEFAULT]


def present_endpoint(endpoint: Endpoint, now: datetime) -> EndpointView:
    """An endpoint."""
    return EndpointView(**endpoint_values(endpoint, now))


def present_delivery(delivery: Delivery) -> DeliveryView:
    """A delivery with all its attempts."""
    return DeliveryView(
        id=delivery.id,
        object="delivery",
        endpoint_id=delivery.endpoint_id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        job_id=delivery.job_id,
        status=delivery.status,
        next_attempt_at=delivery.next_attempt_at if delivery.status is DeliveryStatus.PENDING else None,
        created_at=delivery.created_at,
        completed_at=delivery.completed_at,
        attempts=[AttemptView.model_validate(attempt) for attempt in delivery.attempts],
    )
