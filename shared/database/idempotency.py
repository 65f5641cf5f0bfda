"""Idempotency keys: the same key and request give the same job, whatever happens in between.

The key is taken in a transaction of its own before the image is stored, and tied to the job in the transaction that
inserts the job. A request that dies in between leaves a key without a job; after `locked_until` it may be taken again.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.database.tables import idempotency_keys


@dataclass(frozen=True)
class KeyUse:
    """What a key was used for before. `job_id` None: that request is still being served."""

    request_sha256: str
    job_id: str | None


def take_key(
    connection: Connection,
    client_id: str,
    key: str,
    *,
    request_sha256: str,
    now: datetime,
    locked_until: datetime,
    expires_at: datetime,
) -> KeyUse | None:
    """Take a key for this request; None when it is ours now, else what it is used for."""
    values = {
        "request_sha256": request_sha256,
        "job_id": None,
        "locked_until": locked_until,
        "expires_at": expires_at,
    }
    over = or_(
        idempotency_keys.c.expires_at < now,
        and_(idempotency_keys.c.job_id.is_(None), idempotency_keys.c.locked_until < now),
    )
    statement = (
        insert(idempotency_keys)
        .values(client_id=client_id, key=key, **values)
        .on_conflict_do_update(index_elements=["client_id", "key"], set_=values, where=over)
        .returning(idempotency_keys.c.key)
    )
    if connection.execute(statement).one_or_none() is not None:
        return None
    where = and_(idempotency_keys.c.client_id == client_id, idempotency_keys.c.key == key)
    row = connection.execute(select(idempotency_keys.c.request_sha256, idempotency_keys.c.job_id).where(where)).one()
    return KeyUse(row.request_sha256, row.job_id)


def bind_key(connection: Connection, client_id: str, key: str, job_id: str, *, request_sha256: str) -> bool:
    """Tie a taken key to the job it made; False when that took so long that another request has the key now."""
    where = and_(
        idempotency_keys.c.client_id == client_id,
        idempotency_keys.c.key == key,
        idempotency_keys.c.request_sha256 == request_sha256,
        idempotency_keys.c.job_id.is_(None),
    )
    return connection.execute(update(idempotency_keys).where(where).values(job_id=job_id)).rowcount == 1


def drop_key(connection: Connection, client_id: str, key: str) -> None:
    """Give back a key whose request made no job, so that the caller may mend the request and use it again."""
    where = and_(
        idempotency_keys.c.client_id == client_id, idempotency_keys.c.key == key, idempotency_keys.c.job_id.is_(None)
    )
    connection.execute(delete(idempotency_keys).where(where))


def purge_keys(connection: Connection, now: datetime) -> int:
    """Forget keys past their time; how many."""
    return connection.execute(delete(idempotency_keys).where(idempotency_keys.c.expires_at < now)).rowcount
