"""Accounts at the provider: sealed secrets, quotas an endpoint, changes while running."""

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, select
from sqlalchemy.exc import IntegrityError

from shared.clock import utc_now
from shared.database.accounts import Account, SecretUnreadableError, list_accounts, save_account, set_paused, set_quota
from shared.database.engine import transaction
from shared.database.tables import accounts
from shared.domain.quota import Billing, Quota
from worker.accounts import AccountPool

KEY = Fernet.generate_key().decode()
SECRET = "secret-of-nobody"


def save(engine: Engine, name: str = "main", *, secret: str = SECRET, qps: float = 2) -> None:
    with transaction(engine) as connection:
        save_account(
            connection,
            name=name,
            provider="baidu",
            base_url="https://ocr.invalid/",
            api_key="key",
            secret=secret,
            default_qps=qps,
            billing=Billing.FREE,
            secret_key=KEY,
        )


def read(engine: Engine, name: str = "main") -> Account:
    with transaction(engine) as connection:
        return next(account for account in list_accounts(connection) if account.name == name)


def test_a_secret_is_sealed_in_the_database_and_opened_with_the_key(engine: Engine) -> None:
    save(engine)

    with transaction(engine) as connection:
        row = connection.execute(select(accounts)).one()

    assert SECRET not in str(row._mapping)
    assert read(engine).open_secret(KEY) == SECRET


def test_another_key_is_told_by_the_account_s_name_and_shows_nothing(engine: Engine) -> None:
    save(engine)

    with pytest.raises(
        SecretUnreadableError, match="account main was sealed with another KAZHENG_SECRET_KEY"
    ) as caught:
        read(engine).open_secret(Fernet.generate_key().decode())

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_saving_again_changes_the_credentials_and_keeps_quotas_and_pause(engine: Engine) -> None:
    save(engine)
    first = read(engine)
    with transaction(engine) as connection:
        set_quota(connection, "main", "idcard", Quota(10, 500))
        set_paused(connection, "main", True)

    save(engine, secret="another", qps=5)

    again = read(engine)
    assert (again.id, again.base_url) == (first.id, "https://ocr.invalid")
    assert again.open_secret(KEY) == "another"
    assert again.paused
    assert (again.quota("idcard"), again.quota("bankcard")) == (Quota(10, 500), Quota(5))


def test_a_quota_is_changed_and_belongs_to_one_endpoint(engine: Engine) -> None:
    save(engine)
    with transaction(engine) as connection:
        set_quota(connection, "main", "idcard", Quota(10, 500))
        set_quota(connection, "main", "idcard", Quota(20))

    assert read(engine).quotas == {"idcard": Quota(20)}


def test_what_is_said_of_an_unknown_account_is_refused(engine: Engine) -> None:
    with transaction(engine) as connection:
        assert not set_quota(connection, "nobody", "idcard", Quota(1))
        assert not set_paused(connection, "nobody", True)


@pytest.mark.parametrize(
    "quota",
    [
        Quota(0),  # would divide by zero
        Quota(-1),
        Quota(1, -1),
    ],
)
def test_a_quota_without_sense_is_refused(engine: Engine, quota: Quota) -> None:
    save(engine)

    with pytest.raises(IntegrityError), transaction(engine) as connection:
        set_quota(connection, "main", "idcard", quota)


def test_the_pool_gives_out_what_is_not_paused(engine: Engine) -> None:
    save(engine, "first")
    save(engine, "second")
    with transaction(engine) as connection:
        set_paused(connection, "first", True)
    pool = AccountPool(engine, KEY, clock=utc_now)

    usable = pool.usable("idcard")

    assert [account.name for account in usable] == ["second"]
    assert pool.credentials(usable[0]).secret == SECRET
