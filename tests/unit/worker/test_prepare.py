"""Any photo becomes something the provider takes."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_plus

import pytest
from PIL import Image

from shared.domain.documents import DOCUMENT_TYPES, Limits
from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode
from shared.domain.retry import FailureKind
from shared.images import load_formats
from tests.factories import make_picture
from worker.decoding import ImagePreparer
from worker.prepare import encoded_size

LIMITS = DOCUMENT_TYPES["id_card"].limits
_ORIENTATION, _TURN_RIGHT = 0x0112, 6
_GPS = 0x8825


@pytest.fixture(autouse=True, scope="module")
def _formats() -> None:
    load_formats(100_000_000)


@pytest.fixture(scope="module")
def preparer() -> Iterator[ImagePreparer]:
    made = ImagePreparer(processes=1, max_pixels=50_000_000, seconds=60, memory_bytes=2_000_000_000)
    yield made
    made.close()


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def opened(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content))
    image.load()
    return image


def sixteen_bit_png(width: int, height: int) -> bytes:
    """Red, 16 bits a channel, which Pillow reads but cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = (b"\0" + struct.pack(">HHH", 65_535, 0, 0) * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP"])
def test_bytes_that_are_fine_pass_unchanged(preparer: ImagePreparer, image_format: str) -> None:
    content = make_picture(image_format=image_format)

    prepared = preparer.prepare(content, LIMITS)

    assert prepared.content is content
    assert (prepared.width, prepared.height) == (640, 400)


def test_exif_is_turned_into_pixels_and_gone(preparer: ImagePreparer) -> None:
    exif = Image.Exif()
    exif[_ORIENTATION] = _TURN_RIGHT
    content = make_picture((600, 400), exif=exif)

    prepared = preparer.prepare(content, LIMITS)

    assert (prepared.width, prepared.height) == (400, 600)
    assert opened(prepared.content).size == (400, 600)
    assert dict(opened(prepared.content).getexif()) == {}


def test_the_place_where_a_photo_was_taken_is_not_sent(preparer: ImagePreparer) -> None:
    exif = Image.Exif()
    exif[_ORIENTATION] = 1
    exif.get_ifd(_GPS)[1] = "N"
    content = make_picture(exif=exif)

    prepared = preparer.prepare(content, LIMITS)

    assert b"Exif" not in prepared.content


# Names of places beside EXIF: what the camera says of itself, and Adobe's XMP.
@pytest.mark.parametrize("options", [{"comment": b"desk 7"}, {"xmp": b"<x:xmpmeta>desk 7</x:xmpmeta>"}])
@pytest.mark.parametrize("orientation", [None, 3])
def test_what_else_a_photo_tells_is_not_sent(
    preparer: ImagePreparer, options: dict[str, Any], orientation: int | None
) -> None:
    exif = Image.Exif()
    if orientation:
        exif[_ORIENTATION] = orientation
    content = make_picture(exif=exif, **options)
    assert b"desk 7" in content

    prepared = preparer.prepare(content, LIMITS)

    assert b"desk 7" not in prepared.content


def test_sixteen_bit_color_is_not_sent_as_it_is(preparer: ImagePreparer) -> None:
    prepared = preparer.prepare(sixteen_bit_png(300, 200), LIMITS)

    result = opened(prepared.content)
    assert (result.format, result.size) == ("JPEG", (300, 200))
    assert result.getpixel((150, 100)) == pytest.approx((255, 0, 0), abs=8)


@pytest.mark.parametrize(
    ("image", "image_format", "options"),
    [
        (Image.new("RGB", (300, 200), "red"), "WEBP", {"lossless": True}),
        (Image.new("RGB", (300, 200), "red"), "TIFF", {}),
        (Image.new("RGB", (300, 200), "red"), "GIF", {}),
        (Image.new("CMYK", (300, 200), (0, 255, 255, 0)), "JPEG", {}),
        (Image.new("CMYK", (300, 200), (0, 255, 255, 0)), "TIFF", {}),
        (Image.new("RGBA", (300, 200), (255, 0, 0, 255)), "PNG", {}),
        (Image.new("RGB", (300, 200), "red").quantize(4), "PNG", {"transparency": 3}),
    ],
    ids=["webp", "tiff", "gif", "cmyk-jpeg", "cmyk-tiff", "alpha", "palette-with-transparency"],
)
def test_what_the_provider_does_not_take_becomes_a_baseline_jpeg(
    preparer: ImagePreparer, image: Image.Image, image_format: str, options: dict[str, object]
) -> None:
    prepared = preparer.prepare(saved(image, image_format, **options), LIMITS)

    result = opened(prepared.content)
    red, green, blue = result.getpixel((150, 100))  # type: ignore[misc]
    assert (result.format, result.mode, result.size) == ("JPEG", "RGB", (300, 200))
    assert "progressive" not in result.info
    assert red > 200
    assert green < 60
    assert blue < 60


def test_what_is_transparent_becomes_white(preparer: ImagePreparer) -> None:
    content = saved(Image.new("RGBA", (300, 200), (0, 0, 0, 0)), "PNG")

    prepared = preparer.prepare(content, LIMITS)

    assert min(opened(prepared.content).getpixel((150, 100))) > 250  # type: ignore[arg-type]


def test_sixteen_bits_keep_their_contrast(preparer: ImagePreparer) -> None:
    image = Image.new("I;16", (300, 200), 1000)
    image.paste(60_000, (0, 0, 150, 200))

    prepared = preparer.prepare(saved(image, "PNG"), LIMITS)

    result = opened(prepared.content).convert("L")
    assert result.getpixel((50, 100)) > 240  # type: ignore[operator]
    assert result.getpixel((250, 100)) < 15  # type: ignore[operator]


def test_too_many_pixels_on_a_side_are_scaled_down(preparer: ImagePreparer) -> None:
    prepared = preparer.prepare(make_picture((5000, 1000)), LIMITS)

    assert (prepared.width, prepared.height) == (4096, 819)


def test_what_is_too_large_once_encoded_is_made_to_fit(preparer: ImagePreparer) -> None:
    noise = Image.frombytes("RGB", (800, 600), random.Random(1).randbytes(800 * 600 * 3))
    limits = Limits(encoded_bytes=100_000, short_side=15, long_side=4096)

    prepared = preparer.prepare(saved(noise, "PNG"), limits)

    assert encoded_size(prepared.content) <= 100_000
    assert opened(prepared.content).format == "JPEG"


@pytest.mark.parametrize(
    "content",
    [
        make_picture()[:700],  # cut off
        make_picture(image_format="PNG")[:200],
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"not an image",
        b"",
        make_picture((10, 10)),  # too small for anybody to read
    ],
    ids=["cut-jpeg", "cut-png", "svg", "text", "nothing", "10px"],
)
def test_what_cannot_be_used_is_bad_input_and_was_not_sent(preparer: ImagePreparer, content: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        preparer.prepare(content, Limits(8_000_000, 15, 4096, formats=()))

    assert caught.value.kind is FailureKind.BAD_INPUT
    assert caught.value.error_code is JobErrorCode.IMAGE_REJECTED
    assert not caught.value.called


def test_a_picture_with_too_many_pixels_is_not_decoded() -> None:
    preparer = ImagePreparer(processes=1, max_pixels=1000, seconds=60, memory_bytes=2_000_000_000)

    with pytest.raises(ProviderError, match="pixels"):
        preparer.prepare(make_picture(), LIMITS)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 57, 1000])
def test_the_encoded_size_is_what_goes_over_the_wire(length: int) -> None:
    import base64

    content = random.Random(length).randbytes(length)

    assert encoded_size(content) == len(quote_plus(base64.b64encode(content)))
