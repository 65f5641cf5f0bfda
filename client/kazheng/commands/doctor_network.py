"""The doctor's checks of what answers over the network: the provider, the API, the workers.

Addresses are never shown where they could carry a secret; a secret goes in a body, not in a query.
"""

from http import HTTPStatus

import httpx
from celery import Celery
from kombu.exceptions import OperationalError

from kazheng.addresses import local_url
from kazheng.commands.findings import Finding, ok, unknown, wrong
from shared.database.accounts import Account, SecretUnreadableError
from shared.queues import QueueName
from shared.settings import Settings, SettingsError

_TIMEOUT_SECONDS = 5.0
_WORKER_SECONDS = 2.0


def check_account(account: Account, secret_key: str) -> Finding:
    """Whether the provider takes the account's keys."""
    what = f"account {account.name}"
    again = f"kazheng accounts set {account.name}"
    try:
        secret = account.open_secret(secret_key)
    except SecretUnreadableError:
        seen = "its secret was sealed with another KAZHENG_SECRET_KEY"
        return wrong(what, seen, f"Set KAZHENG_SECRET_KEY to what it was, or: {again} --secret-stdin")
    form = {"grant_type": "client_credentials", "client_id": account.api_key, "client_secret": secret}
    try:
        # As the workers do it: past any proxy the environment names.
        answer = httpx.post(f"{account.base_url}/oauth/2.0/token", data=form, timeout=_TIMEOUT_SECONDS, trust_env=False)
        body = answer.json()
    except httpx.InvalidURL:
        return wrong(what, "its address is none", f"{again} --base-url https://…")
    except httpx.HTTPError as error:
        remedy = f"Check the network from here to the provider, or the address: {again} --base-url https://…"
        return wrong(what, f"the provider does not answer ({type(error).__name__})", remedy)
    except ValueError:
        return wrong(what, f"something else answers there (HTTP {answer.status_code})", f"{again} --base-url https://…")
    if isinstance(body, dict) and body.get("access_token"):
        return ok(what, "the provider takes its keys")
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        return wrong(what, "the provider refuses its keys", f"{again} --api-key KEY --secret-stdin")
    return wrong(what, f"the provider gives no token (HTTP {answer.status_code})", "Try again; then ask the provider.")


def check_sandbox(account: Account) -> Finding:
    """Whether the sandbox an account points to runs."""
    try:
        answer = httpx.get(f"{account.base_url}/healthz", timeout=_TIMEOUT_SECONDS, trust_env=False)
        runs, seen = answer.is_success, f"answers HTTP {answer.status_code}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        runs, seen = False, f"does not answer ({type(error).__name__})"
    if runs:
        return ok("sandbox", "answers")
    return wrong("sandbox", seen, "Start it: `kazheng sandbox`; `kazheng up` starts it with everything else.")


def check_api(settings: Settings) -> Finding:
    """Whether the API answers and calls itself ready."""
    base_url = (settings.api_url or local_url(settings.api_host, settings.api_port)).rstrip("/")
    remedy = "Start it with `kazheng up`, or correct KAZHENG_API_URL (or KAZHENG_API_HOST and KAZHENG_API_PORT)."
    try:
        answer = httpx.get(f"{base_url}/readyz", timeout=_TIMEOUT_SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return wrong("API", f"does not answer ({type(error).__name__})", remedy)
    if answer.is_success:
        return ok("API", "ready")
    if answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        return wrong("API", "answers, but is not ready", "Mend what is wrong above; it gets ready by itself.")
    return wrong("API", f"something else answers there (HTTP {answer.status_code})", remedy)


def check_workers(settings: Settings) -> Finding:
    """Whether every queue is read by a worker that answers."""
    what = "workers"
    try:
        app = Celery("kazheng", broker=settings.require_redis_url(), set_as_current=False)
    except SettingsError:
        return unknown(what, "they are asked through Redis")
    app.conf.broker_transport_options = {"socket_timeout": _TIMEOUT_SECONDS, "socket_connect_timeout": _WORKER_SECONDS}
    app.conf.broker_connection_timeout = _WORKER_SECONDS
    try:
        found = app.control.inspect(timeout=_WORKER_SECONDS).active_queues() or {}
    except (OperationalError, OSError):
        return unknown(what, "they are asked through Redis, which does not answer")
    finally:
        app.close()
    read = {queue["name"] for queues in found.values() for queue in queues}
    missing = [name.value for name in QueueName if name not in read]
    remedy = "Start them with `kazheng up`, or as docker-compose.yml does."
    if not found:
        return wrong(what, "none answers", remedy)
    if missing:
        return wrong(what, f"nobody reads {', '.join(missing)}", remedy)
    return ok(what, f"{len(found)} answer, every queue is read")
