"""`kazheng quotas`: what each account may still do, and who waits for it."""

import json
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click
from redis import Redis
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine

from shared.database.accounts import list_accounts
from shared.database.engine import make_engine, transaction
from shared.database.lines import count_queued
from shared.database.stops import list_stops
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.job import Lane
from shared.limits.connection import connect
from shared.limits.outlook import QuotaState, read_quotas
from shared.settings import Settings

_ENDPOINTS = sorted({document.endpoint for document in DOCUMENT_TYPES.values()})
_COLORS = {"open": "green", "slowed": "yellow", "paused": "yellow"}
_COLUMNS = (
    ("account", "left"),
    ("endpoint", "left"),
    ("state", "left"),
    ("calls/s", "right"),
    ("of pace", "right"),
    ("limit", "right"),
    ("in flight", "right"),
    ("today", "right"),
    ("left today", "right"),
    ("in all", "right"),
    ("waiting", "right"),
)


@dataclass(frozen=True)
class _Look:
    """What was seen at one moment."""

    states: list[QuotaState]
    queued: dict[tuple[str, Lane], int]

    def waiting(self, endpoint: str) -> int:
        """Queued jobs of an endpoint, all lanes."""
        return sum(self.queued.get((endpoint, lane), 0) for lane in Lane)


@click.command("quotas")
@click.option("--watch", is_flag=True, help="Go on showing them, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True, help="Seconds, --watch.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one endpoint of one account a line.")
def quotas(*, watch: bool, interval: float, as_json: bool) -> None:
    """Show what each account may still do at each endpoint, and how many jobs wait for it.

    \b
    calls/s    calls of the last whole second
    of pace    what is made at most: the limit, less the margin for the network, times what refusals taught
    waiting    queued jobs, parked ones included; they are shared by all accounts of the endpoint

    \b
    Examples:
      kazheng quotas
      kazheng quotas --watch
      kazheng quotas --json | jq 'select(.state != "open")'
    """  # noqa: D301 - click wants the character itself
    settings = Settings.from_env()
    engine = make_engine(settings, application="kazheng-quotas", pool_size=1)
    redis = connect(settings)
    try:
        if as_json:
            look = _look(engine, redis, settings)
            for state in look.states:
                click.echo(json.dumps(_to_json(state, look), ensure_ascii=False))
        elif watch:
            with Live(_shown(_look(engine, redis, settings)), auto_refresh=False) as live:
                while True:
                    time.sleep(interval)
                    live.update(_shown(_look(engine, redis, settings)), refresh=True)
        else:
            Console().print(_shown(_look(engine, redis, settings)))
    except KeyboardInterrupt:
        pass
    finally:
        redis.close()
        engine.dispose()


def _look(engine: Engine, redis: Redis, settings: Settings) -> _Look:
    with transaction(engine) as connection:
        accounts, stops, queued = list_accounts(connection), list_stops(connection), count_queued(connection)
    margin, zone = settings.permit_jitter_seconds, settings.quota_zone
    return _Look(read_quotas(redis, accounts, stops, _ENDPOINTS, initial_margin=margin, zone=zone), queued)


def _shown(look: _Look) -> Group:
    rows = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in _COLUMNS:
        rows.add_column(title, justify="right" if justify == "right" else "left", no_wrap=True)
    for state in look.states:
        rows.add_row(
            state.account,
            state.endpoint,
            Text(state.state, _COLORS.get(state.state, "bold red")),
            str(state.calls_last_second),
            f"{state.pace:.2f}",
            f"{state.qps:g}",
            _of(state.in_flight, state.in_flight_limit),
            _of(state.used_today or 0, state.day_limit),
            "no limit" if state.left_today is None else str(state.left_today),
            _of(state.used_in_all, state.total_limit),
            str(look.waiting(state.endpoint)),
        )
    if not look.states:
        return Group(Text("There is no account yet. `kazheng migrate` makes the default one."))
    turn = min(state.day_ends_at for state in look.states)
    notes = [Text(f"The day turns at {_local(turn)}.", "dim")]
    for state in look.states:
        if state.stop is not None and state.state != "paused":
            until = "" if state.stop.until is None else f", until {_local(state.stop.until)}"
            notes.append(Text(f"{state.account}/{state.endpoint}: {state.stop.detail}{until}", "red"))
    return Group(rows, *notes)


def _of(used: int | None, limit: int | None) -> str:
    if used is None:
        return "" if limit is None else f"0 of {limit}"
    return str(used) if limit is None else f"{used} of {limit}"


def _local(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M %Z")


def _to_json(state: QuotaState, look: _Look) -> dict[str, Any]:
    return {
        "account": state.account,
        "endpoint": state.endpoint,
        "billing": state.billing.value,
        "state": state.state,
        "qps_limit": state.qps,
        "pace": round(state.pace, 3),
        "learnt_share": round(state.learnt_share, 4),
        "calls_last_second": state.calls_last_second,
        "in_flight": state.in_flight,
        "in_flight_limit": state.in_flight_limit,
        "used_today": state.used_today or 0,
        "day_limit": state.day_limit,
        "left_today": state.left_today,
        "used_in_all": state.used_in_all,
        "total_limit": state.total_limit,
        "day_ends_at": state.day_ends_at.isoformat(),
        "waiting": look.waiting(state.endpoint),
        "detail": None if state.stop is None else state.stop.detail,
    }
