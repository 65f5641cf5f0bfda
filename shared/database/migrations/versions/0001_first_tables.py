"""First tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("api_key", sa.Text(), nullable=False),
        sa.Column(
            "sealed_secret", sa.LargeBinary(), nullable=False, comment="the secret key, sealed with KAZHENG_SECRET_KEY"
        ),
        sa.Column("default_qps", sa.Double(), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
        sa.UniqueConstraint("name", name=op.f("uq_accounts_name")),
    )
    op.create_table(
        "clients",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clients")),
        sa.UniqueConstraint("name", name=op.f("uq_clients_name")),
    )
    op.create_table(
        "account_quotas",
        sa.Column("account_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("qps", sa.Double(), nullable=False),
        sa.Column("day_limit", sa.Integer(), nullable=True, comment="calls a day; null: no limit"),
        sa.CheckConstraint(
            "day_limit IS NULL OR day_limit >= 0", name=op.f("ck_account_quotas_day_limit_not_negative")
        ),
        sa.CheckConstraint("qps > 0", name=op.f("ck_account_quotas_qps_positive")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name=op.f("fk_account_quotas_account_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("account_id", "endpoint", name=op.f("pk_account_quotas")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("client_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=False, comment="the key's first characters, to tell keys apart"),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_api_keys_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_index(op.f("ix_api_keys_client_id"), "api_keys", ["client_id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("client_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_sha256", sa.Text(), nullable=False, comment="hex; what the key was used for"),
        sa.Column(
            "job_id",
            sa.String(length=40, collation="C"),
            nullable=True,
            comment="null while the first request is being served",
        ),
        sa.Column(
            "locked_until",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="after it, a request that never ended is forgotten",
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_idempotency_keys_client_id")),
        sa.PrimaryKeyConstraint("client_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_expires_at"), "idempotency_keys", ["expires_at"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("client_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("document_type", sa.Text(), nullable=False),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("waiting_on", sa.Text(), nullable=True),
        sa.Column(
            "not_before", sa.DateTime(timezone=True), nullable=True, comment="a queued job is not claimed earlier"
        ),
        sa.Column("client_reference_id", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("image_key", sa.Text(), nullable=True, comment="where the store keeps the bytes; null once erased"),
        sa.Column("image_sha256", sa.Text(), nullable=False, comment="hex"),
        sa.Column("image_bytes", sa.BigInteger(), nullable=False),
        sa.Column("image_format", sa.Text(), nullable=False, comment="Pillow's name, such as JPEG"),
        sa.Column("image_width", sa.Integer(), nullable=False, comment="pixels, as stored"),
        sa.Column("image_height", sa.Integer(), nullable=False),
        sa.Column("claim_token", sa.Text(), nullable=True, comment="fencing: whoever settles must hold it"),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claim_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "failed_attempts", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="those that count"
        ),
        sa.Column("calls", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("billed_calls", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("throttle_ms", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("upstream_ms", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_detail", sa.Text(), nullable=True),
        sa.Column(
            "published_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when a message was last sent for it; null: none on its way",
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "revision",
            sa.Integer(),
            server_default=sa.text("1"),
            nullable=False,
            comment="counts visible changes: the ETag",
        ),
        sa.CheckConstraint(
            "(status = 'processing') = (claim_token IS NOT NULL)", name=op.f("ck_jobs_claimed_while_processing")
        ),
        sa.CheckConstraint("lane IN ('interactive', 'bulk')", name=op.f("ck_jobs_lane")),
        sa.CheckConstraint(
            "status IN ('queued', 'processing', 'succeeded', 'failed', 'canceled', 'expired')",
            name=op.f("ck_jobs_status"),
        ),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_jobs_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        postgresql_with={"fillfactor": 80, "autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
    )
    op.create_index("ix_jobs_client", "jobs", ["client_id", "id"], unique=False)
    op.create_index(
        "ix_jobs_client_reference",
        "jobs",
        ["client_id", "client_reference_id", "id"],
        unique=False,
        postgresql_where=sa.text("client_reference_id IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_processing", "jobs", ["lease_until"], unique=False, postgresql_where=sa.text("status = 'processing'")
    )
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        ["lane", "not_before", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("job_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("number", sa.SmallInteger(), nullable=False, comment="counts from 1"),
        sa.Column("account_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column(
            "outcome",
            sa.Text(),
            nullable=True,
            comment="succeeded, or a failure kind; null while the call runs or after a crash",
        ),
        sa.Column("upstream_code", sa.Text(), nullable=True),
        sa.Column("upstream_log_id", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=True, comment="for the operator; no content"),
        sa.Column("billed", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("throttle_ms", sa.Integer(), nullable=False),
        sa.Column("upstream_ms", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_attempts_account_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("job_id", "number", name=op.f("uq_attempts_job_id")),
    )
    op.create_index("ix_attempts_account", "attempts", ["account_id", "endpoint", "started_at"], unique=False)
    op.create_table(
        "results",
        sa.Column("job_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column(
            "fields",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=False,
            comment="json, not jsonb: keeps the order of the document",
        ),
        sa.Column("checks", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("image", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("upstream_log_id", sa.Text(), nullable=True),
        sa.Column("raw", postgresql.JSON(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_results_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_results")),
    )


def downgrade() -> None:
    """Drop them."""
    op.drop_table("results")
    op.drop_index("ix_attempts_account", table_name="attempts")
    op.drop_table("attempts")
    op.drop_index("ix_jobs_queued", table_name="jobs", postgresql_where=sa.text("status = 'queued'"))
    op.drop_index("ix_jobs_processing", table_name="jobs", postgresql_where=sa.text("status = 'processing'"))
    op.drop_index(
        "ix_jobs_client_reference", table_name="jobs", postgresql_where=sa.text("client_reference_id IS NOT NULL")
    )
    op.drop_index("ix_jobs_client", table_name="jobs")
    op.drop_table("jobs")
    op.drop_index(op.f("ix_idempotency_keys_expires_at"), table_name="idempotency_keys")
    op.drop_table("idempotency_keys")
    op.drop_index(op.f("ix_api_keys_client_id"), table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_table("account_quotas")
    op.drop_table("clients")
    op.drop_table("accounts")
