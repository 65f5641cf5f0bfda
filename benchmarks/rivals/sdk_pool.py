"""The official SDK in a pool of threads; a call refused for its rate is tried again after a second."""

import threading
import time

from aip import AipOcr
from aip.base import AipBase

from benchmarks.rivals.calling import Tally, back_off, is_rate_limited, read_arguments, threads_for

_BAIDU = "https://aip.baidubce.com"


def make_sdk(url: str, key: str, secret: str) -> AipOcr:
    """The SDK, told to call another address than Baidu's."""
    client = AipOcr("10000001", key, secret)
    for owner in (AipBase, AipOcr):
        for name, value in vars(owner).items():
            if isinstance(value, str) and value.startswith(_BAIDU):
                setattr(client, name, value.replace(_BAIDU, url))
    return client


def main() -> None:
    """Read the same picture again and again until the time is over."""
    given = read_arguments()
    client = make_sdk(given.url, given.key, "secret")
    image, tally, end = given.image.read_bytes(), Tally(), time.monotonic() + given.seconds

    def work() -> None:
        while time.monotonic() < end:
            taken = time.monotonic()
            while time.monotonic() < end:
                sent = time.monotonic()
                code = int(client.bankcard(image).get("error_code", 0))
                tally.count(accepted=code == 0, waited=sent - taken)
                if not is_rate_limited(code):
                    break
                back_off()

    threads = [threading.Thread(target=work) for _ in range(threads_for(given.qps))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.tell()


if __name__ == "__main__":
    main()
