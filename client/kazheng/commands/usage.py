"""`kazheng usage`: what all clients used, and what it cost."""

import json
from datetime import UTC, date, datetime, timedelta

import click
from rich.console import Console
from rich.table import Table

from shared.database.engine import make_engine, transaction
from shared.database.usage import DIMENSIONS, Usage, read_usage, total_of
from shared.domain.prices import make_prices
from shared.domain.quota import quota_day
from shared.settings import Settings

_COUNTS = ("calls", "succeeded", "failed", "unfinished", "billed", "saved")
_DAY = click.DateTime(["%Y-%m-%d"])


class _Dimensions(click.ParamType[tuple[str, ...]]):
    """Names of dimensions, comma separated."""

    name = ",".join(DIMENSIONS)

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        names = value if isinstance(value, tuple) else tuple(dict.fromkeys(filter(None, value.split(","))))
        for name in names:
            if name not in DIMENSIONS:
                self.fail(f"{name} is none of {', '.join(DIMENSIONS)}", param, ctx)
        return names


@click.command("usage")
@click.option("--from", "first", type=_DAY, help="First day, YYYY-MM-DD; by default 29 days before the last.")
@click.option("--to", "last", type=_DAY, help="Last day; by default today, by the provider's zone.")
@click.option("--by", type=_Dimensions(), default="day", show_default=True, help="What to tell apart.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one group a line, the total last.")
def usage(*, first: datetime | None, last: datetime | None, by: tuple[str, ...], as_json: bool) -> None:
    """Show how many calls were made, and what they cost by the price tiers of KAZHENG_PRICES.

    \b
    billed      calls the provider charges: those that succeeded
    unfinished  under way, or their worker died: they may be billed
    saved       jobs that needed no call
    cost        of accounts paid by the call (kazheng accounts set NAME --billing postpaid)

    \b
    Examples:
      kazheng usage
      kazheng usage --by client,document_type --from 2026-11-01 --to 2026-11-30
      kazheng usage --by day,account --json
    """  # noqa: D301 - click wants the character itself
    settings = Settings.from_env()
    until = last.date() if last else quota_day(datetime.now(UTC), settings.quota_zone)
    since = first.date() if first else until - timedelta(days=29)
    if since > until:
        raise click.UsageError("--from is after --to.")
    usages = _read(settings, since, until, by)
    total = total_of(usages)
    if as_json:
        for one in [*usages, total]:
            counts = {name: getattr(one, name) for name in _COUNTS} | {"cost": f"{one.cost:.4f}", "currency": "CNY"}
            names = {name: _text(one, name) for name in by} if one is not total else {"total": True}
            click.echo(json.dumps(names | counts, ensure_ascii=False))
        return
    rows = Table(box=None, pad_edge=False, header_style="bold", show_footer=True)
    for number, name in enumerate(by):
        rows.add_column(name.replace("_", " "), footer="total" if number == 0 else "")
    for name in _COUNTS:
        rows.add_column(name, justify="right", footer=str(getattr(total, name)))
    rows.add_column("cost, CNY", justify="right", footer=f"{total.cost:.2f}")
    for one in usages:
        cells = [_text(one, name) or "none" for name in by]
        rows.add_row(*cells, *(str(getattr(one, name)) for name in _COUNTS), f"{one.cost:.2f}")
    Console().print(rows if usages else f"No call was made from {since} to {until}.")


def _read(settings: Settings, since: date, until: date, by: tuple[str, ...]) -> list[Usage]:
    prices = make_prices(settings.prices)
    engine = make_engine(settings, application="kazheng-usage", pool_size=1)
    try:
        with transaction(engine) as connection:
            return read_usage(connection, since, until, by=by, prices=prices, zone=settings.quota_zone)
    finally:
        engine.dispose()


def _text(one: Usage, name: str) -> str | None:
    value = getattr(one, name)
    return None if value is None else str(value)
