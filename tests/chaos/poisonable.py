"""Kazheng's worker, but for one defect: an image of a certain width kills it, as a bad decoder would."""

import os
import signal

from shared.domain.documents import Limits
from tests.chaos.poison import DEADLY_WIDTH
from worker.decoding import ImagePreparer
from worker.main import app
from worker.providers.protocol import PreparedImage

__all__ = ["app"]

_prepare = ImagePreparer.prepare


def _die_of_some(self: ImagePreparer, content: bytes, limits: Limits) -> PreparedImage:
    prepared = _prepare(self, content, limits)
    if prepared.width == DEADLY_WIDTH:
        os.kill(os.getpid(), signal.SIGKILL)
    return prepared


ImagePreparer.prepare = _die_of_some  # type: ignore[method-assign]
