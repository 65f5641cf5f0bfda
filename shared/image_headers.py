"""Is it an image we can read? Answered from the header: nothing is decoded here.

A full decode would find every broken pixel, but costs 5 to 20 ms for a phone's photo and four bytes a pixel, in the
process that must keep answering. So intake looks at the header (format, frames, pixels) and at the structure: a file
cut off on its way lacks its end, and every format says where its end is. That takes microseconds. Damage in the
middle is found by the worker, which decodes anyway and fails the job with `image_rejected`.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from shared.domain.errors import (
    ImageAnimatedError,
    ImageDamagedError,
    ImageEmptyError,
    ImageFormatError,
    ImagePixelsError,
    ImageTooLargeError,
)
from shared.images import READABLE_FORMATS

_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"GIF8")
_FORMATS_SENTENCE = f"The bytes are no image of a format we read. Send one of: {', '.join(READABLE_FORMATS)}."
_DAMAGED = "The image is cut off or broken. Send the whole file."

CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "BMP": "image/bmp",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "GIF": "image/gif",
    "HEIF": "image/heif",
}


@dataclass(frozen=True)
class ImageHeader:
    """What the header says. `format` is Pillow's name; width and height in pixels, as stored."""

    format: str
    width: int
    height: int


def check_size(size_bytes: int, max_bytes: int) -> None:
    """Refuse an image by its size.

    Raises:
        ImageEmptyError: it has no bytes.
        ImageTooLargeError: it has too many.
    """
    if size_bytes == 0:
        raise ImageEmptyError("The image has no bytes.")
    if size_bytes > max_bytes:
        raise ImageTooLargeError(
            f"The image has {size_bytes} bytes; at most {max_bytes} are accepted. Send it smaller or as JPEG."
        )


def read_header(content: bytes, *, max_pixels: int, short_side: int) -> ImageHeader:
    """Look at an image without decoding it.

    Args:
        max_pixels: most pixels it may have, width times height.
        short_side: fewest pixels of its shorter side.

    Raises:
        ImageError: it can't be accepted; the class says why.
    """
    try:
        with Image.open(io.BytesIO(content), formats=READABLE_FORMATS) as image:
            _check_pixels(image.width, image.height, max_pixels, short_side)
            # Phones put a gain map or a second view behind a JPEG, which Pillow calls MPO: the first one is the photo.
            name = "JPEG" if image.format == "MPO" else str(image.format)
            if name in _FRAMED and _has_more_frames(image):
                raise ImageAnimatedError("The image has more than one frame or page. Send one picture a job.")
            if not _IS_WHOLE[name](content, image):
                raise ImageDamagedError(_DAMAGED)
            return ImageHeader(name, image.width, image.height)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImagePixelsError(_too_many_pixels(max_pixels)) from error
    except UnidentifiedImageError as error:
        if content.startswith(_SIGNATURES) or content[4:8] == b"ftyp":
            raise ImageDamagedError(_DAMAGED) from error
        raise ImageFormatError(_FORMATS_SENTENCE) from error
    except (OSError, SyntaxError, ValueError, EOFError, KeyError, IndexError, OverflowError, struct.error) as error:
        raise ImageDamagedError(_DAMAGED) from error


def _too_many_pixels(max_pixels: int) -> str:
    return f"The image has too many pixels; at most {max_pixels} (width times height) are accepted. Send it smaller."


def _check_pixels(width: int, height: int, max_pixels: int, short_side: int) -> None:
    if width * height > max_pixels:
        raise ImagePixelsError(_too_many_pixels(max_pixels))
    if min(width, height) < short_side:
        raise ImagePixelsError(
            f"The image is {width} x {height} pixels; its shorter side must have at least {short_side}."
        )


# Formats that may hold several pictures. A HEIF file's others are thumbnails and depth maps; it names a main one.
_FRAMED = ("GIF", "WEBP", "PNG", "TIFF")


def _has_more_frames(image: Image.Image) -> bool:
    if image.format == "TIFF":  # asking for their number would read every page
        try:
            image.seek(1)
        except EOFError:
            return False
        image.seek(0)
        return True
    return bool(getattr(image, "is_animated", False))


def _jpeg_is_whole(content: bytes, _image: Image.Image) -> bool:
    """Walk the segments to the first scan; in coded data FF D9 can only be the end of the image."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF:
            return False
        marker = content[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0xDA:
            return content.find(b"\xff\xd9", at) >= 0
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return False


def _png_is_whole(content: bytes, _image: Image.Image) -> bool:
    at = 8
    while at + 12 <= len(content):
        at_next = at + 12 + int.from_bytes(content[at : at + 4])
        if content[at + 4 : at + 8] == b"IEND":
            return True
        at = at_next
    return False


def _webp_is_whole(content: bytes, _image: Image.Image) -> bool:
    return int.from_bytes(content[4:8], "little") + 8 <= len(content)


def _gif_is_whole(content: bytes, _image: Image.Image) -> bool:
    return content.rstrip(b"\0").endswith(b";")


def _tiff_is_whole(content: bytes, image: Image.Image) -> bool:
    tags: dict[int, tuple[int, ...] | int] = dict(getattr(image, "tag_v2", {}))
    for offset_tag, count_tag in ((273, 279), (324, 325)):
        offsets, counts = tags.get(offset_tag, ()), tags.get(count_tag, ())
        offsets = (offsets,) if isinstance(offsets, int) else offsets
        counts = (counts,) if isinstance(counts, int) else counts
        if any(offset + count > len(content) for offset, count in zip(offsets, counts, strict=False)):
            return False
    return True


def _bmp_is_whole(content: bytes, image: Image.Image) -> bool:
    for decoder, (_, _, _, bottom), offset, arguments in getattr(image, "tile", []):
        if decoder == "raw" and offset + arguments[1] * bottom > len(content):
            return False
    return True


def _heif_is_whole(content: bytes, _image: Image.Image) -> bool:
    """Walk the boxes of the file: each says how long it is, and `mdat` holds the picture."""
    at, has_data = 0, False
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4])
        has_data |= content[at + 4 : at + 8] == b"mdat"
        if size == 0:  # to the end of the file
            return has_data
        if size == 1:
            size = int.from_bytes(content[at + 8 : at + 16])
        if size < 8:
            return False
        at += size
    return has_data and at == len(content)


_IS_WHOLE: dict[str, Callable[[bytes, Image.Image], bool]] = {
    "JPEG": _jpeg_is_whole,
    "PNG": _png_is_whole,
    "BMP": _bmp_is_whole,
    "WEBP": _webp_is_whole,
    "TIFF": _tiff_is_whole,
    "GIF": _gif_is_whole,
    "HEIF": _heif_is_whole,
}
