"""What all tables share."""

from sqlalchemy import CheckConstraint, DateTime, MetaData, String

# Sorts before every id, and behind the empty text that stands for "from the first on" in feeding.
NO_BATCH = "-"

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def id_type() -> String:
    """Prefixed UUIDv7 text; "C" collation sorts it by time."""
    return String(40, collation="C")


def time_type() -> DateTime:
    """An instant."""
    return DateTime(timezone=True)


def one_of(column: str, values: list[str]) -> CheckConstraint:
    """The column holds one of these values."""
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)
