"""`kazheng keys`, `accounts` and `migrate` on a real database."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from cryptography.fernet import Fernet
from sqlalchemy import Engine

from kazheng.commands.keys import ensure_demo_key
from kazheng.stack.generated import read_generated
from shared.database.accounts import Account, list_accounts
from shared.database.clients import find_client
from shared.domain.quota import Quota
from shared.settings import Settings
from tests.integration.command_runner import Kazheng, command_runner


@pytest.fixture
def kazheng(settings: Settings, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kazheng:
    """Runs the command with the settings of the test, in an empty folder."""
    return command_runner(settings, engine, tmp_path, monkeypatch)


def known_client(engine: Engine, key: str) -> str | None:
    with engine.connect() as connection:
        return find_client(connection, key)


def accounts_of(engine: Engine) -> dict[str, Account]:
    with engine.connect() as connection:
        return {account.name: account for account in list_accounts(connection)}


class TestKeys:
    def test_created_key_works_and_is_shown_this_once(self, kazheng: Kazheng, engine: Engine) -> None:
        created = kazheng("keys", "create", "--client", "商店", "--name", "till")
        listed = kazheng("keys", "list")

        key = created.stdout.strip()
        assert key.startswith("kz_")
        assert known_client(engine, key)
        assert "商店" in listed.output
        assert key[:8] in listed.output
        assert key not in listed.output

    def test_json_is_for_programs(self, kazheng: Kazheng, engine: Engine) -> None:
        created = json.loads(kazheng("keys", "create", "--client", "shop", "--json").stdout)
        listed = json.loads(kazheng("keys", "list", "--json").stdout)

        assert known_client(engine, created["key"])
        assert (listed["client"], listed["name"], listed["revoked_at"]) == ("shop", "default", None)

    def test_two_keys_of_one_client_are_the_same_client(self, kazheng: Kazheng, engine: Engine) -> None:
        first, second = (kazheng("keys", "create", "--client", "shop").stdout.strip() for _ in range(2))

        assert known_client(engine, first) == known_client(engine, second)

    def test_revoked_key_is_useless(self, kazheng: Kazheng, engine: Engine) -> None:
        key = kazheng("keys", "create", "--client", "shop").stdout.strip()
        key_id = json.loads(kazheng("keys", "list", "--json").stdout)["id"]

        revoked = kazheng("keys", "revoke", key_id)

        assert revoked.exit_code == 0
        assert known_client(engine, key) is None
        assert "revoked" in kazheng("keys", "list").output

    def test_unknown_key_can_not_be_revoked(self, kazheng: Kazheng) -> None:
        result = kazheng("keys", "revoke", "key_nothing")

        assert result.exit_code == 2
        assert "kazheng keys list" in result.output

    @pytest.mark.parametrize("client", ["", "  "])
    def test_client_needs_a_name(self, kazheng: Kazheng, client: str) -> None:
        assert kazheng("keys", "create", "--client", client).exit_code == 2


@pytest.mark.usefixtures("kazheng")
class TestDemoKey:
    def test_first_key_is_made_and_remembered(self, engine: Engine) -> None:
        key = ensure_demo_key(Settings.from_env())

        settings = Settings.from_env()
        assert known_client(engine, key)
        assert settings.api_key
        assert settings.api_key.get_secret_value() == key

    def test_key_that_works_is_kept(self) -> None:
        first = ensure_demo_key(Settings.from_env())
        second = ensure_demo_key(Settings.from_env())

        assert first == second

    def test_revoked_key_is_replaced(self, kazheng: Kazheng, engine: Engine) -> None:
        first = ensure_demo_key(Settings.from_env())
        kazheng("keys", "revoke", json.loads(kazheng("keys", "list", "--json").stdout)["id"])

        second = ensure_demo_key(Settings.from_env())

        assert second != first
        assert known_client(engine, second)

    def test_unknown_key_of_the_user_is_told_and_makes_no_key_each_time(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("KAZHENG_API_KEY", "kz_of_another_server")

        first = ensure_demo_key(Settings.from_env())
        second = ensure_demo_key(Settings.from_env())

        assert first == second
        told = capsys.readouterr().err
        assert "KAZHENG_API_KEY" in told
        assert "kz_of_another_server" not in told

    def test_key_in_the_settings_is_not_written_down(
        self, kazheng: Kazheng, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given = kazheng("keys", "create", "--client", "mine").stdout.strip()
        monkeypatch.setenv("KAZHENG_API_KEY", given)

        assert ensure_demo_key(Settings.from_env()) == given
        assert "KAZHENG_API_KEY" not in read_generated(settings.home)


class TestMigrate:
    def test_without_baidu_keys_the_sandbox_is_made(
        self, kazheng: Kazheng, engine: Engine, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        monkeypatch.setenv("KAZHENG_SANDBOX_PORT", "18081")

        result = kazheng("migrate")

        account = accounts_of(engine)["sandbox"]
        assert result.exit_code == 0
        assert "sandbox" in result.output
        assert (account.base_url, account.provider) == ("http://127.0.0.1:18081", "baidu")
        assert (account.api_key, account.default_qps, account.paused) == ("sandbox-api-key", 2.0, False)
        assert account.open_secret(settings.require_secret_key()) == "sandbox-secret-key"

    def test_running_it_again_changes_nothing(self, kazheng: Kazheng, engine: Engine) -> None:
        kazheng("migrate")
        before = accounts_of(engine)["sandbox"]

        result = kazheng("migrate")

        after = accounts_of(engine)["sandbox"]
        assert result.exit_code == 0
        assert (after.id, after.base_url, after.paused) == (before.id, before.base_url, before.paused)

    def test_baidu_keys_make_an_account_and_pause_the_sandbox(
        self, kazheng: Kazheng, engine: Engine, monkeypatch: pytest.MonkeyPatch, settings: Settings
    ) -> None:
        kazheng("migrate")
        monkeypatch.setenv("BAIDU_API_KEY", "key-1")
        monkeypatch.setenv("BAIDU_SECRET_KEY", "hidden-1")
        monkeypatch.setenv("KAZHENG_BAIDU_QPS", "10")

        result = kazheng("migrate")

        accounts = accounts_of(engine)
        assert accounts["sandbox"].paused
        assert (accounts["baidu"].api_key, accounts["baidu"].default_qps) == ("key-1", 10.0)
        assert accounts["baidu"].open_secret(settings.require_secret_key()) == "hidden-1"
        assert "hidden-1" not in result.output

    def test_sandbox_comes_back_only_when_no_real_account_is_in_use(
        self, kazheng: Kazheng, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kazheng("migrate")
        with monkeypatch.context() as keys:
            keys.setenv("BAIDU_API_KEY", "key-1")
            keys.setenv("BAIDU_SECRET_KEY", "hidden-1")
            kazheng("migrate")

        without_keys = kazheng("migrate")
        paused_meanwhile = accounts_of(engine)["sandbox"].paused
        kazheng("accounts", "set", "baidu", "--pause")
        kazheng("migrate")

        assert "In use: baidu" in without_keys.output
        assert paused_meanwhile
        assert not accounts_of(engine)["sandbox"].paused

    @pytest.mark.parametrize(("given", "missing"), [("BAIDU_API_KEY", "SECRET"), ("BAIDU_SECRET_KEY", "API")])
    def test_half_of_the_keys_makes_no_account(
        self, kazheng: Kazheng, engine: Engine, monkeypatch: pytest.MonkeyPatch, given: str, missing: str
    ) -> None:
        monkeypatch.setenv(given, "hidden-half")

        result = kazheng("migrate")

        assert set(accounts_of(engine)) == {"sandbox"}
        assert f"BAIDU_{missing}_KEY is not set" in result.output
        assert "hidden-half" not in result.output

    def test_pace_set_by_the_operator_outlives_a_restart(
        self, kazheng: Kazheng, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BAIDU_API_KEY", "key-1")
        monkeypatch.setenv("BAIDU_SECRET_KEY", "hidden-1")
        kazheng("migrate")
        kazheng("accounts", "set", "baidu", "--default-qps", "7")

        kazheng("migrate")

        assert accounts_of(engine)["baidu"].default_qps == 7.0

    def test_secret_key_is_asked_for_first(self, kazheng: Kazheng, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KAZHENG_SECRET_KEY")

        result = kazheng("migrate")

        assert result.exit_code == 2
        assert "KAZHENG_SECRET_KEY is not set" in result.output


class TestAccounts:
    @pytest.fixture
    def second(self, kazheng: Kazheng) -> Result:
        """An account named `second`."""
        words = ("--base-url", "https://ocr.test/", "--api-key", "key-2", "--default-qps", "5", "--secret-stdin")
        return kazheng("accounts", "set", "second", *words, input="hidden-2\n")

    def test_secret_comes_from_standard_input_and_is_never_shown(
        self, kazheng: Kazheng, engine: Engine, settings: Settings, second: Result
    ) -> None:
        listed = kazheng("accounts", "list").output + kazheng("accounts", "list", "--json").output

        account = accounts_of(engine)["second"]
        assert second.exit_code == 0
        assert account.open_secret(settings.require_secret_key()) == "hidden-2"
        assert account.base_url == "https://ocr.test"
        assert "https://ocr.test" in listed
        assert "hidden-2" not in listed + second.output

    @pytest.mark.usefixtures("second")
    def test_what_is_not_named_stays(self, kazheng: Kazheng, engine: Engine, settings: Settings) -> None:
        kazheng("accounts", "set", "second", "--default-qps", "8")

        account = accounts_of(engine)["second"]
        assert (account.default_qps, account.api_key, account.base_url) == (8.0, "key-2", "https://ocr.test")
        assert account.open_secret(settings.require_secret_key()) == "hidden-2"

    @pytest.mark.usefixtures("second")
    def test_quota_of_an_endpoint_is_changed_piece_by_piece(self, kazheng: Kazheng, engine: Engine) -> None:
        steps = [
            (("--day-limit", "50000"), Quota(qps=5.0, day_limit=50_000)),
            (("--qps", "10"), Quota(qps=10.0, day_limit=50_000)),
            (("--day-limit", "none"), Quota(qps=10.0, day_limit=None)),
            (("--day-limit", "0"), Quota(qps=10.0, day_limit=0)),
        ]
        seen = []

        for words, _ in steps:
            kazheng("accounts", "set", "second", "--endpoint", "idcard", *words)
            seen.append(accounts_of(engine)["second"].quota("idcard"))

        assert seen == [quota for _, quota in steps]
        assert accounts_of(engine)["second"].quota("bankcard") == Quota(qps=5.0)
        assert json.loads(kazheng("accounts", "list", "--json").stdout)["quotas"] == {
            "idcard": {"qps": 10.0, "day_limit": 0, "total_limit": None, "in_flight_limit": None}
        }

    @pytest.mark.usefixtures("second")
    def test_account_is_paused_and_resumed(self, kazheng: Kazheng, engine: Engine) -> None:
        kazheng("accounts", "set", "second", "--pause")
        paused = accounts_of(engine)["second"].paused
        kazheng("accounts", "set", "second", "--resume")

        assert paused
        assert not accounts_of(engine)["second"].paused

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (("second",), "Nothing to change"),
            (("second", "--qps", "3"), "--endpoint"),  # of which endpoint?
            (("second", "--endpoint", "idcard"), "--qps"),
            (("second", "--endpoint", "idcard", "--qps", "0"), "--qps"),
            (("second", "--endpoint", "idcard", "--day-limit", "many"), "--day-limit"),
            (("second", "--endpoint", "idcard", "--day-limit", "-1"), "--day-limit"),
            (("second", "--endpoint", "nowhere", "--qps", "1"), "nowhere"),
            (("second", "--base-url", "ocr.test"), "https://"),
            (("second", "--api-key", "key-3"), "--secret-stdin"),  # a new key has a new secret
            (("second", "--secret-stdin"), "empty"),
            (("third", "--pause"), "--api-key"),  # there is no such account
        ],
    )
    @pytest.mark.usefixtures("second")
    def test_nonsense_changes_nothing(
        self, kazheng: Kazheng, engine: Engine, words: tuple[str, ...], told: str
    ) -> None:
        before = accounts_of(engine)

        result = kazheng("accounts", "set", *words, input="")

        assert result.exit_code == 2
        assert told in result.output
        assert accounts_of(engine) == before

    @pytest.mark.usefixtures("second")
    def test_secret_sealed_with_another_key_is_explained(
        self, kazheng: Kazheng, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KAZHENG_SECRET_KEY", Fernet.generate_key().decode())

        refused = kazheng("accounts", "set", "second", "--default-qps", "8")
        mended = kazheng("accounts", "set", "second", "--secret-stdin", input="hidden-3\n")

        assert refused.exit_code == 2
        assert "sealed with another KAZHENG_SECRET_KEY" in refused.output
        assert mended.exit_code == 0
