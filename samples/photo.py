"""A flat document as a phone or a scanner would see it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from sheets import Sheet

Pixels = npt.NDArray[np.float32]
Corners = tuple[tuple[float, float], ...]


def soft_noise(random: np.random.Generator, height: int, width: int, cell: float) -> Pixels:
    """Smooth random hills about `cell` pixels wide, mean 0, deviation about 1."""
    small = random.standard_normal((max(2, round(height / cell)) + 2, max(2, round(width / cell)) + 2))
    return cv2.resize(small.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def desk_wood(random: np.random.Generator, height: int, width: int) -> Pixels:
    """A wooden desk: rings of growth seen from the side, fine pores, gaps between planks."""
    drift = soft_noise(random, height, width, width / 3) * height * 0.02
    rows = (np.arange(height, dtype=np.float32)[:, None] + drift) % height
    grain = soft_noise(random, height, 1, height / 70)[:, 0] * 0.6
    grain += soft_noise(random, height, 1, height / 300)[:, 0] * 0.4
    tone = grain[rows.astype(np.int32)] + 0.35 * cv2.blur(soft_noise(random, height, width, 2), (61, 1))
    planks = np.abs((rows % (height / 3)) - height / 6) > height / 6 - height / 900
    color = np.array((158, 114, 76), np.float32) + tone[..., None] * np.array((13, 12, 10), np.float32)
    color[planks] *= 0.5
    return np.asarray(color, np.float32)


def desk_gray(random: np.random.Generator, height: int, width: int) -> Pixels:
    tone = soft_noise(random, height, width, 3) * 4 + soft_noise(random, height, width, width / 5) * 4
    return (np.array((142, 145, 150), np.float32) + tone[..., None]).astype(np.float32)


def desk_dark(random: np.random.Generator, height: int, width: int) -> Pixels:
    tone = soft_noise(random, height, width, 2) * 5 + soft_noise(random, height, width, width / 4) * 3
    return (np.array((62, 66, 74), np.float32) + tone[..., None]).astype(np.float32)


@dataclass(frozen=True)
class Shot:
    """How a document is photographed. `corners`: its top left, top right, bottom right, bottom left, as fractions of
    the picture. `light`: the direction (radians) the light comes from. `noise`: deviation in gray levels of 255.
    """

    size: tuple[int, int]
    corners: Corners
    desk: Callable[[np.random.Generator, int, int], Pixels]
    seed: int
    light: float = 3.9
    noise: float = 4.0
    blur: float = 0.8

    def scale_for(self, sheet_width: int) -> float:
        """Pixels per length unit at which the sheet is drawn about as large as it will be seen."""
        (x0, y0), (x1, y1) = self.corners[:2]
        return math.hypot((x1 - x0) * self.size[0], (y1 - y0) * self.size[1]) / sheet_width * 1.1


def photograph(sheet: Sheet, shot: Shot) -> Image.Image:
    """Lay the sheet on a desk, light it unevenly and look at it askance through a small sensor."""
    random, (width, height) = np.random.default_rng(shot.seed), shot.size
    sheet_width, sheet_height = sheet.image.size
    source = np.array([(0, 0), (sheet_width, 0), (sheet_width, sheet_height), (0, sheet_height)], np.float32)
    matrix = cv2.getPerspectiveTransform(source, np.array(shot.corners, np.float32) * np.array(shot.size, np.float32))
    paper = cv2.warpPerspective(
        np.array(sheet.image), matrix, shot.size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)
    mask = cv2.warpPerspective(np.array(sheet.mask), matrix, shot.size, flags=cv2.INTER_LINEAR).astype(np.float32) / 255

    reach = width / 130
    away = np.array([[1, 0, -math.cos(shot.light) * reach], [0, 1, -math.sin(shot.light) * reach]], np.float32)
    shadow = cv2.GaussianBlur(cv2.warpAffine(mask, away, shot.size), (0, 0), reach)
    scene = shot.desk(random, height, width) * (1 - 0.5 * shadow[..., None])
    scene = scene * (1 - mask[..., None]) + paper * mask[..., None]

    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    slope = x * math.cos(shot.light) + y * math.sin(shot.light)
    patches = soft_noise(random, height, width, width / 3)
    scene *= (0.93 + 0.1 * slope - 0.07 * (x * x + y * y) + 0.015 * patches)[..., None]
    scene *= np.array((1.02, 1.0, 0.96), np.float32)  # indoor light is warm
    scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), shot.blur), np.float32)
    scene += random.standard_normal((height, width, 1), np.float32) * shot.noise
    scene += random.standard_normal((height, width, 3), np.float32) * shot.noise * 0.5
    return Image.fromarray(np.clip(scene, 0, 255).astype(np.uint8))


def scan(sheet: Sheet, seed: int) -> Image.Image:
    """What a flatbed scanner makes of the sheet: straight, even, a little grain."""
    pixels = np.array(sheet.image).astype(np.float32)
    grain = np.random.default_rng(seed).standard_normal(pixels.shape[:2], np.float32)[..., None]
    return Image.fromarray(np.clip(cv2.GaussianBlur(pixels, (0, 0), 0.6) + grain * 1.2, 0, 255).astype(np.uint8))
