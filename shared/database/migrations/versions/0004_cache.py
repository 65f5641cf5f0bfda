"""An image is paid for once: which jobs may be answered from earlier ones, and which were."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the step."""
    op.add_column(
        "jobs",
        sa.Column(
            "cache",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="may be answered from an earlier, equal job",
        ),
    )
    op.add_column("jobs", sa.Column("cache_source", sa.Text(), comment="the job whose answer this one was given"))
    op.create_index(
        "ix_jobs_image",
        "jobs",
        ["client_id", "image_sha256"],
        postgresql_where=sa.text("status IN ('processing', 'succeeded')"),
    )


def downgrade() -> None:
    """Take it back."""
    op.drop_index("ix_jobs_image", table_name="jobs")
    op.drop_column("jobs", "cache_source")
    op.drop_column("jobs", "cache")
