"""Clients and their API keys. A key is kept as its SHA-256 and shown once.

A fast hash is enough, and is not what one would use for passwords: a key holds 256 random bits, not a person's choice.
"""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.database.tables import api_keys, clients
from shared.ids import new_id

_PREFIX = "kz_"
_HINT_LENGTH = 8


@dataclass(frozen=True)
class ApiKey:
    """One key, without the key: `hint` is how it begins."""

    id: str
    client: str
    name: str
    hint: str
    created_at: datetime
    revoked_at: datetime | None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def create_key(connection: Connection, *, client: str, name: str) -> str:
    """Make an API key, and the client if it is new. The key is returned this once."""
    statement = insert(clients).values(id=new_id("cli"), name=client).on_conflict_do_nothing(index_elements=["name"])
    connection.execute(statement)
    client_id = connection.execute(select(clients.c.id).where(clients.c.name == client)).scalar_one()
    key = _PREFIX + secrets.token_urlsafe(32)
    connection.execute(
        api_keys.insert().values(
            id=new_id("key"), client_id=client_id, name=name, hint=key[:_HINT_LENGTH], sha256=_digest(key)
        )
    )
    return key


def find_client(connection: Connection, key: str) -> str | None:
    """Id of the client an API key belongs to; None when it is unknown or revoked."""
    statement = select(api_keys.c.client_id).where(api_keys.c.sha256 == _digest(key), api_keys.c.revoked_at.is_(None))
    return connection.execute(statement).scalar_one_or_none()


def list_keys(connection: Connection) -> list[ApiKey]:
    """All keys, oldest first."""
    statement = (
        select(
            api_keys.c.id,
            clients.c.name.label("client"),
            api_keys.c.name,
            api_keys.c.hint,
            api_keys.c.created_at,
            api_keys.c.revoked_at,
        )
        .join(clients)
        .order_by(api_keys.c.id)
    )
    return [ApiKey(**row._mapping) for row in connection.execute(statement)]


def revoke_key(connection: Connection, key_id: str, now: datetime) -> bool:
    """Make a key useless from now on; False when there is no such key in use."""
    statement = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    return connection.execute(statement).rowcount == 1
