"""The picture in a request: from form text to pixels, with the checks Baidu makes on the way.

Pixels are taken as they are stored: the EXIF orientation is ignored, as the vendor ignores it, so that a client that
forgets to turn a photo sees here what it would see there. Kinds of JPEG and PNG that the vendor is believed to refuse
(CMYK, 16 bits a channel) are refused too.
"""

import base64
import binascii
import io
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from sandbox.faults import Fault, FaultError

Pixels: TypeAlias = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "BMP")
READABLE_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA"})


@dataclass(frozen=True)
class PictureLimits:
    """What an endpoint takes: length of the url-encoded base64, and sides in pixels."""

    encoded_bytes: int
    shortest_side: int
    longest_side: int


@dataclass(frozen=True)
class Picture:
    """A decoded picture: pixels as BGR rows, as stored in the file."""

    pixels: Pixels

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return int(self.pixels.shape[0])


def decode_picture(text: str, encoded_bytes: int, limits: PictureLimits) -> Picture:
    """The picture that a form field holds.

    Args:
        text: base64 after form decoding.
        encoded_bytes: length of the field in the body, before form decoding.

    Raises:
        FaultError: not base64, no picture of a known format, too long, too large or too small.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FaultError(Fault.BAD_IMAGE_FORMAT) from None
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.mode not in READABLE_MODES:
                raise FaultError(Fault.BAD_IMAGE_FORMAT)
            if encoded_bytes > limits.encoded_bytes:
                raise FaultError(Fault.BAD_IMAGE_SIZE)
            # From the header, before a single pixel is decoded: a small file can declare an enormous picture.
            if min(image.size) < limits.shortest_side or max(image.size) > limits.longest_side:
                raise FaultError(Fault.BAD_IMAGE_SIZE)
            rgb = np.asarray(_on_white(image))
    except Image.DecompressionBombError:
        raise FaultError(Fault.BAD_IMAGE_SIZE) from None
    except (OSError, ValueError, SyntaxError, EOFError):
        raise FaultError(Fault.BAD_IMAGE_FORMAT) from None
    return Picture(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR).astype(np.uint8, copy=False))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    return image.convert("RGB")
