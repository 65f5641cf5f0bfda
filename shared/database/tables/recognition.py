"""Clients, accounts, jobs and what becomes of them.

Times are `timestamptz`, ids are prefixed UUIDv7 text in "C" collation, so that they sort by time.
Partial indexes serve the hot statements: an index on a status that ends nowhere would grow with the archive.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB

from shared.database.tables.base import NO_BATCH, id_type, metadata, one_of, time_type
from shared.domain.job import JobStatus, Lane
from shared.domain.quota import Billing, StopReason

clients = Table(
    "clients",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", time_type(), nullable=False, server_default=func.now()),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("client_id", id_type(), ForeignKey("clients.id"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("hint", Text, nullable=False, comment="the key's first characters, to tell keys apart"),
    Column("sha256", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", time_type(), nullable=False, server_default=func.now()),
    Column("revoked_at", time_type()),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("provider", Text, nullable=False),
    Column("base_url", Text, nullable=False),
    Column("api_key", Text, nullable=False),
    Column("sealed_secret", LargeBinary, nullable=False, comment="the secret key, sealed with KAZHENG_SECRET_KEY"),
    Column("default_qps", Double, nullable=False),
    Column("billing", Text, nullable=False, server_default=text("'free'"), comment="who pays for a call, and when"),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", time_type(), nullable=False, server_default=func.now()),
    Column("updated_at", time_type(), nullable=False, server_default=func.now()),
    one_of("billing", [billing.value for billing in Billing]),
)

account_quotas = Table(
    "account_quotas",
    metadata,
    Column("account_id", id_type(), ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("qps", Double, nullable=False),
    Column("day_limit", Integer, comment="calls a day; null: no limit"),
    Column("total_limit", Integer, comment="calls in all; null: no limit"),
    Column("in_flight_limit", SmallInteger, comment="calls at a time; null: no limit"),
    CheckConstraint("qps > 0", name="qps_positive"),
    CheckConstraint("day_limit IS NULL OR day_limit >= 0", name="day_limit_not_negative"),
    CheckConstraint("total_limit IS NULL OR total_limit >= 0", name="total_limit_not_negative"),
    CheckConstraint("in_flight_limit IS NULL OR in_flight_limit > 0", name="in_flight_limit_positive"),
)

stops = Table(
    "stops",
    metadata,
    Column("account_id", id_type(), ForeignKey("accounts.id", ondelete="CASCADE"), primary_key=True),
    Column("endpoint", Text, primary_key=True, comment="empty: all of the account's"),
    Column("reason", Text, nullable=False),
    Column("upstream_code", Text),
    Column("detail", Text, nullable=False, comment="for the operator; no content"),
    Column("since", time_type(), nullable=False),
    Column(
        "until", time_type(), comment="when it is lifted by itself; null: when a call succeeds or the account changes"
    ),
    Column("probe_at", time_type(), comment="when one call may try whether it still holds; null: never"),
    one_of("reason", [reason.value for reason in StopReason]),
)

batches = Table(
    "batches",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("client_id", id_type(), ForeignKey("clients.id"), nullable=False),
    Column("name", Text),
    Column("document_type", Text, comment="of items that name none"),
    Column("options", JSONB, nullable=False),
    Column("lane", Text, nullable=False),
    Column("cache", Boolean, nullable=False),
    Column("webhook_url", Text, comment="where its end is told"),
    Column("webhook_endpoint_id", id_type(), comment="the endpoint that stands for that address's host"),
    Column("item_count", Integer, nullable=False, server_default=text("0"), comment="the last item's number"),
    Column("told_percent", SmallInteger, nullable=False, server_default=text("0")),
    Column("created_at", time_type(), nullable=False),
    Column("closed_at", time_type(), comment="no more items from then on"),
    Column("canceled_at", time_type()),
    Column("completed_at", time_type(), comment="closed, and every item final"),
    one_of("lane", [lane.value for lane in Lane]),
    Index("ix_batches_client", "client_id", "id"),
    Index("ix_batches_running", "id", postgresql_where=text("completed_at IS NULL")),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("client_id", id_type(), ForeignKey("clients.id"), nullable=False),
    Column("document_type", Text, nullable=False),
    Column("endpoint", Text, nullable=False, comment="the provider's interface: quotas and lines are its own"),
    Column("batch_id", id_type(), nullable=False, server_default=text(f"'{NO_BATCH}'"), comment="a dash: in no batch"),
    Column("item_number", Integer, comment="place in its batch, from 1"),
    Column("item_name", Text, comment="what its file is called in the batch"),
    Column("options", JSONB, nullable=False),
    Column("lane", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("waiting_on", Text),
    Column("not_before", time_type(), comment="a queued job is not claimed earlier"),
    Column("client_reference_id", Text),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    Column("expires_at", time_type()),
    Column("webhook_url", Text, comment="where its end is told; null once erased"),
    Column("webhook_endpoint_id", id_type(), comment="the endpoint that stands for that address's host"),
    Column("image_url", Text, comment="where a worker fetches it; null once it has"),
    Column("image_key", Text, comment="where the store keeps the bytes; null once erased"),
    Column("image_sha256", Text, comment="hex"),
    Column("image_bytes", BigInteger),
    Column("image_format", Text, comment="Pillow's name, such as JPEG"),
    Column("image_width", Integer, comment="pixels, as stored"),
    Column("image_height", Integer),
    Column("claim_token", Text, comment="fencing: whoever settles must hold it"),
    Column("claimed_by", Text),
    Column("lease_until", time_type()),
    Column("claim_count", Integer, nullable=False, server_default=text("0")),
    Column("failed_attempts", Integer, nullable=False, server_default=text("0"), comment="those that count"),
    Column(
        "crashes",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="workers that died while they prepared it",
    ),
    Column("calls", Integer, nullable=False, server_default=text("0")),
    Column("billed_calls", Integer, nullable=False, server_default=text("0")),
    Column("throttle_ms", Integer, nullable=False, server_default=text("0")),
    Column("upstream_ms", Integer, nullable=False, server_default=text("0")),
    Column(
        "cache",
        Boolean,
        nullable=False,
        server_default=text("true"),
        comment="may be answered from an earlier, equal job",
    ),
    Column("cache_source", Text, comment="the job whose answer this one was given"),
    Column("error_code", Text),
    Column("error_detail", Text),
    Column("published_at", time_type(), comment="when a message was last sent for it; null: none on its way"),
    Column("created_at", time_type(), nullable=False),
    Column("started_at", time_type()),
    Column("completed_at", time_type()),
    Column("erased_at", time_type()),
    Column("revision", Integer, nullable=False, server_default=text("1"), comment="counts visible changes: the ETag"),
    Column(
        "history",
        JSONB,
        nullable=False,
        server_default=text("'[]'"),
        comment="what happened to it, oldest first: {event, at, …}; no content",
    ),
    one_of("status", [status.value for status in JobStatus]),
    one_of("lane", [lane.value for lane in Lane]),
    CheckConstraint("(status = 'processing') = (claim_token IS NOT NULL)", name="claimed_while_processing"),
    Index("ix_jobs_client", "client_id", "id"),
    Index(
        "ix_jobs_client_reference",
        "client_id",
        "client_reference_id",
        "id",
        postgresql_where=text("client_reference_id IS NOT NULL"),
    ),
    # Who else has, or is about to have, the answer for an image.
    Index(
        "ix_jobs_image",
        "client_id",
        "image_sha256",
        postgresql_where=text("status IN ('processing', 'succeeded')"),
    ),
    # Ready, and no message on its way: what feeding takes turns over.
    Index(
        "ix_jobs_ready",
        "lane",
        "endpoint",
        "client_id",
        "batch_id",
        "id",
        postgresql_where=text("status = 'queued' AND published_at IS NULL AND not_before IS NULL"),
    ),
    Index(
        "ix_jobs_parked",
        "not_before",
        "id",
        postgresql_where=text("status = 'queued' AND not_before IS NOT NULL"),
    ),
    Index(
        "ix_jobs_sent",
        "published_at",
        "id",
        postgresql_include=["lane", "endpoint"],
        postgresql_where=text("status = 'queued' AND published_at IS NOT NULL"),
    ),
    Index("ix_jobs_item", "batch_id", "item_number", unique=True, postgresql_where=text(f"batch_id <> '{NO_BATCH}'")),
    Index(
        "ix_jobs_batch_status",
        "batch_id",
        "status",
        postgresql_include=["calls", "billed_calls", "endpoint"],
        postgresql_where=text(f"batch_id <> '{NO_BATCH}'"),
    ),
    Index("ix_jobs_line", "endpoint", "lane", "id", postgresql_where=text("status = 'queued'")),
    Index(
        "ix_jobs_processing",
        "lease_until",
        postgresql_include=["lane", "endpoint"],
        postgresql_where=text("status = 'processing'"),
    ),
    Index(
        "ix_jobs_expiring",
        "expires_at",
        postgresql_where=text("status = 'queued' AND expires_at IS NOT NULL"),
    ),
    Index(
        "ix_jobs_erasing",
        "erased_at",
        postgresql_where=text("erased_at IS NOT NULL AND image_key IS NOT NULL"),
    ),
    Index("ix_jobs_poisoned", "completed_at", postgresql_where=text("error_code = 'poisoned'")),
    # Rows change about four times in their life: room on the page, and a vacuum that does not wait for millions.
    postgresql_with={
        "fillfactor": 80,
        "autovacuum_vacuum_scale_factor": 0.01,
        "autovacuum_vacuum_threshold": 1000,
    },
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", id_type(), primary_key=True),
    Column("job_id", id_type(), ForeignKey("jobs.id"), nullable=False),
    Column("number", SmallInteger, nullable=False, comment="counts from 1"),
    Column("account_id", id_type(), ForeignKey("accounts.id"), nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("outcome", Text, comment="succeeded, or a failure kind; null while the call runs or after a crash"),
    Column("upstream_code", Text),
    Column("upstream_log_id", Text),
    Column("detail", Text, comment="for the operator; no content"),
    Column("billed", Boolean, nullable=False, server_default=text("false")),
    Column(
        "counted", Boolean, nullable=False, server_default=text("true"), comment="uses up the day's and the total quota"
    ),
    Column("quota_day", Date, nullable=False, comment="the provider's day its permit was for"),
    Column("throttle_ms", Integer, nullable=False),
    Column("upstream_ms", Integer),
    Column("started_at", time_type(), nullable=False),
    Column("ended_at", time_type()),
    UniqueConstraint("job_id", "number"),
    Index("ix_attempts_counted", "account_id", "endpoint", "quota_day", postgresql_where=text("counted")),
    Index("ix_attempts_started", "started_at"),
)

results = Table(
    "results",
    metadata,
    Column("job_id", id_type(), ForeignKey("jobs.id"), primary_key=True),
    Column("fields", JSON, nullable=False, comment="json, not jsonb: keeps the order of the document"),
    Column("checks", JSONB, nullable=False),
    Column("image", JSONB, nullable=False),
    Column("provider", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("upstream_log_id", Text),
    Column("raw", JSON, nullable=False),
    Column("created_at", time_type(), nullable=False),
)

chores = Table(
    "chores",
    metadata,
    Column("name", Text, primary_key=True),
    Column("ran_at", time_type(), nullable=False),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("client_id", id_type(), ForeignKey("clients.id"), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_sha256", Text, nullable=False, comment="hex; what the key was used for"),
    Column("job_id", id_type(), comment="null while the first request is being served"),
    Column("locked_until", time_type(), nullable=False, comment="after it, a request that never ended is forgotten"),
    Column("expires_at", time_type(), nullable=False, index=True),
)
