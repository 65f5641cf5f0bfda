"""What intake says of an image from its header alone."""

import io
import tracemalloc
from typing import Any

import pytest
from PIL import Image

from shared.domain.errors import (
    ImageAnimatedError,
    ImageDamagedError,
    ImageEmptyError,
    ImageError,
    ImageFormatError,
    ImagePixelsError,
    ImageTooLargeError,
)
from shared.image_headers import ImageHeader, check_size, read_header
from shared.images import READABLE_FORMATS
from tests.unit.api.pictures import SVG, animation, picture, png_bomb

FORMATS = ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "HEIF"]


def look(content: bytes, max_pixels: int = 100_000_000) -> ImageHeader:
    return read_header(content, max_pixels=max_pixels, short_side=15)


def heif() -> bytes:
    import pillow_heif  # encodes; the decoder under test is pi_heif

    pillow_heif.register_heif_opener()
    return picture("HEIF")


def example(image_format: str) -> bytes:
    return heif() if image_format == "HEIF" else picture(image_format)


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_readable_format_is_accepted_with_its_size(image_format: str) -> None:
    content = example(image_format)

    header = look(content)

    assert header == ImageHeader(image_format, 640, 400)


def test_formats_under_test_are_those_we_read() -> None:
    assert sorted(FORMATS) == sorted(READABLE_FORMATS)


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"comment": b"\xff\xd9 in a comment"}, {"exif": b"Exif\0\0"}]
)
def test_jpeg_variants_are_whole(options: dict[str, Any]) -> None:
    content = picture("JPEG", **options)

    assert look(content).format == "JPEG"


def test_bytes_after_the_end_of_a_jpeg_are_no_damage() -> None:
    content = picture("JPEG") + b"a phone appends a short film here"

    assert look(content).format == "JPEG"


def test_a_photo_with_a_second_view_is_a_jpeg() -> None:
    buffer = io.BytesIO()
    views = [Image.effect_noise((640, 400), 60).convert("RGB") for _ in range(2)]
    views[0].save(buffer, "MPO", save_all=True, append_images=views[1:])

    assert look(buffer.getvalue()) == ImageHeader("JPEG", 640, 400)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.99])
def test_a_file_cut_off_on_its_way_is_damaged(image_format: str, part: float) -> None:
    content = example(image_format)

    with pytest.raises(ImageDamagedError):
        look(content[: int(len(content) * part)])


def test_a_cut_off_jpeg_with_a_whole_thumbnail_is_damaged() -> None:
    thumbnail = picture("JPEG", (32, 32))
    content = picture("JPEG", exif=b"Exif\0\0" + thumbnail)

    with pytest.raises(ImageDamagedError):
        look(content[: len(content) // 2])


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_more_than_one_frame_is_refused(image_format: str) -> None:
    content = animation(image_format)

    with pytest.raises(ImageAnimatedError):
        look(content)


@pytest.mark.parametrize(
    "content",
    [SVG, b"hello", b"%PDF-1.7\n", b"\0" * 100, b"<html></html>", b"x"],
    ids=["svg", "text", "pdf", "zeros", "html", "one byte"],
)
def test_what_is_no_image_is_refused_with_the_formats_we_read(content: bytes) -> None:
    with pytest.raises(ImageFormatError) as caught:
        look(content)

    assert all(name in caught.value.detail for name in READABLE_FORMATS)


def test_a_format_pillow_reads_but_we_do_not_is_refused() -> None:
    content = picture("PPM")

    with pytest.raises(ImageFormatError):
        look(content)


@pytest.mark.parametrize(
    ("size", "is_accepted"),
    [((14, 640), False), ((640, 14), False), ((10, 10), False), ((15, 15), True), ((15, 640), True)],
)
def test_the_short_side_has_a_least_length(size: tuple[int, int], is_accepted: bool) -> None:
    content = picture("PNG", size)

    if is_accepted:
        assert look(content).width == size[0]
    else:
        with pytest.raises(ImagePixelsError):
            look(content)


@pytest.mark.parametrize(
    ("max_pixels", "is_accepted"),
    [(256_000, True), (255_999, False), (100_000, False)],
    ids=["exactly as many", "one too many", "more than twice too many, which Pillow itself refuses"],
)
def test_pixels_are_counted(max_pixels: int, is_accepted: bool) -> None:
    content = picture("PNG")

    if is_accepted:
        assert look(content, max_pixels).width == 640
    else:
        with pytest.raises(ImagePixelsError):
            look(content, max_pixels)


def test_a_bomb_is_refused_from_its_header_and_memory_stays_flat() -> None:
    content = png_bomb(20_000, 20_000)
    tracemalloc.start()

    with pytest.raises(ImagePixelsError):
        look(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1_000_000


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow says what it thinks of a broken header
def test_every_prefix_of_an_image_is_an_answer_and_not_a_crash() -> None:
    for image_format in FORMATS:
        content = example(image_format)
        for length in range(0, 400, 7):
            with pytest.raises(ImageError):
                look(content[:length])


@pytest.mark.parametrize(
    ("size_bytes", "error"), [(0, ImageEmptyError), (1001, ImageTooLargeError)], ids=["empty", "too large"]
)
def test_the_number_of_bytes_has_bounds(size_bytes: int, error: type[ImageError]) -> None:
    with pytest.raises(error):
        check_size(size_bytes, 1000)


def test_exactly_the_most_bytes_are_accepted() -> None:
    check_size(1000, 1000)
