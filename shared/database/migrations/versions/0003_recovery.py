"""What happened to each job, crashes, when the sweeper last ran, and one more reason for a stop."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


_REASONS = "'daily_quota', 'total_quota', 'misconfigured', 'unclaimed'"


def _allow_reasons(reasons: str) -> None:
    op.drop_constraint(op.f("ck_stops_reason"), "stops")
    op.create_check_constraint(op.f("ck_stops_reason"), "stops", f"reason IN ({reasons})")


def upgrade() -> None:
    """Take the step."""
    _allow_reasons(f"{_REASONS}, 'outage'")
    op.create_table(
        "chores",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("ran_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_chores"),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "crashes",
            sa.SmallInteger(),
            server_default=sa.text("0"),
            nullable=False,
            comment="workers that died while they prepared it",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "history",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
            comment="what happened to it, oldest first: {event, at, …}; no content",
        ),
    )
    op.create_index(
        "ix_jobs_expiring",
        "jobs",
        ["expires_at"],
        postgresql_where=sa.text("status = 'queued' AND expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_jobs_erasing",
        "jobs",
        ["erased_at"],
        postgresql_where=sa.text("erased_at IS NOT NULL AND image_key IS NOT NULL"),
    )
    op.create_index("ix_jobs_poisoned", "jobs", ["completed_at"], postgresql_where=sa.text("error_code = 'poisoned'"))


def downgrade() -> None:
    """Take it back."""
    op.execute("DELETE FROM stops WHERE reason = 'outage'")
    _allow_reasons(_REASONS)
    op.drop_index("ix_jobs_poisoned", table_name="jobs")
    op.drop_index("ix_jobs_erasing", table_name="jobs")
    op.drop_index("ix_jobs_expiring", table_name="jobs")
    op.drop_column("jobs", "history")
    op.drop_column("jobs", "crashes")
    op.drop_table("chores")
