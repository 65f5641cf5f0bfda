"""Bad pictures, made on the spot."""

import io
import random
import struct
import zlib
from typing import Any

from PIL import Image

from shared.images import load_formats

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="640" height="400"/>'


def picture(image_format: str = "JPEG", size: tuple[int, int] = (640, 400), mode: str = "RGB", **options: Any) -> bytes:
    """A picture with enough in it that half a file is half a picture."""
    load_formats(100_000_000)
    buffer = io.BytesIO()
    # The same each time: of random ones, one in a few hundred ends like a whole file where it is cut.
    noise = Image.frombytes("L", size, random.Random(1).randbytes(size[0] * size[1])).convert(mode)
    noise.save(buffer, image_format, **options)
    return buffer.getvalue()


def animation(image_format: str) -> bytes:
    """Two frames, or two pages."""
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    frames[0].save(buffer, image_format, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """A small file that would be huge once decoded."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
