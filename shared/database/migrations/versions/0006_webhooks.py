"""Events are placed, and delivered to endpoints."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.String(40, collation="C")
_TIME = sa.DateTime(timezone=True)
_URL_TOLD = ("jobs", "batches")


def upgrade() -> None:
    """Take the step. Events that are there already keep their order; nobody is told of them any more."""
    op.execute("CREATE SEQUENCE event_positions")
    op.alter_column("events", "id", existing_type=_ID, comment="the webhook-id of all its deliveries")
    op.alter_column(
        "events",
        "data",
        existing_type=postgresql.JSONB(astext_type=sa.Text()),
        existing_nullable=False,
        comment="ids and states; no content",
    )
    op.add_column("events", sa.Column("job_id", _ID))
    op.add_column("events", sa.Column("batch_id", _ID))
    op.add_column("events", sa.Column("document_type", sa.Text()))
    op.add_column(
        "events",
        sa.Column(
            "position", sa.BigInteger(), comment="the order in which it is read and delivered; null: not given yet"
        ),
    )
    op.add_column("events", sa.Column("once", sa.Text(), comment="told no second time under this name"))
    op.create_unique_constraint(op.f("uq_events_once"), "events", ["once"])
    op.execute("UPDATE events SET batch_id = data ->> 'batch_id'")
    op.execute(
        "UPDATE events SET position = placed.position FROM "
        "(SELECT id, nextval('event_positions') AS position FROM (SELECT id FROM events ORDER BY id) AS old) AS placed "
        "WHERE placed.id = events.id"
    )
    op.create_index("ix_events_client", "events", ["client_id", "position"], unique=True)
    op.create_index("ix_events_new", "events", ["id"], postgresql_where=sa.text("position IS NULL"))
    for table in _URL_TOLD:
        erased = "; null once erased" if table == "jobs" else ""
        op.add_column(table, sa.Column("webhook_url", sa.Text(), comment=f"where its end is told{erased}"))
        op.add_column(
            table, sa.Column("webhook_endpoint_id", _ID, comment="the endpoint that stands for that address's host")
        )
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", _ID, nullable=False),
        sa.Column("client_id", _ID, nullable=False),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="registered by the client, or the host of its jobs' webhook_url"
        ),
        sa.Column("url", sa.Text(), nullable=False, comment="of a host: scheme, name and port"),
        sa.Column("description", sa.Text()),
        sa.Column("event_types", postgresql.ARRAY(sa.Text()), comment="null: all but those that have to be asked for"),
        sa.Column("document_types", postgresql.ARRAY(sa.Text()), comment="null: all"),
        sa.Column("batch_id", _ID, comment="null: all, and events of no batch"),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("disabled_at", _TIME),
        sa.Column("disabled_reason", sa.Text()),
        sa.Column("deleted_at", _TIME, comment="it and its deliveries are swept later"),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="in a row"),
        sa.Column("failing_since", _TIME, comment="the first of them"),
        sa.Column(
            "openings", sa.SmallInteger(), server_default=sa.text("0"), nullable=False, comment="pauses in a row"
        ),
        sa.Column("paused_until", _TIME, comment="nothing is sent before; then one delivery tries"),
        sa.Column(
            "mean_ms", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="of its answers, moving"
        ),
        sa.Column("succeeded_at", _TIME, comment="the last delivery it took"),
        sa.Column("called_at", _TIME, comment="when a worker was last called for it; null: taken since"),
        sa.CheckConstraint("kind IN ('registered', 'job_urls')", name=op.f("ck_webhook_endpoints_kind")),
        sa.CheckConstraint("payload IN ('thin', 'full')", name=op.f("ck_webhook_endpoints_payload")),
        sa.CheckConstraint(
            "disabled_reason IN ('client', 'gone', 'failing')", name=op.f("ck_webhook_endpoints_disabled_reason")
        ),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL)", name=op.f("ck_webhook_endpoints_disabled_for_a_reason")
        ),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_webhook_endpoints_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoints")),
    )
    op.create_index("ix_webhook_endpoints_client", "webhook_endpoints", ["client_id", "id"])
    op.create_index(
        "ix_webhook_endpoints_host",
        "webhook_endpoints",
        ["client_id", "url"],
        unique=True,
        postgresql_where=sa.text("kind = 'job_urls' AND deleted_at IS NULL"),
    )
    op.create_table(
        "webhook_secrets",
        sa.Column("owner_id", _ID, nullable=False, comment="a registered endpoint, or a client for its jobs' URLs"),
        sa.Column("sealed", sa.LargeBinary(), nullable=False, comment="sealed with KAZHENG_SECRET_KEY"),
        sa.Column("sealed_previous", sa.LargeBinary()),
        sa.Column("previous_until", _TIME, comment="deliveries are signed with both before"),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("pk_webhook_secrets")),
    )
    _create_deliveries()


def _create_deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", _ID, nullable=False),
        sa.Column("endpoint_id", _ID, nullable=False),
        sa.Column("event_id", _ID, nullable=False),
        sa.Column("job_id", _ID),
        sa.Column("url", sa.Text(), comment="null: the endpoint's"),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column(
            "failures",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="of this round of attempts",
        ),
        sa.Column("next_attempt_at", _TIME, nullable=False),
        sa.Column("claim_token", sa.Text()),
        sa.Column("lease_until", _TIME),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("completed_at", _TIME),
        sa.Column(
            "attempts",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
            comment="oldest first: {at, duration_ms, status_code, error, excerpt}",
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'sending', 'succeeded', 'failed', 'canceled')", name=op.f("ck_deliveries_status")
        ),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], name=op.f("fk_deliveries_endpoint_id")),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_deliveries_event_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deliveries")),
        sa.UniqueConstraint("event_id", "endpoint_id", name=op.f("uq_deliveries_event_id")),
        postgresql_with={"fillfactor": 80, "autovacuum_vacuum_scale_factor": 0.01, "autovacuum_vacuum_threshold": 1000},
    )
    op.create_index("ix_deliveries_log", "deliveries", ["endpoint_id", "id"])
    op.create_index(
        "ix_deliveries_due",
        "deliveries",
        ["endpoint_id", "next_attempt_at", "id"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "ix_deliveries_sending",
        "deliveries",
        ["endpoint_id", "lease_until"],
        postgresql_where=sa.text("status = 'sending'"),
    )
    op.create_index("ix_deliveries_job", "deliveries", ["job_id"], postgresql_where=sa.text("job_id IS NOT NULL"))


def downgrade() -> None:
    """Take it back; endpoints and deliveries are gone then."""
    for table in ("deliveries", "webhook_secrets", "webhook_endpoints"):
        op.drop_table(table)
    for table in _URL_TOLD:
        op.drop_column(table, "webhook_endpoint_id")
        op.drop_column(table, "webhook_url")
    op.drop_index("ix_events_new", table_name="events")
    op.drop_index("ix_events_client", table_name="events")
    op.drop_constraint(op.f("uq_events_once"), "events")
    for column in ("once", "position", "document_type", "batch_id", "job_id"):
        op.drop_column("events", column)
    op.alter_column(
        "events",
        "data",
        existing_type=postgresql.JSONB(astext_type=sa.Text()),
        existing_nullable=False,
        comment=None,
    )
    op.alter_column("events", "id", existing_type=_ID, comment=None)
    op.execute("DROP SEQUENCE event_positions")
