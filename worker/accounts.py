"""The accounts a call may be made with, read anew every few seconds: a change takes effect while running."""

import threading
import time

from sqlalchemy import Engine

from shared.database.accounts import Account, list_accounts
from shared.database.engine import transaction
from worker.providers.protocol import Credentials

_FRESH_SECONDS = 3.0


class AccountPool:
    """Knows the accounts. Safe to share between threads."""

    def __init__(self, engine: Engine, secret_key: str) -> None:
        """Take the database and the key that opens account secrets."""
        self._engine = engine
        self._secret_key = secret_key
        self._lock = threading.Lock()
        self._accounts: list[Account] = []
        self._read_at = float("-inf")

    def usable(self) -> list[Account]:
        """Accounts that are not paused, by name.

        Raises:
            DatabaseUnavailableError: Postgres is away.
        """
        with self._lock:
            if time.monotonic() - self._read_at > _FRESH_SECONDS:
                with transaction(self._engine) as connection:
                    self._accounts = list_accounts(connection)
                self._read_at = time.monotonic()
            return [account for account in self._accounts if not account.paused]

    def credentials(self, account: Account) -> Credentials:
        """What the provider wants to see.

        Raises:
            SecretUnreadableError: the secret was sealed with another key.
        """
        return Credentials(account.base_url, account.api_key, account.open_secret(self._secret_key))
