"""An idempotency key belongs to one request until that request is over or forgotten."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine

from shared.clock import utc_now
from shared.database.engine import transaction
from shared.database.idempotency import KeyUse, bind_key, drop_key, purge_keys, take_key
from tests.factories import make_client

KEY = "order-1"
LOCK, LIFE = timedelta(seconds=60), timedelta(hours=24)


class Door:
    """Requests of one client with one key."""

    def __init__(self, engine: Engine, name: str = "tests") -> None:
        self.engine = engine
        self.client_id, _ = make_client(engine, name)
        self.now: datetime = utc_now()

    def take(self, request: str = "first") -> KeyUse | None:
        with transaction(self.engine) as connection:
            return take_key(
                connection,
                self.client_id,
                KEY,
                request_sha256=request,
                now=self.now,
                locked_until=self.now + LOCK,
                expires_at=self.now + LIFE,
            )

    def bind(self, job_id: str, request: str = "first") -> bool:
        with transaction(self.engine) as connection:
            return bind_key(connection, self.client_id, KEY, job_id, request_sha256=request)

    def drop(self) -> None:
        with transaction(self.engine) as connection:
            drop_key(connection, self.client_id, KEY)

    def purge(self) -> int:
        with transaction(self.engine) as connection:
            return purge_keys(connection, self.now)


@pytest.fixture
def door(engine: Engine) -> Door:
    return Door(engine)


def test_a_new_key_is_ours(door: Door) -> None:
    assert door.take() is None


def test_a_request_still_being_served_holds_its_key(door: Door) -> None:
    door.take()

    assert door.take() == KeyUse("first", job_id=None)


def test_a_key_says_what_it_was_used_for(door: Door) -> None:
    door.take()
    door.bind("job_1")

    assert door.take("another") == KeyUse("first", job_id="job_1")


def test_a_request_that_never_ended_loses_its_key(door: Door) -> None:
    door.take()
    door.now += LOCK + timedelta(seconds=1)

    assert door.take("second") is None
    assert door.take() == KeyUse("second", job_id=None)


def test_a_key_with_a_job_outlives_its_lock(door: Door) -> None:
    door.take()
    door.bind("job_1")
    door.now += LOCK + timedelta(seconds=1)

    assert door.take() == KeyUse("first", job_id="job_1")


def test_a_key_past_its_time_may_be_used_anew(door: Door) -> None:
    door.take()
    door.bind("job_1")
    door.now += LIFE + timedelta(seconds=1)

    assert door.take("another") is None
    assert door.bind("job_2", "another")


def test_of_two_requests_that_both_think_the_key_theirs_one_makes_the_job(door: Door) -> None:
    door.take()
    door.now += LOCK + timedelta(seconds=1)
    door.take()

    outcomes = [door.bind("job_2"), door.bind("job_1")]

    assert outcomes == [True, False]
    assert door.take() == KeyUse("first", job_id="job_2")


def test_a_key_given_back_is_free_unless_it_has_a_job(door: Door) -> None:
    door.take()
    door.drop()
    free_again = door.take("second")
    door.bind("job_1", "second")
    door.drop()

    assert free_again is None
    assert door.take() == KeyUse("second", job_id="job_1")


def test_another_client_s_key_of_the_same_name_is_another_key(door: Door, engine: Engine) -> None:
    door.take()

    assert Door(engine, "strangers").take() is None


def test_only_keys_past_their_time_are_forgotten(door: Door) -> None:
    door.take()
    door.now += LIFE - timedelta(seconds=1)
    too_early = door.purge()
    door.now += timedelta(seconds=2)

    assert (too_early, door.purge(), door.purge()) == (0, 1, 0)


def test_a_request_that_was_overtaken_by_another_does_not_get_its_key(door: Door) -> None:
    door.take("first")
    door.now += LOCK + timedelta(seconds=1)
    door.take("second")

    first, second = door.bind("job_1", "first"), door.bind("job_2", "second")

    assert (first, second) == (False, True)
