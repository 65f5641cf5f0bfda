"""`kazheng jobs`: what an operator may do to waiting jobs by hand."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from sqlalchemy import Connection

from shared.database.clock import DatabaseClock
from shared.database.engine import make_engine, transaction
from shared.database.operating import Selection, fail_jobs, requeue_jobs, select_waiting
from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.job import WaitingOn
from shared.settings import Settings

_SHOWN = 10


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which jobs; all must fit."""
    for option in reversed(
        (
            click.argument("job_ids", nargs=-1, metavar="[JOB_ID]..."),
            click.option("--client", help="Of this client."),
            click.option("--type", "document_type", type=click.Choice(list(DOCUMENT_TYPES)), help="Of this type."),
            click.option("--waiting-on", type=click.Choice([reason.value for reason in WaitingOn]), help="What for."),
            click.option("--older-than", type=click.IntRange(0), metavar="MINUTES", help="Accepted earlier than this."),
            click.option("--all", "everything", is_flag=True, help="All that wait."),
            click.option("--yes", is_flag=True, help="Do not ask."),
        )
    ):
        command = option(command)
    return command


@click.group("jobs")
def jobs() -> None:
    """Push or end waiting jobs by hand. Jobs that run or have ended are left alone."""


@jobs.command("requeue")
@_filters
def requeue(**given: Any) -> None:
    """Make waiting jobs ready at once, whatever they wait for. Quotas are kept as ever.

    \b
    Examples:
      kazheng jobs requeue --waiting-on retry_backoff
      kazheng jobs requeue job_01j…
    """  # noqa: D301 - click wants the character itself
    _act("requeued", requeue_jobs, **given)


@jobs.command("fail")
@_filters
def fail(**given: Any) -> None:
    """End waiting jobs as failed (`failed_by_operator`); their clients may send the images again.

    \b
    Examples:
      kazheng jobs fail --client shop --older-than 1440
      kazheng jobs fail job_01j…
    """  # noqa: D301 - click wants the character itself
    _act("failed", fail_jobs, **given)


def _act(
    done: str,
    act: Callable[[Connection, Selection, datetime], int],
    *,
    job_ids: tuple[str, ...],
    client: str | None,
    document_type: str | None,
    waiting_on: str | None,
    older_than: int | None,
    everything: bool,
    yes: bool,
) -> None:
    if not (job_ids or client or document_type or waiting_on or older_than is not None or everything):
        raise click.UsageError("Say which jobs: ids, filters, or --all.")
    wanted = Selection(
        ids=job_ids,
        client=client,
        document_type=document_type,
        waiting_on=WaitingOn(waiting_on) if waiting_on else None,
        before=None if older_than is None else datetime.now(UTC) - timedelta(minutes=older_than),
    )
    engine = make_engine(Settings.from_env(), application="kazheng-jobs", pool_size=1)
    try:
        with transaction(engine) as connection:
            found = select_waiting(connection, wanted, most=_SHOWN + 1)
        if not found:
            click.echo("No waiting job fits.")
            return
        for job_id in found[:_SHOWN]:
            click.echo(job_id)
        if len(found) > _SHOWN:
            click.echo("… and more")
        if not yes:
            click.confirm(f"Shall these be {done}?", abort=True)
        now = DatabaseClock(engine)()
        with transaction(engine) as connection:
            count = act(connection, wanted, now)
    finally:
        engine.dispose()
    click.echo(f"{count} {done}.")
