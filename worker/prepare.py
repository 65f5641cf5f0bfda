"""Make any photo acceptable to the provider.

Bytes that are fine already pass through unchanged. Everything else becomes a baseline RGB JPEG: upright (EXIF turned
into pixels), without EXIF, XMP or comment (they may say where the photo was taken), on white where it was transparent,
scaled down and compressed until it fits the endpoint.

`worker.decoding` runs what is here, the decoding in processes of its own.
"""

import base64
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, UnidentifiedImageError

from shared.domain.documents import Limits
from shared.images import READABLE_FORMATS
from worker.providers.protocol import PreparedImage

_PLAIN_MODES = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "L", "P", "1"), "BMP": ("RGB", "L", "P", "1")}
_QUALITIES = (92, 85, 75)
# Transparency, and what may tell of the place beside EXIF.
_UNWANTED = {"transparency", "comment", "xmp", "XML:com.adobe.xmp"}
_PNG_BITS = 24
"""Where a PNG's header has its bits a channel; Pillow's mode says RGB for 16 of them too."""


def encoded_size(content: bytes) -> int:
    """Bytes of the content after base64 and url-encoding (which triples `+`, `/`, `=`): what the limit counts."""
    text = base64.b64encode(content)
    return len(text) + 2 * (text.count(b"+") + text.count(b"/") + text.count(b"="))


class UnusableImageError(Exception):
    """The image can't be read, or can't be made to fit; the text says why."""


def as_it_is(content: bytes, limits: Limits, max_pixels: int) -> PreparedImage | None:
    """The image, if the provider takes it unchanged; looks at its header alone.

    Raises:
        UnusableImageError: it is no image, or has more than `max_pixels`.
    """
    with _mishaps_explained(), Image.open(io.BytesIO(content), formats=READABLE_FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise UnusableImageError("the image has too many pixels")
        return PreparedImage(content, image.width, image.height) if _is_fine(image, content, limits) else None


def convert(content: bytes, limits: Limits) -> PreparedImage:
    """The image decoded, and encoded as the provider takes it.

    Raises:
        UnusableImageError: it can't be decoded, or can't be made to fit.
    """
    with _mishaps_explained(), Image.open(io.BytesIO(content), formats=READABLE_FORMATS) as image:
        image.draft("RGB", (limits.long_side, limits.long_side))
        upright = ImageOps.exif_transpose(image)
        return _compress(_flatten(upright), limits)


@contextmanager
def _mishaps_explained() -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (
        OSError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise UnusableImageError(f"the image can't be decoded ({type(error).__name__})") from error


def _is_fine(image: Image.Image, content: bytes, limits: Limits) -> bool:
    return (
        image.format in limits.formats
        and image.mode in _PLAIN_MODES[str(image.format)]
        and not _UNWANTED & image.info.keys()
        and not (image.format == "PNG" and content[_PNG_BITS] > 8)
        and not image.getexif()
        and min(image.size) >= limits.short_side
        and max(image.size) <= limits.long_side
        and encoded_size(content) <= limits.encoded_bytes
    )


def _flatten(image: Image.Image) -> Image.Image:
    """RGB, eight bits a channel, white behind what was transparent."""
    if image.mode.startswith(("I", "F")):  # 16 or 32 bits: scale by what is there, do not cut off
        low, high = image.getextrema()
        span = max(1.0, float(high) - float(low))  # type: ignore[arg-type]
        image = image.convert("F").point(lambda value: (value - float(low)) * 255 / span).convert("L")  # type: ignore[arg-type]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(layer, mask=layer.getchannel("A"))
        return paper
    return image.convert("RGB")


def _compress(image: Image.Image, limits: Limits) -> PreparedImage:
    """A JPEG within the limits: first the quality goes down, then the size."""
    if min(image.size) < limits.short_side:
        raise UnusableImageError("the image is too small")
    if max(image.size) > limits.long_side:
        image.thumbnail((limits.long_side, limits.long_side), Image.Resampling.LANCZOS)
    while min(image.size) >= limits.short_side:
        for quality in _QUALITIES:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=quality, progressive=False, comment=b"")
            content = buffer.getvalue()
            if encoded_size(content) <= limits.encoded_bytes:
                return PreparedImage(content, image.width, image.height)
        image = image.resize((image.width * 3 // 4, image.height * 3 // 4), Image.Resampling.LANCZOS)
    raise UnusableImageError("the image can't be made to fit")
