"""Quotas in all and in flight, stops and events, lines by endpoint, and which attempts count."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# The endpoint of each document type that version 0001 knew.
_ENDPOINTS = {"id_card": "idcard", "bank_card": "bankcard", "business_license": "business_license"}


def _id() -> sa.String:
    return sa.String(length=40, collation="C")


def upgrade() -> None:
    """Take the step."""
    op.create_table(
        "events",
        sa.Column("id", _id(), nullable=False),
        sa.Column("client_id", _id(), nullable=True, comment="null: concerns all clients"),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name="fk_events_client_id"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_table(
        "stops",
        sa.Column("account_id", _id(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False, comment="empty: all of the account's"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("upstream_code", sa.Text(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False, comment="for the operator; no content"),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "until",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when it is lifted by itself; null: when a call succeeds or the account changes",
        ),
        sa.Column(
            "probe_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="when one call may try whether it still holds; null: never",
        ),
        sa.CheckConstraint(
            "reason IN ('daily_quota', 'total_quota', 'misconfigured', 'unclaimed')", name=op.f("ck_stops_reason")
        ),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_stops_account_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("account_id", "endpoint", name="pk_stops"),
    )
    _change_quotas()
    _change_attempts()
    _change_jobs()


def _change_quotas() -> None:
    op.add_column(
        "accounts",
        sa.Column(
            "billing",
            sa.Text(),
            server_default=sa.text("'free'"),
            nullable=False,
            comment="who pays for a call, and when",
        ),
    )
    op.create_check_constraint(op.f("ck_accounts_billing"), "accounts", "billing IN ('free', 'pack', 'postpaid')")
    op.add_column(
        "account_quotas",
        sa.Column("total_limit", sa.Integer(), nullable=True, comment="calls in all; null: no limit"),
    )
    op.add_column(
        "account_quotas",
        sa.Column("in_flight_limit", sa.SmallInteger(), nullable=True, comment="calls at a time; null: no limit"),
    )
    op.create_check_constraint(
        op.f("ck_account_quotas_total_limit_not_negative"), "account_quotas", "total_limit IS NULL OR total_limit >= 0"
    )
    op.create_check_constraint(
        op.f("ck_account_quotas_in_flight_limit_positive"),
        "account_quotas",
        "in_flight_limit IS NULL OR in_flight_limit > 0",
    )


def _change_attempts() -> None:
    op.add_column(
        "attempts",
        sa.Column(
            "counted",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="uses up the day's and the total quota",
        ),
    )
    op.add_column(
        "attempts", sa.Column("quota_day", sa.Date(), nullable=True, comment="the provider's day its permit was for")
    )
    op.execute("UPDATE attempts SET quota_day = (started_at AT TIME ZONE 'UTC-8')::date")
    op.alter_column("attempts", "quota_day", nullable=False)
    op.drop_index("ix_attempts_account", table_name="attempts")
    op.create_index(
        "ix_attempts_counted",
        "attempts",
        ["account_id", "endpoint", "quota_day"],
        postgresql_where=sa.text("counted"),
    )
    op.create_index("ix_attempts_started", "attempts", ["started_at"])


def _change_jobs() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "endpoint", sa.Text(), nullable=True, comment="the provider's interface: quotas and lines are its own"
        ),
    )
    for document_type, endpoint in _ENDPOINTS.items():
        op.execute(f"UPDATE jobs SET endpoint = '{endpoint}' WHERE document_type = '{document_type}'")  # noqa: S608
    op.alter_column("jobs", "endpoint", nullable=False)
    op.add_column(
        "jobs",
        sa.Column("batch_id", _id(), server_default=sa.text("'-'"), nullable=False, comment="a dash: in no batch"),
    )
    op.drop_index("ix_jobs_queued", table_name="jobs")
    op.drop_index("ix_jobs_processing", table_name="jobs")
    queued, processing = "status = 'queued'", "status = 'processing'"
    op.create_index(
        "ix_jobs_ready",
        "jobs",
        ["lane", "endpoint", "client_id", "batch_id", "id"],
        postgresql_where=sa.text(f"{queued} AND published_at IS NULL AND not_before IS NULL"),
    )
    op.create_index(
        "ix_jobs_parked",
        "jobs",
        ["not_before", "id"],
        postgresql_where=sa.text(f"{queued} AND not_before IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_sent",
        "jobs",
        ["published_at", "id"],
        postgresql_include=["lane", "endpoint"],
        postgresql_where=sa.text(f"{queued} AND published_at IS NOT NULL"),
    )
    op.create_index("ix_jobs_line", "jobs", ["endpoint", "lane", "id"], postgresql_where=sa.text(queued))
    op.create_index(
        "ix_jobs_processing",
        "jobs",
        ["lease_until"],
        postgresql_include=["lane", "endpoint"],
        postgresql_where=sa.text(processing),
    )


def downgrade() -> None:
    """Take it back."""
    for index in ("ix_jobs_ready", "ix_jobs_parked", "ix_jobs_sent", "ix_jobs_line", "ix_jobs_processing"):
        op.drop_index(index, table_name="jobs")
    op.create_index(
        "ix_jobs_queued", "jobs", ["lane", "not_before", "id"], postgresql_where=sa.text("status = 'queued'")
    )
    op.create_index("ix_jobs_processing", "jobs", ["lease_until"], postgresql_where=sa.text("status = 'processing'"))
    op.drop_column("jobs", "batch_id")
    op.drop_column("jobs", "endpoint")
    op.drop_index("ix_attempts_started", table_name="attempts")
    op.drop_index("ix_attempts_counted", table_name="attempts")
    op.create_index("ix_attempts_account", "attempts", ["account_id", "endpoint", "started_at"])
    op.drop_column("attempts", "quota_day")
    op.drop_column("attempts", "counted")
    op.drop_constraint(op.f("ck_accounts_billing"), "accounts")
    op.drop_column("accounts", "billing")
    op.drop_column("account_quotas", "in_flight_limit")
    op.drop_column("account_quotas", "total_limit")
    op.drop_table("stops")
    op.drop_table("events")
