"""`kazheng doctor`: what is configured, what is reachable, what is wrong, and what to do.

Each check looks at one thing and never raises; what hangs on something that is already wrong is `unknown`, so that
the first `wrong` in the list is where to begin.
"""

import json
import sys
import time

import click
from cryptography.fernet import Fernet
from redis import Redis
from redis.exceptions import RedisError, ResponseError
from rich.console import Console
from sqlalchemy import Engine
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from kazheng.commands.doctor_network import check_account, check_api, check_sandbox, check_workers
from kazheng.commands.findings import Finding, State, ok, table_of, unknown, wrong
from kazheng.commands.migrate import SANDBOX
from shared.database.accounts import Account, list_accounts
from shared.database.clients import find_client
from shared.database.clock import DatabaseClock
from shared.database.engine import make_engine, transaction
from shared.database.health import find_troubles
from shared.database.migrate import is_at_head
from shared.database.stops import list_stops
from shared.domain.errors import KazhengError
from shared.domain.quota import StopReason
from shared.limits.connection import connect
from shared.settings import Settings, SettingsError
from shared.storage import make_store

# Leases and tokens are judged by each machine's own clock; from here on it is time to look at NTP.
_CLOCK_DIFFERENCE_SECONDS = 1.0

_REMEDIES = {
    StopReason.DAILY_QUOTA: "Jobs wait and go on when the day turns. Sooner: buy calls, then raise the limit with"
    " kazheng accounts set {name} --endpoint … --day-limit …; or add another account.",
    StopReason.TOTAL_QUOTA: "Buy calls in the provider's console; then kazheng accounts set {name} --resume.",
    StopReason.MISCONFIGURED: "Mend the keys, or tick the interface in the provider's console; then"
    " kazheng accounts set {name} --resume. One call a minute tries by itself.",
    StopReason.UNCLAIMED: "Claim the free quota in the provider's console; then kazheng accounts set {name} --resume.",
    StopReason.OUTAGE: "See whether this machine reaches the provider (its network, the provider's status page). One"
    " call every few seconds tries by itself.",
}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one finding a line.")
def doctor(*, as_json: bool) -> None:
    """Find out what is wrong, and what to do; exit code 1 if anything is wrong.

    It only looks, but for a few bytes that it puts into the image store and erases again.
    """
    with Console(stderr=True).status("Looking"):
        findings = examine()
    if as_json:
        for finding in findings:
            click.echo(json.dumps(finding.to_json(), ensure_ascii=False))
    else:
        Console().print(table_of(findings))
    sys.exit(1 if any(finding.state is State.WRONG for finding in findings) else 0)


def examine() -> list[Finding]:
    """Everything there is to look at, in the order in which to mend it."""
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        return [wrong("settings", str(error), "Mend these variables, in the environment or in .env.")]
    findings = [ok("settings", f"readable; home {settings.home.resolve()}"), _check_secret_key(settings)]
    database, accounts = _check_database(settings)
    findings += database
    findings += _check_redis(settings)
    findings.append(_check_images(settings))
    findings += _check_accounts(settings, accounts)
    findings += _check_stops(settings, accounts)
    findings += _check_lines(settings, accounts)
    findings.append(check_api(settings))
    findings.append(check_workers(settings))
    return findings


def _check_secret_key(settings: Settings) -> Finding:
    what = "secret key"
    if settings.secret_key is None:
        return wrong(what, "not set", "Set KAZHENG_SECRET_KEY; `kazheng keys generate-secret` makes one.")
    if _seal(settings) is None:
        remedy = "Set KAZHENG_SECRET_KEY to the value it had, or make one with `kazheng keys generate-secret`."
        return wrong(what, "is no Fernet key", remedy)
    return ok(what, "set")


def _seal(settings: Settings) -> str | None:
    """The secret key, if it is set and can seal."""
    if settings.secret_key is None:
        return None
    key = settings.secret_key.get_secret_value()
    try:
        Fernet(key)
    except ValueError:
        return None
    return key


def _check_database(settings: Settings) -> tuple[list[Finding], list[Account] | None]:
    """The findings, and the accounts as far as they can be read."""
    what = "database"
    try:
        engine = make_engine(settings, application="kazheng-doctor", pool_size=1)
    except SettingsError as error:
        return [wrong(what, str(error), "Set KAZHENG_DATABASE_URL, or run `kazheng up` in this folder.")], None
    except ArgumentError:
        return [wrong(what, "KAZHENG_DATABASE_URL is no address", "It is postgresql://user:password@host/name.")], None
    try:
        return _look_into(engine, settings)
    except KazhengError:
        remedy = "Start it, or correct KAZHENG_DATABASE_URL. An embedded one runs while `kazheng up` does."
        return [wrong(what, "does not answer", remedy)], None
    except SQLAlchemyError as error:
        remedy = "Check the rights of the database's user, and that its tables are Kazheng's."
        return [wrong(what, f"answers with an error ({type(error).__name__})", remedy)], None
    finally:
        engine.dispose()


def _look_into(engine: Engine, settings: Settings) -> tuple[list[Finding], list[Account] | None]:
    with transaction(engine) as connection:
        if not is_at_head(connection):
            seen = "answers, but is not up to date"
            return [wrong("database", seen, "Run `kazheng migrate`.")], None
        findings = [ok("database", "answers, up to date")]
        if settings.api_key is not None:
            known = find_client(connection, settings.api_key.get_secret_value()) is not None
            remedy = "Make one: kazheng keys create --client NAME; then set KAZHENG_API_KEY."
            seen = "unknown to this database, or revoked"
            findings.append(ok("API key", "valid") if known else wrong("API key", seen, remedy))
        return findings, list_accounts(connection)


