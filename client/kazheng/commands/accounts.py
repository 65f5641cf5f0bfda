"""`kazheng accounts`: credentials at the OCR provider, and what each may do there."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from kazheng.commands.failures import CommandError
from kazheng.commands.migrate import PROVIDER
from shared.database.accounts import Account, list_accounts, save_account, set_paused, set_quota
from shared.database.engine import make_engine, transaction
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.quota import Billing, Quota
from shared.settings import Settings

_ENDPOINTS = sorted({document.endpoint for document in DOCUMENT_TYPES.values()})
_QPS = click.FloatRange(0, 1000, min_open=True)
_NO_LIMIT = "none"
# What the columns hold: four bytes, and two.
_MANY, _FEW = 2**31 - 1, 2**15 - 1


class _Limit(click.ParamType[int | str]):
    """A number of calls, or `none`."""

    name = "calls|none"

    def __init__(self, most: int) -> None:
        self._most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == _NO_LIMIT:
            return _NO_LIMIT
        limit = str(value)
        if not (limit.isascii() and limit.isdigit() and int(limit) <= self._most):
            self.fail(f"give a number of calls up to {self._most}, or `none`", param, ctx)
        return int(limit)


@dataclass(frozen=True)
class _Changes:
    """What `accounts set` was asked for; None leaves a thing as it is."""

    base_url: str | None
    api_key: str | None
    secret: str | None
    default_qps: float | None
    billing: str | None
    endpoint: str | None
    qps: float | None
    day_limit: int | str | None
    total_limit: int | str | None
    in_flight: int | str | None
    paused: bool | None

    @property
    def touches_account(self) -> bool:
        """Whether anything but a quota and the pause changes."""
        values = (self.base_url, self.api_key, self.secret, self.default_qps, self.billing)
        return any(value is not None for value in values)

    @property
    def touches_quota(self) -> bool:
        """Whether what the account may do at an endpoint changes."""
        return any(value is not None for value in (self.qps, self.day_limit, self.total_limit, self.in_flight))


@click.group("accounts")
def accounts() -> None:
    """Accounts at the OCR provider, and their quotas. Changes reach running workers within seconds."""


@accounts.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one account a line.")
def list_all(*, as_json: bool) -> None:
    """Show all accounts; secrets are never shown."""
    with _database(Settings.from_env()) as engine, transaction(engine) as connection:
        found = list_accounts(connection)
    if as_json:
        for account in found:
            click.echo(json.dumps(_shown(account), ensure_ascii=False))
        return
    if not found:
        click.echo("There is no account yet. `kazheng migrate` makes the default one.")
        return
    titles = (
        "account",
        "state",
        "billing",
        "address",
        "API key",
        "endpoint",
        "calls/s",
        "a day",
        "in all",
        "in flight",
    )
    rows = Table(*titles, box=None, pad_edge=False)
    for account in found:
        state = Text("paused", "yellow") if account.paused else Text("in use", "green")
        qps = f"{account.default_qps:g}"
        rows.add_row(account.name, state, account.billing.value, account.base_url, account.api_key, "all", qps)
        for endpoint, quota in sorted(account.quotas.items()):
            limits = (quota.day_limit, quota.total_limit, quota.in_flight_limit)
            shown = ("no limit" if limit is None else str(limit) for limit in limits)
            rows.add_row("", "", "", "", "", endpoint, f"{quota.qps:g}", *shown)
    Console().print(rows)


@accounts.command("set")
@click.argument("name")
@click.option("--base-url", help="Where the provider is; for a new account KAZHENG_BAIDU_BASE_URL.")
@click.option("--api-key", help="The account's API Key (client id); a new one asks for its secret too.")
@click.option("--secret-stdin", is_flag=True, help="Read the Secret Key from standard input, one line.")
@click.option("--default-qps", type=_QPS, help="Calls a second at each endpoint without a quota of its own.")
@click.option("--billing", type=click.Choice([*Billing]), help="Who pays: free ones are used first.")
@click.option("--endpoint", type=click.Choice(_ENDPOINTS), help="Endpoint that the limits below are for.")
@click.option("--qps", type=_QPS, help="Calls a second at the endpoint.")
@click.option("--day-limit", type=_Limit(_MANY), help="Calls a day at the endpoint, by Beijing time.")
@click.option("--total-limit", type=_Limit(_MANY), help="Calls in all at the endpoint, since the account was made.")
@click.option("--in-flight", type=_Limit(_FEW), help="Calls at a time, for a provider that counts those.")
@click.option("--pause/--resume", "paused", default=None, help="Stop or go on using the account.")
def set_one(name: str, *, secret_stdin: bool, **given: Any) -> None:
    """Make an account, or change one. What is not named stays.

    \b
    Examples:
      kazheng accounts set baidu --endpoint idcard --qps 10 --day-limit 50000
      kazheng accounts set second --api-key KEY        (asks for the secret)
      kazheng accounts set second --api-key KEY --secret-stdin < secret.txt
      kazheng accounts set baidu --pause

    The Secret Key is never an argument: everybody on the machine can read those, and shells remember them.
    """  # noqa: D301 - click wants the character itself
    settings = Settings.from_env()
    changes = _Changes(secret=_read_secret() if secret_stdin else None, **given)
    _refuse_nonsense(changes)
    with _database(settings) as engine:
        with transaction(engine) as connection:
            known = {account.name: account for account in list_accounts(connection)}.get(name)
        # Nobody is asked while a transaction is open.
        changes = _ask_for_secret(changes, known)
        with transaction(engine) as connection:
            if changes.touches_account or known is None:
                save_account(connection, name=name, provider=PROVIDER, **_account_values(changes, known, settings))
            if changes.endpoint is not None:
                set_quota(connection, name, changes.endpoint, _quota(changes, known, changes.endpoint, settings))
            if changes.paused is not None:
                set_paused(connection, name, changes.paused)
    click.echo(f"Account {name} is {'changed' if known else 'made'}.")


def _read_secret() -> str:
    secret = sys.stdin.readline().strip()
    if not secret:
        raise click.UsageError("--secret-stdin: standard input is empty.")
    return secret


def _refuse_nonsense(changes: _Changes) -> None:
    has_quota = changes.touches_quota
    if has_quota and changes.endpoint is None:
        raise click.UsageError(f"Limits need --endpoint: one of {', '.join(_ENDPOINTS)}.")
    if changes.endpoint is not None and not has_quota:
        raise click.UsageError("--endpoint needs --qps, --day-limit, --total-limit or --in-flight.")
    if changes.base_url is not None and not changes.base_url.startswith(("https://", "http://")):
        raise click.UsageError("--base-url begins with https:// (or http://).")
    if not (has_quota or changes.touches_account or changes.paused is not None):
        raise click.UsageError("Nothing to change. See `kazheng accounts set --help`.")


def _ask_for_secret(changes: _Changes, known: Account | None) -> _Changes:
    """The changes with a secret, where one is needed: for a new account, or with a new API key."""
    if known is None and changes.api_key is None:
        raise CommandError("There is no account of that name. To make one, give --api-key.")
    is_new_key = changes.api_key is not None and (known is None or known.api_key != changes.api_key)
    if changes.secret is not None or not is_new_key:
        return changes
    if not sys.stdin.isatty():
        raise click.UsageError("A new API key needs its secret: add --secret-stdin and write it to standard input.")
    secret = click.prompt("Secret Key", hide_input=True).strip()
    return _Changes(**{**vars(changes), "secret": secret})


def _account_values(changes: _Changes, known: Account | None, settings: Settings) -> dict[str, Any]:
    """What is saved: the changes, where they are silent the account as it was, for a new one the settings."""
    secret_key = settings.require_secret_key()
    secret = changes.secret
    if secret is None and known is not None:
        secret = known.open_secret(secret_key)
    old = (known.base_url, known.api_key, known.default_qps) if known else (settings.baidu_base_url, "", None)
    return {
        "base_url": changes.base_url or old[0],
        "api_key": changes.api_key or old[1],
        "default_qps": changes.default_qps or old[2] or settings.baidu_qps,
        "billing": Billing(changes.billing or (known.billing if known else settings.baidu_billing)),
        "secret": secret,
        "secret_key": secret_key,
    }


def _quota(changes: _Changes, known: Account | None, endpoint: str, settings: Settings) -> Quota:
    before = known.quota(endpoint) if known else Quota(settings.baidu_qps)
    default_qps = changes.default_qps if known is None or endpoint not in known.quotas else None
    return Quota(
        qps=changes.qps or default_qps or before.qps,
        day_limit=_limit(changes.day_limit, before.day_limit),
        total_limit=_limit(changes.total_limit, before.total_limit),
        in_flight_limit=_limit(changes.in_flight, before.in_flight_limit),
    )


def _limit(given: int | str | None, before: int | None) -> int | None:
    if given is None:
        return before
    return None if isinstance(given, str) else given


def _shown(account: Account) -> dict[str, Any]:
    return {
        "name": account.name,
        "provider": account.provider,
        "base_url": account.base_url,
        "api_key": account.api_key,
        "default_qps": account.default_qps,
        "billing": account.billing.value,
        "paused": account.paused,
        "quotas": {name: vars(quota) for name, quota in sorted(account.quotas.items())},
    }


@contextmanager
def _database(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(settings, application="kazheng-accounts", pool_size=1)
    try:
        yield engine
    finally:
        engine.dispose()
