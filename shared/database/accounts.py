"""Accounts at the provider, and what each may do at each endpoint."""

from dataclasses import dataclass
from datetime import datetime

from cryptography.fernet import Fernet, InvalidToken
from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from shared.database.tables import account_quotas, accounts, stops
from shared.domain.quota import Billing, Quota
from shared.ids import new_id


class SecretUnreadableError(Exception):
    """An account's secret was sealed with another KAZHENG_SECRET_KEY."""


@dataclass(frozen=True)
class Account:
    """One set of credentials. `quotas` holds the endpoints that differ from `default_qps`."""

    id: str
    name: str
    provider: str
    base_url: str
    api_key: str
    sealed_secret: bytes
    default_qps: float
    billing: Billing
    paused: bool
    updated_at: datetime
    quotas: dict[str, Quota]

    def quota(self, endpoint: str) -> Quota:
        """What the account may do at an endpoint."""
        return self.quotas.get(endpoint) or Quota(qps=self.default_qps)

    def open_secret(self, secret_key: str) -> str:
        """The account's secret key.

        Raises:
            SecretUnreadableError: it was sealed with another key.
        """
        try:
            return Fernet(secret_key).decrypt(self.sealed_secret).decode()
        except InvalidToken:
            message = f"The secret of account {self.name} was sealed with another KAZHENG_SECRET_KEY. Set it again."
            raise SecretUnreadableError(message) from None


def list_accounts(connection: Connection) -> list[Account]:
    """All accounts, by name."""
    quotas: dict[str, dict[str, Quota]] = {}
    for row in connection.execute(select(account_quotas)):
        quotas.setdefault(row.account_id, {})[row.endpoint] = Quota(
            row.qps, row.day_limit, row.total_limit, row.in_flight_limit
        )
    columns = [column for column in accounts.c if column.name != "created_at"]
    rows = connection.execute(select(*columns).order_by(accounts.c.name))
    return [Account(**{**row._mapping, "billing": Billing(row.billing)}, quotas=quotas.get(row.id, {})) for row in rows]


def save_account(
    connection: Connection,
    *,
    name: str,
    provider: str,
    base_url: str,
    api_key: str,
    secret: str,
    default_qps: float,
    billing: Billing,
    secret_key: str,
) -> None:
    """Make an account, or give an existing one these values; its endpoint quotas and its pause stay.

    What stopped it is forgotten: the next call tells whether it is repaired.
    """
    values = {
        "provider": provider,
        "base_url": base_url.rstrip("/"),
        "api_key": api_key,
        "sealed_secret": Fernet(secret_key).encrypt(secret.encode()),
        "default_qps": default_qps,
        "billing": billing,
    }
    statement = insert(accounts).values(id=new_id("acc"), name=name, **values)
    connection.execute(
        statement.on_conflict_do_update(index_elements=["name"], set_={**values, "updated_at": func.now()})
    )
    _forget_stops(connection, name)


def _forget_stops(connection: Connection, name: str) -> None:
    account_id = select(accounts.c.id).where(accounts.c.name == name).scalar_subquery()
    connection.execute(delete(stops).where(stops.c.account_id == account_id))


def set_paused(connection: Connection, name: str, paused: bool) -> bool:
    """Stop or resume using an account; False when there is none of that name."""
    statement = update(accounts).where(accounts.c.name == name).values(paused=paused, updated_at=func.now())
    if not paused:
        _forget_stops(connection, name)
    return connection.execute(statement).rowcount == 1


def set_quota(connection: Connection, name: str, endpoint: str, quota: Quota) -> bool:
    """Say what an account may do at an endpoint; False when there is no account of that name.

    What stopped the account is forgotten: the next call tells whether the quota is there.
    """
    account_id = connection.execute(select(accounts.c.id).where(accounts.c.name == name)).scalar_one_or_none()
    if account_id is None:
        return False
    values = {
        "qps": quota.qps,
        "day_limit": quota.day_limit,
        "total_limit": quota.total_limit,
        "in_flight_limit": quota.in_flight_limit,
    }
    statement = insert(account_quotas).values(account_id=account_id, endpoint=endpoint, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["account_id", "endpoint"], set_=values))
    _forget_stops(connection, name)
    return True
