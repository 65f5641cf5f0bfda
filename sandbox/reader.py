"""Reads the text of a picture with PP-OCR (RapidOCR on onnxruntime; the models are in its wheel).

How a picture is read:
1. Look: detect text boxes. The long boxes tell the axis along which the text runs, the direction classifier tells
   which way along it.
2. Look again, only if needed: the text is turned upright, cut out and enlarged in one warp of the original pixels,
   and detected anew. Sideways, slanted or small print is detected badly, upright large print well.
3. Recognize each box, and level what perspective left sloping.

One recognition at a time: RapidOCR keeps the options of a call in attributes of the engine, so two calls would mix
theirs; and one call already uses every core through onnxruntime's own threads, so a second engine would make each card
slower and hardly raise the number of cards a second. A thread of its own rather than a lock: the allocator keeps what
each calling thread once needed: 16 callers under a lock left 0.95 GB in use, through one thread 0.34 GB.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from rapidocr import RapidOCR

from sandbox.page import Box, Line, Page
from sandbox.pictures import Pixels

Floats: TypeAlias = npt.NDArray[np.float64]

# Detection sees a copy whose longer side is at most this: print 12 pixels high is still found, in half a second.
DETECTION_SIDE = 1440
# The cut-out of the second look; recognition reads from it, at up to twice the print height detection needs.
VIEW_SIDE = 2000
# The height it brings small print to: what recognition scales every line to anyway.
VIEW_PRINT_HEIGHT = 48.0
# Below this share of the picture's longer side, text is cut out and enlarged.
SMALL_SHARE = 0.6
# Text that runs further than this from the horizontal is turned upright before it is read.
LEVEL_DEGREES = 3.0
# A box this much longer than high says which way its text runs; a single character does not.
LONG_BOX = 2.0
LOWEST_SCORE = 0.5
# Lines read under this mean score may be upside down: the other way is tried.
DOUBTFUL_SCORE = 0.8
# The classifier is as unsure of the direction when so much of the evidence is against it.
DOUBTFUL_FLIP_SHARE = 0.3


class Reader(Protocol):
    """Reads text off pixels."""

    def read(self, pixels: Pixels) -> Page:
        """All text of a picture (BGR)."""
        ...


@dataclass(frozen=True)
class _Look:
    """Boxes of text in a view of the picture.

    Attributes:
        view: the pixels looked at.
        quads: N × 4 × 2 corners in the view, each starting where its text starts.
        angle: degrees clockwise from horizontal in which text runs, -180 to 180.
        flip_share: share of the evidence that says the other way round, 0 to 1.
    """

    view: Pixels
    quads: Floats
    angle: float
    flip_share: float

    def flipped(self) -> "_Look":
        """The same, read the other way round."""
        return _Look(self.view, np.roll(self.quads, 2, axis=1), _wrapped(self.angle + 180), 1 - self.flip_share)


class PaddleReader:
    """The production reader. Safe to use from many threads, one of which reads at a time."""

    def __init__(self, *, threads: int) -> None:
        """Load the models.

        Args:
            threads: cores one recognition uses.
        """
        self._engine = RapidOCR(
            params={
                "Global.log_level": "error",
                "Global.max_side_len": DETECTION_SIDE,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            }
        )
        self._line = ThreadPoolExecutor(max_workers=1, thread_name_prefix="recognition")

    def warm_up(self) -> None:
        """Load every model and run it once, so that the first call is as fast as the next."""
        sheet = np.full((400, 640, 3), 255, np.uint8)
        cv2.putText(sheet, "WARM UP 1234567890", (40, 200), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (0, 0, 0), 3)
        self.read(sheet)

    def read(self, pixels: Pixels) -> Page:
        """All text of a picture (BGR)."""
        return self._line.submit(self._read, pixels).result()

    def _read(self, pixels: Pixels) -> Page:
        look = self._look(pixels)
        matrix = np.eye(3)
        turned_by = 0.0
        if look is not None and (better := _upright_view(look, pixels)) is not None:
            matrix, turned_by = better, look.angle
            look = self._look(_warped(pixels, matrix, _view_size(look.quads, matrix)))
        if look is None:
            return Page()
        look, texts, scores = self._recognize_either_way(look)
        direction = _direction(look.angle + turned_by)
        return Page(_make_lines(look.quads, texts, scores, matrix, pixels), direction)

    def _recognize_either_way(self, look: _Look) -> tuple[_Look, list[str], list[float]]:
        texts, scores = self._recognize(look.view, look.quads)
        if not _is_doubtful(scores) and look.flip_share <= DOUBTFUL_FLIP_SHARE:
            return look, texts, scores
        other = look.flipped()
        other_texts, other_scores = self._recognize(other.view, other.quads)
        if _evidence(other_texts, other_scores) > _evidence(texts, scores):
            return other, other_texts, other_scores
        return look, texts, scores

    def _look(self, view: Pixels) -> _Look | None:
        found: Any = self._engine(view, use_det=True, use_cls=False, use_rec=False)
        if found is None or found.boxes is None or len(found.boxes) == 0:
            return None
        boxes = np.asarray(found.boxes, np.float64)
        axis = _dominant_axis(boxes)
        quads = np.stack([_turned_along(box, axis) for box in boxes])
        look = _Look(view, quads, axis, self._flip_share(view, quads))
        return look.flipped() if look.flip_share > 0.5 else look

    def _flip_share(self, view: Pixels, quads: Floats) -> float:
        lengths = _lengths(quads)
        # The longest boxes say enough, and a short one is often misjudged.
        chosen = np.argsort(-lengths)[:12]
        _, result = self._engine.cls_and_rotate([_cut_out(view, quads[index]) for index in chosen])
        weights = [
            (length * score, label == "180")
            for length, (label, score) in zip(lengths[chosen], result.cls_res or (), strict=True)
        ]
        total = sum(weight for weight, _ in weights)
        return float(sum(weight for weight, flipped in weights if flipped) / total) if total else 0.0

    def _recognize(self, view: Pixels, quads: Floats) -> tuple[list[str], list[float]]:
        result: Any = self._engine.recognize_txt([_cut_out(view, quad) for quad in quads])
        return [" ".join(text.split()) for text in result.txts], [float(score) for score in result.scores]


def _lengths(quads: Floats) -> Floats:
    return np.asarray(np.hypot(*(quads[:, 1] - quads[:, 0]).T), np.float64)


def _heights(quads: Floats) -> Floats:
    return np.asarray(np.hypot(*(quads[:, 3] - quads[:, 0]).T), np.float64)


def _wrapped(degrees: float) -> float:
    return (degrees + 180) % 360 - 180


def _dominant_axis(boxes: Floats) -> float:
    """Degrees from horizontal, -90 to 90, along which the long boxes run, weighted by their length."""
    doubled = []
    weights = []
    for box in boxes:
        along, down = box[1] - box[0], box[3] - box[0]
        longer, shorter = (along, down) if np.hypot(*along) >= np.hypot(*down) else (down, along)
        if np.hypot(*longer) >= LONG_BOX * max(np.hypot(*shorter), 1.0):
            # Twice the angle, so that a box and the same box from its other end agree.
            doubled.append(2 * math.atan2(longer[1], longer[0]))
            weights.append(float(np.hypot(*longer)))
    if not doubled:
        return 0.0
    sine = float(np.dot(weights, np.sin(doubled)))
    cosine = float(np.dot(weights, np.cos(doubled)))
    return math.degrees(math.atan2(sine, cosine) / 2)


def _turned_along(box: Floats, axis_degrees: float) -> Floats:
    """The same corners in the same turn, begun at the corner from which the top edge runs along the axis."""
    axis = np.array([math.cos(math.radians(axis_degrees)), math.sin(math.radians(axis_degrees))])

    def agreement(shift: int) -> float:
        turned = np.roll(box, -shift, axis=0)
        edge = turned[1] - turned[0]
        return float(edge @ axis / max(np.hypot(*edge), 1e-6))

    return np.roll(box, -max(range(4), key=agreement), axis=0)


def _upright_view(look: _Look, pixels: Pixels) -> Floats | None:
    """The 3 × 3 matrix that turns, cuts out and scales the text, or None if the picture is good as it is."""
    height, width = pixels.shape[:2]
    points = look.quads.reshape(-1, 2)
    extent = float(max(np.ptp(points[:, 0]), np.ptp(points[:, 1])))
    is_level = abs(look.angle) <= LEVEL_DEGREES
    is_large = extent >= SMALL_SHARE * max(width, height) or max(width, height) <= DETECTION_SIDE * 0.75
    if is_level and is_large:
        return None
    turn = math.radians(-look.angle)
    cosine, sine = math.cos(turn), math.sin(turn)
    rotation = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
    left, top, right, bottom = _extent(points, rotation)
    margin = _margin(look.quads)
    # Enlarged by at most two: more pixels would hold no more detail.
    print_height = float(np.percentile(_heights(look.quads), 30))
    scale = min(2.0, VIEW_PRINT_HEIGHT / print_height, VIEW_SIDE / (max(right - left, bottom - top) + 2 * margin))
    shift = np.array([[scale, 0.0, (margin - left) * scale], [0.0, scale, (margin - top) * scale], [0.0, 0.0, 1.0]])
    return np.asarray(shift @ rotation, np.float64)


def _warped(pixels: Pixels, matrix: Floats, size: tuple[int, int]) -> Pixels:
    # Area averaging where much is left out, or fine print breaks up.
    flags = cv2.INTER_AREA if np.hypot(matrix[0, 0], matrix[1, 0]) < 0.5 else cv2.INTER_CUBIC
    view = cv2.warpPerspective(pixels, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return view.astype(np.uint8, copy=False)


def _margin(quads: Floats) -> float:
    return 3.0 * float(np.median(_heights(quads)))


def _view_size(quads: Floats, matrix: Floats) -> tuple[int, int]:
    _, _, right, bottom = _extent(quads.reshape(-1, 2), matrix)
    margin = _margin(quads) * float(np.hypot(matrix[0, 0], matrix[1, 0]))
    return max(32, math.ceil(right + margin)), max(32, math.ceil(bottom + margin))


def _extent(points: Floats, matrix: Floats) -> tuple[float, float, float, float]:
    moved = _moved(points, matrix)
    left, top = moved.min(axis=0)
    right, bottom = moved.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def _moved(points: Floats, matrix: Floats) -> Floats:
    moved = cv2.perspectiveTransform(points.reshape(-1, 1, 2), matrix)
    return np.asarray(moved, np.float64).reshape(-1, 2)


def _cut_out(view: Pixels, quad: Floats) -> Pixels:
    width = max(1, round(max(math.dist(quad[0], quad[1]), math.dist(quad[3], quad[2]))))
    height = max(1, round(max(math.dist(quad[0], quad[3]), math.dist(quad[1], quad[2]))))
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(quad.astype(np.float32), corners)
    cut = cv2.warpPerspective(view, matrix, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return cut.astype(np.uint8, copy=False)


def _is_doubtful(scores: Sequence[float]) -> bool:
    return not scores or sum(scores) / len(scores) < DOUBTFUL_SCORE


def _evidence(texts: Sequence[str], scores: Sequence[float]) -> float:
    # Squared: half-sure nonsense is long, too.
    return sum(len(text) * score * score for text, score in zip(texts, scores, strict=True))


def _direction(angle: float) -> int:
    """The vendor's number for an image whose text runs at this many degrees clockwise from horizontal."""
    # Text that runs down the image (90°) means that it was turned by 270° counterclockwise, which is 3.
    return -round(angle / 90) % 4


