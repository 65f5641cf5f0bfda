"""What was used: calls by day, client, document type and account, and what they cost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, and_, exists, func, select

from shared.database.tables import accounts, attempts, clients, jobs
from shared.domain.job import JobStatus
from shared.domain.prices import Prices, cost_of, tiers_of
from shared.domain.quota import Billing

DIMENSIONS = ("day", "client", "document_type", "account")


@dataclass(frozen=True)
class Usage:
    """Counts of one group. A dimension that was not asked for is None.

    `calls` were made; `succeeded` and `failed` ended so, `unfinished` are under way or lost their worker. `saved` are
    jobs answered without a call. `cost` in CNY.
    """

    day: date | None = None
    client: str | None = None
    document_type: str | None = None
    account: str | None = None
    calls: int = 0
    succeeded: int = 0
    failed: int = 0
    unfinished: int = 0
    billed: int = 0
    saved: int = 0
    cost: Decimal = Decimal(0)


_COUNTS = ("calls", "succeeded", "failed", "unfinished", "billed", "saved", "cost")


def read_usage(
    connection: Connection,
    first: date,
    last: date,
    *,
    by: Sequence[str],
    prices: Prices,
    zone: timezone,
    client_id: str | None = None,
) -> list[Usage]:
    """Usage of these provider's days, both included, in groups, in the order of their names.

    A day's calls of an account at an endpoint are priced together and shared out evenly among those billed: so the
    clients' costs add up to the account's.

    Args:
        by: which of DIMENSIONS to tell apart.
        zone: where the provider's day turns.
        client_id: only this client's; None: all.
    """
    rows = _calls(connection, first, last, client_id) + _saved(connection, first, last, zone, client_id)
    rates = _rates(connection, first, last, prices)
    grouped: dict[tuple[object, ...], dict[str, Any]] = {}
    for row in rows:
        place = tuple(row[name] for name in by)
        group = grouped.setdefault(place, {name: row[name] for name in by} | dict.fromkeys(_COUNTS, 0))
        cost = rates.get((row["day"], row["account_id"], row["endpoint"]), Decimal(0)) * row["billed"]
        for name in _COUNTS:
            group[name] += cost if name == "cost" else row[name]
    return [
        Usage(**group) for _, group in sorted(grouped.items(), key=lambda item: tuple(str(part) for part in item[0]))
    ]


def total_of(usages: Iterable[Usage]) -> Usage:
    """All of it together."""
    total = {name: Decimal(0) if name == "cost" else 0 for name in _COUNTS}
    for usage in usages:
        for name in _COUNTS:
            total[name] += getattr(usage, name)
    return Usage(**total)  # type: ignore[arg-type]


def _calls(connection: Connection, first: date, last: date, client_id: str | None) -> list[dict[str, Any]]:
    count = func.count().filter
    statement = (
        select(
            attempts.c.quota_day.label("day"),
            clients.c.name.label("client"),
            jobs.c.document_type,
            accounts.c.name.label("account"),
            attempts.c.account_id,
            attempts.c.endpoint,
            func.count().label("calls"),
            count(attempts.c.outcome == "succeeded").label("succeeded"),
            count(and_(attempts.c.outcome.is_not(None), attempts.c.outcome != "succeeded")).label("failed"),
            count(attempts.c.outcome.is_(None)).label("unfinished"),
            count(attempts.c.billed).label("billed"),
        )
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .join(clients, clients.c.id == jobs.c.client_id)
        .join(accounts, accounts.c.id == attempts.c.account_id)
        .where(attempts.c.quota_day.between(first, last))
        .group_by(
            attempts.c.quota_day,
            clients.c.name,
            jobs.c.document_type,
            accounts.c.name,
            attempts.c.account_id,
            attempts.c.endpoint,
        )
    )
    if client_id is not None:
        statement = statement.where(jobs.c.client_id == client_id)
    return [{**row._mapping, "saved": 0} for row in connection.execute(statement)]


def _saved(
    connection: Connection, first: date, last: date, zone: timezone, client_id: str | None
) -> list[dict[str, Any]]:
    """Jobs that were answered without a call."""
    begin, end = datetime.combine(first, time.min, zone), datetime.combine(last + timedelta(days=1), time.min, zone)
    offset = func.make_interval(0, 0, 0, 0, 0, 0, (zone.utcoffset(None) or timedelta()).total_seconds())
    day = func.date(func.timezone("UTC", jobs.c.completed_at) + offset)
    statement = (
        select(day.label("day"), clients.c.name.label("client"), jobs.c.document_type, func.count().label("saved"))
        .join(clients, clients.c.id == jobs.c.client_id)
        .where(
            jobs.c.status == JobStatus.SUCCEEDED,
            jobs.c.calls == 0,
            jobs.c.completed_at >= begin,
            jobs.c.completed_at < end,
            ~exists().where(attempts.c.job_id == jobs.c.id),
        )
        .group_by(day, clients.c.name, jobs.c.document_type)
    )
    if client_id is not None:
        statement = statement.where(jobs.c.client_id == client_id)
    nothing: dict[str, Any] = {"account": None, "account_id": None, "endpoint": None}
    nothing |= dict.fromkeys(("calls", "succeeded", "failed", "unfinished", "billed"), 0)
    return [{**nothing, **row._mapping} for row in connection.execute(statement)]


def _rates(connection: Connection, first: date, last: date, prices: Prices) -> Mapping[tuple[date, str, str], Decimal]:
    """The average price of a billed call, by day, account and endpoint, over all clients."""
    statement = (
        select(
            attempts.c.quota_day,
            attempts.c.account_id,
            attempts.c.endpoint,
            accounts.c.billing,
            func.count().label("billed"),
        )
        .join(accounts, accounts.c.id == attempts.c.account_id)
        .where(attempts.c.billed, attempts.c.quota_day.between(first.replace(day=1), last))
        .group_by(attempts.c.quota_day, attempts.c.account_id, attempts.c.endpoint, accounts.c.billing)
        .order_by(attempts.c.quota_day)
    )
    before: dict[tuple[int, int, str, str], int] = {}
    rates = {}
    for day, account_id, endpoint, billing, billed in connection.execute(statement):
        month = (day.year, day.month, account_id, endpoint)
        cost = cost_of(before.get(month, 0), billed, tiers_of(prices, endpoint, Billing(billing)))
        before[month] = before.get(month, 0) + billed
        rates[day, account_id, endpoint] = cost / billed
    return rates
