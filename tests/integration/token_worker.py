"""A process that wants an access token with many threads at once; run by the test of the single flight."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from shared.limits.connection import connect
from shared.limits.tokens import TokenStore
from shared.settings import Settings
from worker.providers.baidu import BaiduProvider
from worker.providers.protocol import Credentials

THREADS = 16


def main() -> None:
    """Print the tokens that the threads got, first and after all of them were told that the first is refused."""
    url = sys.argv[1]
    settings = Settings.from_env()
    store = TokenStore(connect(settings), settings.require_secret_key())
    provider = BaiduProvider(connect_timeout=5, read_timeout=10, deadline=20)
    credentials = Credentials(url, "sandbox-api-key", "sandbox-secret-key")
    together = threading.Barrier(THREADS)

    def work(_: int) -> tuple[str, str]:
        together.wait()
        first = store.get("acc", lambda: provider.fetch_token(credentials))
        together.wait()
        store.drop("acc", first)
        return first, store.get("acc", lambda: provider.fetch_token(credentials))

    with ThreadPoolExecutor(THREADS) as pool:
        told = list(pool.map(work, range(THREADS)))
    sys.stdout.write(f"\n{json.dumps(told)}\n")  # behind what was logged


if __name__ == "__main__":
    main()