def _make_lines(
    quads: Floats, texts: Sequence[str], scores: Sequence[float], matrix: Floats, pixels: Pixels
) -> tuple[Line, ...]:
    """Lines from what was read in a view; `matrix` leads from the image to the view."""
    to_image = np.asarray(np.linalg.inv(matrix), np.float64)
    lines = []
    for quad, flat, text, score in zip(quads, _leveled(quads), texts, scores, strict=True):
        if not text or score < LOWEST_SCORE:
            continue
        corners = np.clip(_moved(quad, to_image), 0, (pixels.shape[1], pixels.shape[0]))
        a, b, c, d = ((float(x), float(y)) for x, y in corners)
        (left, top), (right, bottom) = flat.min(axis=0), flat.max(axis=0)
        box = Box(float(left), float(top), float(right), float(bottom))
        lines.append(Line(text.replace(" ", ""), score, box, (a, b, c, d), text if " " in text else ""))
    return tuple(sorted(lines, key=lambda line: (line.box.middle, line.box.left)))


def _leveled(quads: Floats) -> Floats:
    """The same boxes after the rotation and the perspective that their slopes show are taken out.

    The slope of text at height y is fitted as a + c·y; lines of slope a + c·y are the image of level lines under
    y = y0 + (a + c·y0)·dx, which is solved for y0.
    """
    middle_start, middle_end = (quads[:, 0] + quads[:, 3]) / 2, (quads[:, 1] + quads[:, 2]) / 2
    turn = math.atan2(*reversed(np.sum(middle_end - middle_start, axis=0)))
    cosine, sine = math.cos(-turn), math.sin(-turn)
    rotation = np.array([[cosine, -sine], [sine, cosine]])
    quads = quads @ rotation.T
    along = (quads[:, 1] + quads[:, 2] - quads[:, 0] - quads[:, 3]) / 2
    is_long = _lengths(quads) >= 1.5 * LONG_BOX * np.maximum(_heights(quads), 1.0)
    if int(is_long.sum()) < 3:
        return quads
    centers = quads.mean(axis=1)
    slopes = along[is_long, 1] / along[is_long, 0]
    weights = np.sqrt(_lengths(quads)[is_long])
    design = np.stack([np.ones(len(slopes)), centers[is_long, 1]], axis=1)
    (a, c), *_ = np.linalg.lstsq(design * weights[:, None], slopes * weights, rcond=None)
    dx = quads[..., 0] - centers[:, 0].mean()
    stretch = np.clip(1 + c * dx, 0.5, 2.0)
    return np.stack([dx / stretch, (quads[..., 1] - a * dx) / stretch], axis=2)
