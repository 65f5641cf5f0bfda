"""Make any photo acceptable to the provider.

Bytes that are fine already pass through unchanged. Everything else becomes a baseline RGB JPEG: upright (EXIF turned
into pixels), without EXIF, XMP or comment (they may say where the photo was taken), on white where it was transparent,
scaled down and compressed until it fits the endpoint.

Decoding is CPU and memory (four bytes a pixel, twice): a semaphore holds it to a few images at a time, whatever the
number of threads. Intake has checked the header: no image here has more pixels than `max_image_pixels`.
"""

import base64
import io
import threading
import warnings

from PIL import Image, ImageOps, UnidentifiedImageError

from shared.domain.documents import Limits
from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode
from shared.domain.retry import FailureKind
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


class ImagePreparer:
    """Prepares images, a few at a time. Safe to share between threads."""

    def __init__(self, threads: int, max_pixels: int) -> None:
        """Take how many images may be decoded at once, and how many pixels one may have."""
        self._slots = threading.Semaphore(threads)
        self._max_pixels = max_pixels

    def prepare(self, content: bytes, limits: Limits) -> PreparedImage:
        """The image as the provider takes it.

        Raises:
            ProviderError: `bad_input`, nothing was sent: the image can't be read, or can't be made to fit.
        """
        with self._slots:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", Image.DecompressionBombWarning)
                    return self._prepare(content, limits)
            except (
                OSError,
                SyntaxError,
                ValueError,
                UnidentifiedImageError,
                Image.DecompressionBombError,
                Image.DecompressionBombWarning,
            ) as error:
                raise _unusable(f"the image can't be decoded ({type(error).__name__})") from error

    def _prepare(self, content: bytes, limits: Limits) -> PreparedImage:
        with Image.open(io.BytesIO(content), formats=READABLE_FORMATS) as image:
            if image.width * image.height > self._max_pixels:
                raise _unusable("the image has too many pixels")
            if _is_fine(image, content, limits):
                return PreparedImage(content, image.width, image.height)
            image.draft("RGB", (limits.long_side, limits.long_side))
            upright = ImageOps.exif_transpose(image)
            return _compress(_flatten(upright), limits)


def _unusable(detail: str) -> ProviderError:
    return ProviderError(FailureKind.BAD_INPUT, detail, error_code=JobErrorCode.IMAGE_REJECTED, called=False)


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
        raise _unusable("the image is too small")
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
    raise _unusable("the image can't be made to fit")
