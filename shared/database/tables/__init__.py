"""Every table."""

from shared.database.tables.base import NO_BATCH, metadata
from shared.database.tables.recognition import (
    account_quotas,
    accounts,
    api_keys,
    attempts,
    batches,
    chores,
    clients,
    idempotency_keys,
    jobs,
    results,
    stops,
)
from shared.database.tables.webhooks import (
    deliveries,
    event_positions,
    events,
    webhook_endpoints,
    webhook_secrets,
)

__all__ = [
    "NO_BATCH",
    "account_quotas",
    "accounts",
    "api_keys",
    "attempts",
    "batches",
    "chores",
    "clients",
    "deliveries",
    "event_positions",
    "events",
    "idempotency_keys",
    "jobs",
    "metadata",
    "results",
    "stops",
    "webhook_endpoints",
    "webhook_secrets",
]
