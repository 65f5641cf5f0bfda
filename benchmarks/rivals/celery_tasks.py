"""The task of the Celery rival: `rate_limit` on the task, which holds for one worker process."""

import os
import time
from pathlib import Path

from celery import Celery, Task

from benchmarks.rivals.calling import Caller, is_rate_limited

app = Celery("rival", broker=os.environ.get("RIVAL_REDIS"))
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, task_default_queue=os.environ.get("RIVAL_KEY"))

_callers: dict[int, Caller] = {}


@app.task(bind=True, rate_limit=os.environ.get("RIVAL_RATE"), max_retries=None)
def read_card(self: "Task[[], None]") -> None:
    """Read the picture; try again in a second if the vendor refuses the call for its rate."""
    if os.getpid() not in _callers:
        image = Path(os.environ["RIVAL_IMAGE"]).read_bytes()
        _callers[os.getpid()] = Caller(os.environ["RIVAL_URL"], os.environ["RIVAL_KEY"], image)
    code = _callers[os.getpid()].call()
    with Path(os.environ["RIVAL_TALLY"]).open("a") as tally:
        tally.write(f"{time.monotonic()} {code}\n")
    if is_rate_limited(code):
        raise self.retry(countdown=1)
