"""Batches; items that are fetched later, or were none."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_OF_THE_IMAGE = ("image_sha256", "image_bytes", "image_format", "image_width", "image_height")
_IN_A_BATCH = sa.text("batch_id <> '-'")


def upgrade() -> None:
    """Take the step."""
    op.create_table(
        "batches",
        sa.Column("id", sa.String(40, collation="C"), nullable=False),
        sa.Column("client_id", sa.String(40, collation="C"), nullable=False),
        sa.Column("name", sa.Text()),
        sa.Column("document_type", sa.Text(), comment="of items that name none"),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("cache", sa.Boolean(), nullable=False),
        sa.Column(
            "item_count", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="the last item's number"
        ),
        sa.Column("told_percent", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), comment="no more items from then on"),
        sa.Column("canceled_at", sa.DateTime(timezone=True)),
        sa.Column("completed_at", sa.DateTime(timezone=True), comment="closed, and every item final"),
        sa.CheckConstraint("lane IN ('interactive', 'bulk')", name=op.f("ck_batches_lane")),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_batches_client_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index("ix_batches_client", "batches", ["client_id", "id"])
    op.create_index("ix_batches_running", "batches", ["id"], postgresql_where=sa.text("completed_at IS NULL"))
    op.add_column("jobs", sa.Column("item_number", sa.Integer(), comment="place in its batch, from 1"))
    op.add_column("jobs", sa.Column("item_name", sa.Text(), comment="what its file is called in the batch"))
    op.add_column("jobs", sa.Column("image_url", sa.Text(), comment="where a worker fetches it; null once it has"))
    for column in _OF_THE_IMAGE:
        op.alter_column("jobs", column, nullable=True)
    op.create_index("ix_jobs_item", "jobs", ["batch_id", "item_number"], unique=True, postgresql_where=_IN_A_BATCH)
    op.create_index(
        "ix_jobs_batch_status",
        "jobs",
        ["batch_id", "status"],
        postgresql_include=["calls", "billed_calls", "endpoint"],
        postgresql_where=_IN_A_BATCH,
    )


def downgrade() -> None:
    """Take it back; items that have no image are gone then."""
    op.drop_index("ix_jobs_batch_status", table_name="jobs")
    op.drop_index("ix_jobs_item", table_name="jobs")
    op.execute("DELETE FROM jobs WHERE image_sha256 IS NULL")
    for column in _OF_THE_IMAGE:
        op.alter_column("jobs", column, nullable=False)
    for column in ("image_url", "item_name", "item_number"):
        op.drop_column("jobs", column)
    op.drop_table("batches")
