"""Events, and how they reach clients.

An event is written in the transaction that makes it true. A little later it gets its `position`, the order in which
clients read events, and a delivery to each endpoint that wants it: ids are made before the commit, so the order of ids
is not that in which events become visible.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Sequence,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from shared.database.tables.base import id_type, metadata, one_of, time_type
from shared.domain.webhook import DeliveryStatus, DisabledReason, EndpointKind, Payload

event_positions = Sequence("event_positions", metadata=metadata)

events = Table(
    "events",
    metadata,
    Column("id", id_type(), primary_key=True, comment="the webhook-id of all its deliveries"),
    Column("client_id", id_type(), ForeignKey("clients.id"), comment="null: concerns all clients"),
    Column("type", Text, nullable=False),
    Column("data", JSONB, nullable=False, comment="ids and states; no content"),
    Column("job_id", id_type()),
    Column("batch_id", id_type()),
    Column("document_type", Text),
    Column("position", BigInteger, comment="the order in which it is read and delivered; null: not given yet"),
    Column("once", Text, unique=True, comment="told no second time under this name"),
    Column("created_at", time_type(), nullable=False),
    Index("ix_events_client", "client_id", "position", unique=True),
    Index("ix_events_new", "id", postgresql_where=text("position IS NULL")),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("client_id", id_type(), ForeignKey("clients.id"), nullable=False),
    Column("kind", Text, nullable=False, comment="registered by the client, or the host of its jobs' webhook_url"),
    Column("url", Text, nullable=False, comment="of a host: scheme, name and port"),
    Column("description", Text),
    Column("event_types", ARRAY(Text), comment="null: all but those that have to be asked for"),
    Column("document_types", ARRAY(Text), comment="null: all"),
    Column("batch_id", id_type(), comment="null: all, and events of no batch"),
    Column("payload", Text, nullable=False),
    Column("created_at", time_type(), nullable=False),
    Column("disabled_at", time_type()),
    Column("disabled_reason", Text),
    Column("deleted_at", time_type(), comment="it and its deliveries are swept later"),
    Column("failures", Integer, nullable=False, server_default=text("0"), comment="in a row"),
    Column("failing_since", time_type(), comment="the first of them"),
    Column("openings", SmallInteger, nullable=False, server_default=text("0"), comment="pauses in a row"),
    Column("paused_until", time_type(), comment="nothing is sent before; then one delivery tries"),
    Column("mean_ms", Integer, nullable=False, server_default=text("0"), comment="of its answers, moving"),
    Column("succeeded_at", time_type(), comment="the last delivery it took"),
    Column("called_at", time_type(), comment="when a worker was last called for it; null: taken since"),
    one_of("kind", [kind.value for kind in EndpointKind]),
    one_of("payload", [payload.value for payload in Payload]),
    CheckConstraint("(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_for_a_reason"),
    one_of("disabled_reason", [reason.value for reason in DisabledReason]),
    Index("ix_webhook_endpoints_client", "client_id", "id"),
    Index(
        "ix_webhook_endpoints_host",
        "client_id",
        "url",
        unique=True,
        postgresql_where=text("kind = 'job_urls' AND deleted_at IS NULL"),
    ),
)

webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    Column("owner_id", id_type(), primary_key=True, comment="a registered endpoint, or a client for its jobs' URLs"),
    Column("sealed", LargeBinary, nullable=False, comment="sealed with KAZHENG_SECRET_KEY"),
    Column("sealed_previous", LargeBinary),
    Column("previous_until", time_type(), comment="deliveries are signed with both before"),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("endpoint_id", id_type(), ForeignKey("webhook_endpoints.id"), nullable=False),
    Column("event_id", id_type(), ForeignKey("events.id"), nullable=False),
    Column("job_id", id_type()),
    Column("url", Text, comment="null: the endpoint's"),
    Column("status", Text, nullable=False),
    Column("failures", SmallInteger, nullable=False, server_default=text("0"), comment="of this round of attempts"),
    Column("next_attempt_at", time_type(), nullable=False),
    Column("claim_token", Text),
    Column("lease_until", time_type()),
    Column("created_at", time_type(), nullable=False),
    Column("completed_at", time_type()),
    Column(
        "attempts",
        JSONB,
        nullable=False,
        server_default=text("'[]'"),
        comment="oldest first: {at, duration_ms, status_code, error, excerpt}",
    ),
    one_of("status", [status.value for status in DeliveryStatus]),
    UniqueConstraint("event_id", "endpoint_id"),
    Index("ix_deliveries_log", "endpoint_id", "id"),
    Index("ix_deliveries_due", "endpoint_id", "next_attempt_at", "id", postgresql_where=text("status = 'pending'")),
    Index("ix_deliveries_sending", "endpoint_id", "lease_until", postgresql_where=text("status = 'sending'")),
    Index("ix_deliveries_job", "job_id", postgresql_where=text("job_id IS NOT NULL")),
    postgresql_with={"fillfactor": 80, "autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
)