def _check_redis(settings: Settings) -> list[Finding]:
    what = "Redis"
    try:
        redis = connect(settings)
    except SettingsError as error:
        return [wrong(what, str(error), "Set KAZHENG_REDIS_URL, or run `kazheng up` in this folder.")]
    except ValueError:
        return [wrong(what, "KAZHENG_REDIS_URL is no address", "It is redis://:password@host:6379/0.")]
    with redis:
        try:
            redis.ping()
            return [ok(what, "answers"), *_check_redis_settings(redis), _check_clock(redis)]
        except (RedisError, OSError) as error:
            remedy = "Start it, or correct KAZHENG_REDIS_URL. An embedded one runs while `kazheng up` does."
            return [wrong(what, f"does not answer ({type(error).__name__})", remedy)]


def _check_redis_settings(redis: Redis) -> list[Finding]:
    try:
        found = {name: redis.config_get(name).get(name) for name in ("maxmemory-policy", "appendonly")}
    except ResponseError:
        return [unknown("Redis settings", "the server does not show them; it needs noeviction and appendonly yes")]
    policy, append_only = found["maxmemory-policy"], found["appendonly"]
    remedy = "Set maxmemory-policy noeviction: any other policy throws waiting messages away when memory is full."
    lost = "Set appendonly yes: without it, a restart loses all messages, and jobs wait until they are swept up."
    return [
        ok("Redis memory policy", "noeviction")
        if policy == "noeviction"
        else wrong("Redis memory policy", str(policy), remedy),
        ok("Redis persistence", "appendonly yes")
        if append_only == "yes"
        else wrong("Redis persistence", f"appendonly {append_only}", lost),
    ]


def _check_clock(redis: Redis) -> Finding:
    before = time.time()
    seconds, microseconds = redis.time()
    after = time.time()
    # The server looked at its clock somewhere in between.
    difference = abs(seconds + microseconds / 1e6 - (before + after) / 2)
    seen = f"{difference:.3f} s beside Redis"
    if difference - (after - before) / 2 > _CLOCK_DIFFERENCE_SECONDS:
        return wrong("clock", seen, "Keep the clocks of all machines together (NTP): jobs could be taken twice.")
    return ok("clock", seen)


def _check_images(settings: Settings) -> Finding:
    what = "image store"
    try:
        make_store(settings).check()
    except KazhengError as error:
        remedy = "Make room and make it writable for this user, or correct KAZHENG_IMAGE_STORE_URL."
        return wrong(what, error.detail, remedy)
    except Exception as error:  # noqa: BLE001 - obstore's own errors for an address that makes no sense
        return wrong(what, f"unusable ({type(error).__name__})", "Correct KAZHENG_IMAGE_STORE_URL: file:///… or s3://…")
    return ok(what, "writable")


def _check_stops(settings: Settings, accounts: list[Account] | None) -> list[Finding]:
    """Endpoints that are not called, and what to do about each."""
    if accounts is None:
        return []
    engine = make_engine(settings, application="kazheng-doctor", pool_size=1)
    try:
        with transaction(engine) as connection:
            stops = list_stops(connection)
    except KazhengError:
        return []
    finally:
        engine.dispose()
    names = {account.id: account.name for account in accounts if not account.paused}
    return [
        wrong(
            f"calls of {names[stop.account_id]}/{stop.endpoint or 'all endpoints'}",
            f"stopped ({stop.reason}): {stop.detail}",
            _REMEDIES[stop.reason].format(name=names[stop.account_id]),
        )
        for stop in stops
        if stop.account_id in names
    ]


def _check_lines(settings: Settings, accounts: list[Account] | None) -> list[Finding]:
    """What stands still."""
    if accounts is None:
        return [unknown("lines", "they are in the database")]
    engine = make_engine(settings, application="kazheng-doctor", pool_size=1)
    try:
        now = DatabaseClock(engine)()
        with transaction(engine) as connection:
            troubles = find_troubles(connection, now)
    except KazhengError:
        return [unknown("lines", "they are in the database")]
    finally:
        engine.dispose()
    found = [wrong(trouble.what, trouble.seen, trouble.remedy) for trouble in troubles]
    return found or [ok("lines", "they move; nothing is stuck")]


def _check_accounts(settings: Settings, accounts: list[Account] | None) -> list[Finding]:
    if accounts is None:
        return [unknown("accounts", "they are in the database")]
    in_use = [account for account in accounts if not account.paused]
    if not in_use:
        paused = f"; paused: {', '.join(account.name for account in accounts)}" if accounts else ""
        remedy = "Run `kazheng migrate` to make the default one, or `kazheng accounts set NAME --resume`."
        return [wrong("accounts", f"none is in use{paused}", remedy)]
    findings = [check_sandbox(account) for account in in_use if account.name == SANDBOX]
    seal = _seal(settings)
    for account in in_use:
        if seal is None:
            findings.append(unknown(f"account {account.name}", "its secret needs the secret key"))
        else:
            findings.append(check_account(account, seal))
    return findings
