"""`kazheng keys`: API keys of clients."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import click
from cryptography.fernet import Fernet
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from kazheng.commands.failures import CommandError
from kazheng.stack.generated import read_generated, remember
from shared.clock import utc_now
from shared.database.clients import create_key, find_client, list_keys, revoke_key
from shared.database.engine import make_engine, transaction
from shared.settings import Settings

DEMO_CLIENT = "demo"
_KEY_SETTING = "KAZHENG_API_KEY"


@click.group("keys")
def keys() -> None:
    """Make, list and revoke API keys. A key is shown once; the database holds only its hash."""


@keys.command("create")
@click.option("--client", required=True, help="Application the key is for; made if it is new.")
@click.option("--name", default="default", show_default=True, help="What tells its keys apart.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def create(*, client: str, name: str, as_json: bool) -> None:
    """Make an API key and print it, this once."""
    client, name = client.strip(), name.strip()
    if not client or not name:
        raise click.UsageError("A client and a key need a name.")
    with _database() as engine, transaction(engine) as connection:
        key = create_key(connection, client=client, name=name)
    if as_json:
        click.echo(json.dumps({"client": client, "name": name, "key": key}, ensure_ascii=False))
        return
    click.echo(key)
    click.echo("Keep it now: it can't be shown again.", err=True)


@keys.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one key a line.")
def list_all(*, as_json: bool) -> None:
    """Show all keys, by how they begin."""
    with _database() as engine, transaction(engine) as connection:
        found = list_keys(connection)
    if as_json:
        for key in found:
            times = {"created_at": key.created_at, "revoked_at": key.revoked_at}
            shown = {name: moment.isoformat() if moment else None for name, moment in times.items()}
            row = {"id": key.id, "client": key.client, "name": key.name, "hint": key.hint, **shown}
            click.echo(json.dumps(row, ensure_ascii=False))
        return
    if not found:
        click.echo("There is no key yet. Make one: kazheng keys create --client NAME")
        return
    rows = Table("client", "name", "begins with", "state", "made", "key id", box=None, pad_edge=False)
    for key in found:
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "in use"
        rows.add_row(key.client, key.name, f"{key.hint}…", state, f"{key.created_at:%Y-%m-%d %H:%M}", key.id)
    Console().print(rows)


@keys.command("revoke")
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """Make a key useless, from now on and for good. KEY_ID is shown by `kazheng keys list`."""
    with _database() as engine, transaction(engine) as connection:
        revoked = revoke_key(connection, key_id, utc_now())
    if not revoked:
        raise CommandError(f"There is no key {key_id} in use. `kazheng keys list` shows them all.")
    click.echo(f"{key_id} is revoked.")


@keys.command("generate-secret")
def generate_secret() -> None:
    """Print a value for KAZHENG_SECRET_KEY. Nothing is stored: without it, stored account secrets can't be opened."""
    click.echo(Fernet.generate_key().decode())


def ensure_demo_key(settings: Settings) -> str:
    """An API key that works: the one in the settings, or the one made up before, or a new one for client `demo`.

    A new one is remembered in the home for later starts and for commands in other terminals. A key that the user
    set and that this database does not know keeps hiding it there, so that is said.
    """
    given = settings.api_key.get_secret_value() if settings.api_key else None
    remembered = read_generated(settings.home).get(_KEY_SETTING)
    engine = make_engine(settings, application="kazheng-keys", pool_size=1)
    try:
        with transaction(engine) as connection:
            for key in (given, remembered):
                if key and find_client(connection, key):
                    break
            else:
                key = create_key(connection, client=DEMO_CLIENT, name="made by kazheng up")
    finally:
        engine.dispose()
    if key not in (given, remembered):
        remember(settings.home, _KEY_SETTING, key)
    if given and given not in (key, remembered):
        warning = f"The {_KEY_SETTING} in the environment or in .env is no key of this database; another one is used."
        click.secho(warning, fg="yellow", err=True)
    return key


@contextmanager
def _database() -> Iterator[Engine]:
    engine = make_engine(Settings.from_env(), application="kazheng-keys", pool_size=1)
    try:
        yield engine
    finally:
        engine.dispose()
