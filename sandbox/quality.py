"""Is a picture sharp and well lit? Simple measures, used only when a card could not be read well."""

from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

from sandbox.pictures import Pixels

# Measured on a copy of this width, so that a large soft photo and its small sharp copy are judged alike.
JUDGED_WIDTH = 1000
# Below: blurred. Text drawn at card size gives several hundred; a Gaussian blur that makes it unreadable, under 15.
SHARP_LAPLACIAN = 30.0
DARK_MEAN = 45.0
BRIGHT_MEAN = 225.0
# White paper is bright too: over-exposed is bright without anything dark on it.
FLAT_DEVIATION = 25.0


class Defect(StrEnum):
    """What is wrong with a picture, in the vendor's words for `image_status`."""

    BLURRED = "blurred"
    OVER_DARK = "over_dark"
    OVER_EXPOSED = "over_exposure"


@dataclass(frozen=True)
class Quality:
    """Measures of a picture: variance of its Laplacian, mean and standard deviation of brightness (0 to 255)."""

    sharpness: float
    brightness: float
    contrast: float

    @property
    def defect(self) -> Defect | None:
        """The first thing wrong with it, light before sharpness: the dark is never sharp."""
        if self.brightness < DARK_MEAN:
            return Defect.OVER_DARK
        if self.brightness > BRIGHT_MEAN and self.contrast < FLAT_DEVIATION:
            return Defect.OVER_EXPOSED
        return Defect.BLURRED if self.sharpness < SHARP_LAPLACIAN else None


def measure_quality(pixels: Pixels) -> Quality:
    """Measure a picture."""
    gray = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    if gray.shape[1] > JUDGED_WIDTH:
        height = max(1, round(gray.shape[0] * JUDGED_WIDTH / gray.shape[1]))
        gray = cv2.resize(gray, (JUDGED_WIDTH, height), interpolation=cv2.INTER_AREA)
    laplacian = cv2.Laplacian(gray, cv2.CV_64F)
    return Quality(float(laplacian.var()), float(np.mean(gray)), float(np.std(gray)))


def card_quality(quality: Quality, *, is_complete: bool, confidence: float) -> dict[str, float]:
    """The vendor's `card_quality`, its misspelt keys included.

    Args:
        is_complete: every field of the card was found.
        confidence: mean score of the lines read, 0 to 1.
    """
    clear = round(min(1.0, quality.sharpness / (2 * SHARP_LAPLACIAN)) * confidence, 4)
    complete = 0.98 if is_complete else 0.3
    uncovered = round(0.9 * confidence, 4)
    return {
        "IsClear": int(clear >= 0.5),
        "IsClear_propobility": clear,
        "IsComplete": int(complete >= 0.5),
        "IsComplete_propobility": complete,
        "IsNoCover": int(uncovered >= 0.3),
        "IsNoCover_propobility": uncovered,
    }
