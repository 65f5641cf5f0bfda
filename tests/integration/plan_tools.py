"""How Postgres would run the statements of our functions."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, event

from shared.database.engine import transaction


def plans_of(engine: Engine, act: Callable[[Connection], Any], table: str) -> list[tuple[str, str]]:
    """The statements that name a table, each with its plan."""
    ran: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        ran.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    with transaction(engine) as connection:
        act(connection)
    event.remove(engine, "before_cursor_execute", note)
    found = []
    with engine.connect() as connection:
        cursor = connection.connection.cursor()
        for statement, parameters in ran:
            if f" {table}" in statement:
                cursor.execute(f"EXPLAIN {statement}", parameters)
                found.append((statement, "\n".join(row[0] for row in cursor.fetchall())))
    return found
