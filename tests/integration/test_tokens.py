"""One access token for all workers."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.fernet import Fernet
from redis import Redis

from shared.domain.errors import ProviderError
from shared.domain.retry import FailureKind
from shared.limits import keys
from shared.limits.permits import LimiterUnavailableError
from shared.limits.tokens import TokenStore

ACCOUNT = "acc_1"
KEY = Fernet.generate_key().decode()


class Office:
    """Gives out tokens and counts them."""

    def __init__(self, life: float = 2_592_000, pause: float = 0.0) -> None:
        self.fetches, self._life, self._pause = 0, life, pause
        self._lock = threading.Lock()

    def __call__(self) -> tuple[str, float]:
        with self._lock:
            self.fetches += 1
            number = self.fetches
        time.sleep(self._pause)
        return f"24.token-{number}", self._life


def store(redis: Redis) -> TokenStore:
    """The tokens of one process."""
    return TokenStore(redis, KEY)


def test_sixty_four_workers_fetch_one_token(redis_client: Redis) -> None:
    office = Office(pause=0.2)

    with ThreadPoolExecutor(64) as pool:
        tokens = set(pool.map(lambda _: store(redis_client).get(ACCOUNT, office), range(64)))

    assert tokens == {"24.token-1"}
    assert office.fetches == 1


def test_a_refused_token_is_replaced(redis_client: Redis) -> None:
    office, mine = Office(), store(redis_client)
    first = mine.get(ACCOUNT, office)

    mine.drop(ACCOUNT, first)

    assert mine.get(ACCOUNT, office) == "24.token-2"


def test_a_late_refusal_does_not_drop_the_newer_token(redis_client: Redis) -> None:
    office, mine, other = Office(), store(redis_client), store(redis_client)
    old = mine.get(ACCOUNT, office)
    other.get(ACCOUNT, office)
    mine.drop(ACCOUNT, old)
    mine.get(ACCOUNT, office)

    other.drop(ACCOUNT, old)

    assert other.get(ACCOUNT, office) == "24.token-2"
    assert office.fetches == 2


def test_an_old_token_is_renewed_early(redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    office = Office(life=1000)
    store(redis_client).get(ACCOUNT, office)
    now = time.time()
    monkeypatch.setattr("shared.limits.tokens.time.time", lambda: now + 950)

    meanwhile = store(redis_client).get(ACCOUNT, office)
    await_renewal()

    assert (meanwhile, store(redis_client).get(ACCOUNT, office)) == ("24.token-1", "24.token-2")


def test_a_renewal_that_fails_leaves_the_old_token(redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    store(redis_client).get(ACCOUNT, Office(life=1000))
    now = time.time()
    monkeypatch.setattr("shared.limits.tokens.time.time", lambda: now + 950)

    tokens = []
    for _ in range(2):
        tokens.append(store(redis_client).get(ACCOUNT, refuse))
        await_renewal()

    assert tokens == ["24.token-1", "24.token-1"]


def await_renewal() -> None:
    for thread in threading.enumerate():
        if thread.name == "token-renewal":
            thread.join()


def refuse() -> tuple[str, float]:
    raise ProviderError(FailureKind.MISCONFIGURED, "the keys are refused", called=False)


@pytest.mark.parametrize("renews", [False, True])
def test_a_fetch_that_outlasts_its_lock_still_gives_the_token(
    redis_client: Redis, monkeypatch: pytest.MonkeyPatch, renews: bool
) -> None:
    office = Office(life=100)
    if renews:
        store(redis_client).get(ACCOUNT, office)
        later = time.time() + 65  # a tenth of its life, and more, is left to be used up
        monkeypatch.setattr(time, "time", lambda: later)
        monkeypatch.setattr("shared.limits.tokens._EARLY", 0.5)

    def slow_fetch() -> tuple[str, float]:
        redis_client.delete(keys.token_lock(ACCOUNT))  # as when its life is over
        return office()

    token = store(redis_client).get(ACCOUNT, slow_fetch)
    await_renewal()

    assert token in ("24.token-1", "24.token-2")
    assert office.fetches == 1 + renews


def test_a_failure_is_remembered_for_all(redis_client: Redis) -> None:
    office = Office()
    with pytest.raises(ProviderError):
        store(redis_client).get(ACCOUNT, refuse)

    with pytest.raises(ProviderError) as caught:
        store(redis_client).get(ACCOUNT, office)

    assert caught.value.kind is FailureKind.MISCONFIGURED
    assert office.fetches == 0


def test_the_token_is_nowhere_to_be_read(redis_client: Redis) -> None:
    token = store(redis_client).get(ACCOUNT, Office())

    kept = [redis_client.hgetall(key) for key in redis_client.keys("*")]
    assert kept
    assert token not in str(kept)


def test_a_token_sealed_with_another_key_is_as_good_as_none(redis_client: Redis) -> None:
    office = Office()
    TokenStore(redis_client, Fernet.generate_key().decode()).get(ACCOUNT, office)
    redis_client.hset(keys.token(ACCOUNT), "expires_at", "0")

    assert store(redis_client).get(ACCOUNT, office) == "24.token-2"


def test_without_redis_there_is_no_token() -> None:
    nowhere = Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)

    with pytest.raises(LimiterUnavailableError):
        store(nowhere).get(ACCOUNT, Office())
