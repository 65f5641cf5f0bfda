"""A picture that hangs its decoder, eats memory or kills: the worker lives, and reads the next one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import psutil
import pytest

from shared.domain.documents import DOCUMENT_TYPES, Limits
from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode
from shared.domain.retry import FailureKind
from tests import deadly
from tests.factories import make_picture
from worker import decoding, prepare
from worker.decoding import ImagePreparer
from worker.providers.protocol import PreparedImage

LIMITS = DOCUMENT_TYPES["id_card"].limits
WEBP = make_picture(image_format="WEBP")


@pytest.fixture
def seconds() -> float:
    return 60


@pytest.fixture
def preparer(seconds: float) -> Iterator[ImagePreparer]:
    made = ImagePreparer(processes=1, max_pixels=1_000_000, seconds=seconds, memory_bytes=1_000_000_000)
    if seconds == 60:
        made.prepare(WEBP, LIMITS)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("decoder", "seconds", "kind", "code", "text"),
    [
        (deadly.hang, 1.5, FailureKind.RETRY_SOON, JobErrorCode.POISONED, "took more than 1.5 s"),
        (deadly.die, 60, FailureKind.RETRY_SOON, JobErrorCode.POISONED, "killed its process"),
        (deadly.eat_memory, 60, FailureKind.BAD_INPUT, JobErrorCode.IMAGE_REJECTED, "memory"),
    ],
)
def test_a_bad_decoder_takes_nothing_with_it(
    preparer: ImagePreparer,
    monkeypatch: pytest.MonkeyPatch,
    decoder: Callable[[bytes, Limits], PreparedImage],
    seconds: float,
    kind: FailureKind,
    code: JobErrorCode,
    text: str,
) -> None:
    monkeypatch.setattr(decoding, "convert", decoder)
    with pytest.raises(ProviderError, match=text) as caught:
        preparer.prepare(WEBP, LIMITS)
    monkeypatch.setattr(decoding, "convert", prepare.convert)

    assert (caught.value.kind, caught.value.error_code, caught.value.called) == (kind, code, False)
    assert seconds < 60 or preparer.prepare(WEBP, LIMITS).content[:2] == b"\xff\xd8"


def test_a_process_that_dies_idle_is_replaced(preparer: ImagePreparer) -> None:
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # zombies are among these
            if "forkserver" in " ".join(child.cmdline()):
                child.kill()

    for _ in range(3):
        assert preparer.prepare(WEBP, LIMITS).content[:2] == b"\xff\xd8"


_OWNER = """
import sys, time
from shared.domain.documents import DOCUMENT_TYPES
from tests.factories import make_picture
from worker.decoding import ImagePreparer

if __name__ == "__main__":
    made = ImagePreparer(processes=2, max_pixels=1_000_000, seconds=60, memory_bytes=1_000_000_000)
    made.prepare(make_picture(image_format="WEBP"), DOCUMENT_TYPES["id_card"].limits)
    print("decoded", flush=True)
    sys.stdin.read()
"""


def lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.parametrize("killed", [True, False])
def test_the_processes_end_with_their_owner(killed: bool) -> None:
    owner = subprocess.Popen([sys.executable, "-c", _OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdin is not None
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"decoded\n"
    children = psutil.Process(owner.pid).children(recursive=True)
    assert len(children) >= 3

    if killed:
        os.kill(owner.pid, signal.SIGKILL)
    owner.stdin.close()

    owner.wait(20)
    owner.stdout.close()
    end = time.monotonic() + 20
    while any(lives(child) for child in children):
        assert time.monotonic() < end
        time.sleep(0.1)
