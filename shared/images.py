"""Which image formats we read, for intake that checks headers and for workers that decode."""

from pi_heif import register_heif_opener
from PIL import Image

READABLE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "HEIF")
"""Pillow's names, for `Image.open(…, formats=…)`: no other plug-in ever sees a client's bytes."""


def load_formats(max_pixels: int) -> None:
    """Load the decoders of this process; call once, before the first image.

    Args:
        max_pixels: Pillow warns above it and refuses above twice as many. Our own checks come first.
    """
    Image.init()
    register_heif_opener(thumbnails=False)
    Image.MAX_IMAGE_PIXELS = max_pixels
