"""A counter a second in Redis, shared by all processes: `limits`, the library behind Flask-Limiter."""

import threading
import time

from limits import RateLimitItemPerSecond
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter

from benchmarks.rivals.calling import Caller, Tally, back_off, is_rate_limited, read_arguments, threads_for

_LOOK_AGAIN_SECONDS = 0.02


def main() -> None:
    """Read the same picture again and again until the time is over."""
    given = read_arguments()
    limiter = FixedWindowRateLimiter(RedisStorage(given.redis))
    rate = RateLimitItemPerSecond(max(1, int(given.qps)))
    caller, tally, end = (
        Caller(given.url, given.key, given.image.read_bytes()),
        Tally(),
        time.monotonic() + given.seconds,
    )

    def work() -> None:
        while time.monotonic() < end:
            taken = time.monotonic()
            while time.monotonic() < end:
                if not limiter.hit(rate, given.key):
                    time.sleep(_LOOK_AGAIN_SECONDS)
                    continue
                sent = time.monotonic()
                code = caller.call()
                tally.count(accepted=code == 0, waited=sent - taken)
                if not is_rate_limited(code):
                    break
                back_off()

    threads = [threading.Thread(target=work) for _ in range(threads_for(given.qps) // 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.tell()


if __name__ == "__main__":
    main()
