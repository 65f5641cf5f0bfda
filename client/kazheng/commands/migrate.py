"""`kazheng migrate`: the tables, and the account that jobs are recognized with."""

import click
from sqlalchemy import Connection

from kazheng.addresses import local_url
from shared.database.accounts import Account, list_accounts, save_account, set_paused
from shared.database.engine import make_engine, transaction
from shared.database.migrate import upgrade
from shared.domain.quota import Billing
from shared.settings import Settings

PROVIDER = "baidu"
BAIDU = "baidu"
SANDBOX = "sandbox"


@click.command("migrate")
def migrate() -> None:
    """Bring the database up to date and make the default account. Safe to run again at any time.

    With BAIDU_API_KEY and BAIDU_SECRET_KEY set, the account `baidu` is made of them and the sandbox is paused.
    Without, the account `sandbox` is made, unless another account is in use.
    """
    settings = Settings.from_env()
    settings.require_secret_key()  # before anything is changed
    engine = make_engine(settings, application="kazheng-migrate", pool_size=2)
    try:
        upgrade(engine)
        click.echo("The database is up to date.")
        with transaction(engine) as connection:
            said = make_default_account(connection, settings)
        for sentence in said:
            click.echo(sentence)
    finally:
        engine.dispose()


def make_default_account(connection: Connection, settings: Settings) -> list[str]:
    """Make the account the settings name; says what was done.

    Only the accounts `baidu` and `sandbox` are ever touched, others are the operator's. The sandbox never joins
    a real account: one job in two would then be read by the wrong one.
    """
    accounts = {account.name: account for account in list_accounts(connection)}
    if settings.baidu_api_key and settings.baidu_secret_key:
        return _use_baidu(
            connection, settings, accounts, settings.baidu_api_key, settings.baidu_secret_key.get_secret_value()
        )
    said = []
    if settings.baidu_api_key or settings.baidu_secret_key:
        missing = "BAIDU_SECRET_KEY" if settings.baidu_api_key else "BAIDU_API_KEY"
        said.append(f"No account is made of the Baidu keys: {missing} is not set.")
    in_use = [account.name for account in accounts.values() if account.name != SANDBOX and not account.paused]
    if in_use:
        return [*said, f"In use: {', '.join(in_use)}. To use the sandbox instead, pause them and migrate again."]
    return [*said, *_use_sandbox(connection, settings, accounts.get(SANDBOX))]


def _use_baidu(
    connection: Connection, settings: Settings, accounts: dict[str, Account], api_key: str, secret: str
) -> list[str]:
    known = accounts.get(BAIDU)
    # A pace set by `kazheng accounts set` outlives a restart, unless the settings name one.
    keeps_pace = known is not None and "baidu_qps" not in settings.model_fields_set
    qps = known.default_qps if known is not None and keeps_pace else settings.baidu_qps
    save_account(
        connection,
        name=BAIDU,
        provider=PROVIDER,
        base_url=settings.baidu_base_url,
        api_key=api_key,
        secret=secret,
        default_qps=qps,
        billing=settings.baidu_billing,
        secret_key=settings.require_secret_key(),
    )
    said = [f"Account {BAIDU}: {qps:g} calls a second at {settings.baidu_base_url}."]
    if known is not None and known.paused:
        said.append(f"It is paused. To use it: kazheng accounts set {BAIDU} --resume")
    if SANDBOX in accounts and not accounts[SANDBOX].paused:
        set_paused(connection, SANDBOX, paused=True)
        said.append("The sandbox account is paused: there is a real one now.")
    return said


def _use_sandbox(connection: Connection, settings: Settings, known: Account | None) -> list[str]:
    url = local_url(settings.sandbox_host, settings.sandbox_port)
    save_account(
        connection,
        name=SANDBOX,
        provider=PROVIDER,
        base_url=url,
        api_key=settings.sandbox_api_key,
        secret=settings.sandbox_secret_key.get_secret_value(),
        default_qps=settings.sandbox_qps,
        billing=Billing.FREE,
        secret_key=settings.require_secret_key(),
    )
    said = [f"Account {SANDBOX}: {settings.sandbox_qps:g} calls a second at {url}."]
    if known is not None and known.paused:
        set_paused(connection, SANDBOX, paused=False)
        said.append("It was paused and is in use again.")
    return said
