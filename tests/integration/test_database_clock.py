"""A machine whose clock is wrong goes by the database's."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from shared.clock import utc_now
from shared.database import clock as module
from shared.database.clock import DatabaseClock
from shared.database.engine import make_engine
from shared.settings import Settings

A_MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize("hours", [-30, 30])
def test_own_clock_does_not_matter(engine: Engine, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    monkeypatch.setattr(module, "utc_now", lambda: datetime.now(UTC) + timedelta(hours=hours))

    told = DatabaseClock(engine)()

    assert abs(told - utc_now()) < A_MINUTE
    assert told.tzinfo is UTC


def test_own_clock_jumps_without_effect(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = DatabaseClock(engine)
    before = clock()

    monkeypatch.setattr(module, "utc_now", lambda: datetime.now(UTC) + timedelta(days=1))

    assert timedelta() <= clock() - before < A_MINUTE


def test_without_database_the_own_clock_will_do() -> None:
    nowhere = make_engine(
        Settings(database_url="postgresql://nobody@127.0.0.1:1/nothing"), application="test", pool_size=1
    )

    assert abs(DatabaseClock(nowhere)() - utc_now()) < A_MINUTE
