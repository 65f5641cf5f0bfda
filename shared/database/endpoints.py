"""Webhook endpoints and their signing secrets."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import Connection, and_, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from shared.database.events import record_event
from shared.database.tables import webhook_endpoints, webhook_secrets
from shared.domain.errors import SigningSecretUnreadableError
from shared.domain.webhook import DisabledReason, EndpointKind, EventType, Health, Payload, new_secret
from shared.ids import new_id


@dataclass(frozen=True)
class Endpoint:
    """A row of `webhook_endpoints`; the columns say what each field means."""

    id: str
    client_id: str
    kind: EndpointKind
    url: str
    description: str | None
    event_types: list[str] | None
    document_types: list[str] | None
    batch_id: str | None
    payload: Payload
    created_at: datetime
    disabled_at: datetime | None
    disabled_reason: DisabledReason | None
    succeeded_at: datetime | None
    called_at: datetime | None
    health: Health

    @property
    def secret_owner(self) -> str:
        """Under which id its signing secret is kept."""
        return self.client_id if self.kind is EndpointKind.JOB_URLS else self.id


_HEALTH = list(Health.__dataclass_fields__)
_OWN = [name for name in Endpoint.__dataclass_fields__ if name != "health"]
ENDPOINT_COLUMNS = [webhook_endpoints.c[name] for name in (*_OWN, *_HEALTH)]


def to_endpoint(row: Any) -> Endpoint:
    """A row of ENDPOINT_COLUMNS as an endpoint."""
    values = {name: getattr(row, name) for name in _OWN}
    values["kind"] = EndpointKind(values["kind"])
    values["payload"] = Payload(values["payload"])
    values["disabled_reason"] = values["disabled_reason"] and DisabledReason(values["disabled_reason"])
    return Endpoint(**values, health=Health(**{name: getattr(row, name) for name in _HEALTH}))


def insert_endpoint(connection: Connection, client_id: str, now: datetime, **values: Any) -> Endpoint:
    """Register an endpoint.

    Args:
        values: `url`, `payload`, and those of `description`, `event_types`, `document_types`, `batch_id` there are.
    """
    row = {"id": new_id("whe"), "client_id": client_id, "kind": EndpointKind.REGISTERED, "created_at": now, **values}
    statement = insert(webhook_endpoints).values(row).returning(*ENDPOINT_COLUMNS)
    return to_endpoint(connection.execute(statement).one())


def endpoint_of_host(connection: Connection, client_id: str, host: str, now: datetime) -> str:
    """Id of the endpoint that stands for all `webhook_url` of a client at one host (scheme, name, port)."""
    is_it = and_(
        webhook_endpoints.c.client_id == client_id,
        webhook_endpoints.c.url == host,
        webhook_endpoints.c.kind == EndpointKind.JOB_URLS,
        webhook_endpoints.c.deleted_at.is_(None),
    )
    find = select(webhook_endpoints.c.id).where(is_it)
    found: str | None = connection.execute(find).scalar_one_or_none()
    if found is not None:
        return found
    row = {"id": new_id("whe"), "client_id": client_id, "kind": EndpointKind.JOB_URLS, "created_at": now}
    row |= {"url": host, "payload": Payload.THIN}
    connection.execute(upsert(webhook_endpoints).values(row).on_conflict_do_nothing())
    made: str = connection.execute(find).scalar_one()
    return made


def _owned(endpoint_id: str, client_id: str) -> Any:
    return and_(
        webhook_endpoints.c.id == endpoint_id,
        webhook_endpoints.c.client_id == client_id,
        webhook_endpoints.c.deleted_at.is_(None),
    )


def get_endpoint(connection: Connection, endpoint_id: str, *, client_id: str) -> Endpoint | None:
    """The client's endpoint, or None: another client's is not told from one that does not exist."""
    row = connection.execute(select(*ENDPOINT_COLUMNS).where(_owned(endpoint_id, client_id))).one_or_none()
    return None if row is None else to_endpoint(row)


def list_endpoints(connection: Connection, client_id: str, *, limit: int, after: str | None) -> list[Endpoint]:
    """The client's endpoints, newest first; `after`: id of the last one already seen."""
    where = [webhook_endpoints.c.client_id == client_id, webhook_endpoints.c.deleted_at.is_(None)]
    if after is not None:
        where.append(webhook_endpoints.c.id < after)
    statement = select(*ENDPOINT_COLUMNS).where(*where).order_by(webhook_endpoints.c.id.desc()).limit(limit)
    return [to_endpoint(row) for row in connection.execute(statement)]


