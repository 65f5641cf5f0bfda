"""API keys: shown once, kept as a hash, revoked for good."""

from sqlalchemy import Engine, select

from shared.clock import utc_now
from shared.database.clients import create_key, find_client, list_keys, revoke_key
from shared.database.engine import transaction
from shared.database.tables import api_keys


def make_key(engine: Engine, client: str = "forms", name: str = "laptop") -> str:
    with transaction(engine) as connection:
        return create_key(connection, client=client, name=name)


def test_a_key_finds_its_client_and_an_unknown_one_nobody(engine: Engine) -> None:
    first, second, stranger = make_key(engine), make_key(engine), make_key(engine, "scans")

    with transaction(engine) as connection:
        found = [find_client(connection, key) for key in (first, second, stranger, "kz_unknown", "")]

    assert found[0] is not None
    assert found[0] == found[1]
    assert found[2] not in (None, found[0])
    assert found[3:] == [None, None]


def test_the_key_itself_is_not_kept(engine: Engine) -> None:
    key = make_key(engine)

    with transaction(engine) as connection:
        row = connection.execute(select(api_keys)).one()
        listed = list_keys(connection)

    assert key.startswith(row.hint)
    assert key not in str(row._mapping)
    assert key.encode() not in row.sha256
    assert [(entry.client, entry.name, entry.hint, entry.revoked_at) for entry in listed] == [
        ("forms", "laptop", key[:8], None)
    ]


def test_a_revoked_key_opens_nothing_and_the_others_still_do(engine: Engine) -> None:
    revoked, other = make_key(engine), make_key(engine)
    with transaction(engine) as connection:
        key_id = list_keys(connection)[0].id
        done = [revoke_key(connection, key_id, utc_now()) for _ in range(2)]

    with transaction(engine) as connection:
        assert find_client(connection, revoked) is None
        assert find_client(connection, other) is not None
        assert not revoke_key(connection, "key_unknown", utc_now())
    assert done == [True, False]