def count_registered(connection: Connection, client_id: str) -> int:
    """How many endpoints a client has registered; they can't grow while the transaction lasts."""
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(client_id, 1))))
    statement = select(func.count()).where(
        webhook_endpoints.c.client_id == client_id,
        webhook_endpoints.c.kind == EndpointKind.REGISTERED,
        webhook_endpoints.c.deleted_at.is_(None),
    )
    return connection.execute(statement).scalar_one()


_WELL = {"failures": 0, "failing_since": None, "openings": 0, "paused_until": None, "called_at": None, "mean_ms": 0}


def change_endpoint(connection: Connection, endpoint_id: str, values: Mapping[str, Any], *, client_id: str) -> None:
    """Give an endpoint other values; at another address it starts as if nothing had been wrong with it."""
    anew = _WELL if "url" in values else {}
    if values:
        connection.execute(update(webhook_endpoints).where(_owned(endpoint_id, client_id)).values(**values, **anew))


def delete_endpoint(connection: Connection, endpoint_id: str, *, client_id: str, now: datetime) -> None:
    """Send nothing more to an endpoint and forget it; its deliveries are swept later. Twice changes nothing."""
    connection.execute(update(webhook_endpoints).where(_owned(endpoint_id, client_id)).values(deleted_at=now))


def enable_endpoint(connection: Connection, endpoint_id: str, *, client_id: str) -> None:
    """Send to an endpoint again, as if nothing had been wrong with it."""
    values = {"disabled_at": None, "disabled_reason": None, **_WELL}
    connection.execute(update(webhook_endpoints).where(_owned(endpoint_id, client_id)).values(**values))


def disable_endpoint(connection: Connection, endpoint_id: str, reason: DisabledReason, now: datetime) -> bool:
    """Send nothing to an endpoint; False: it was disabled before. Unless its owner wanted it, an event tells."""
    is_it = and_(webhook_endpoints.c.id == endpoint_id, webhook_endpoints.c.disabled_at.is_(None))
    statement = update(webhook_endpoints).where(is_it).values(disabled_at=now, disabled_reason=reason)
    row = connection.execute(statement.returning(*ENDPOINT_COLUMNS)).one_or_none()
    if row is None:
        return False
    if reason is not DisabledReason.CLIENT:
        since = row.failing_since
        data = {"endpoint_id": endpoint_id, "reason": reason, "failing_since": since and since.isoformat()}
        record_event(connection, EventType.ENDPOINT_DISABLED, data, now, client_id=row.client_id)
    return True


def ensure_secret(connection: Connection, owner_id: str, secret_key: str) -> str | None:
    """Make a signing secret; None when there is one already."""
    secret = new_secret()
    statement = upsert(webhook_secrets).values(owner_id=owner_id, sealed=_seal(secret, secret_key))
    made = connection.execute(statement.on_conflict_do_nothing()).rowcount == 1
    return secret if made else None


def rotate_secret(connection: Connection, owner_id: str, secret_key: str, *, previous_until: datetime) -> str:
    """Make another signing secret; until then deliveries are signed with the one before too."""
    secret = new_secret()
    sealed = _seal(secret, secret_key)
    statement = upsert(webhook_secrets).values(owner_id=owner_id, sealed=sealed)
    again = {"sealed": sealed, "sealed_previous": webhook_secrets.c.sealed, "previous_until": previous_until}
    connection.execute(statement.on_conflict_do_update(index_elements=["owner_id"], set_=again))
    return secret


def signing_secrets(connection: Connection, owner_id: str, secret_key: str, now: datetime) -> Sequence[str]:
    """What deliveries are signed with now: one secret, or two while it is being rotated.

    Raises:
        SigningSecretUnreadableError: there is none, or it was sealed with another key.
    """
    is_it = webhook_secrets.c.owner_id == owner_id
    row = connection.execute(select(webhook_secrets).where(is_it)).one_or_none()
    if row is None:
        raise SigningSecretUnreadableError("There is no signing secret. Rotate it.")
    fernet = Fernet(secret_key)
    try:
        found = [fernet.decrypt(row.sealed).decode()]
    except InvalidToken:
        message = "The signing secret was sealed with another KAZHENG_SECRET_KEY. Rotate it."
        raise SigningSecretUnreadableError(message) from None
    if row.sealed_previous is not None and row.previous_until > now:
        with suppress(InvalidToken):  # it was rotated because it can't be read
            found.append(fernet.decrypt(row.sealed_previous).decode())
    return found


def _seal(secret: str, secret_key: str) -> bytes:
    return Fernet(secret_key).encrypt(secret.encode())
