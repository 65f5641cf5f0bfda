"""The real reader on the sample pictures, as they are and maltreated."""

import base64
import io
import json
from collections.abc import Callable
from datetime import date
from typing import Any, Protocol

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from sandbox.accounts import Account
from sandbox.app import SandboxConfig, create_app
from sandbox.reader import PaddleReader
from tests.sandbox.support import SAMPLES, FetchToken

pytestmark = pytest.mark.slow

ENDPOINTS = {"id_card": "idcard", "bank_card": "bankcard", "business_license": "business_license"}
EXPECTED: list[dict[str, Any]] = json.loads((SAMPLES / "expected.json").read_text("utf-8"))
FRONT, BACK = "id_front_desk.jpg", "id_back_desk.jpg"
CARD_TYPES = {"debit": 1, "credit": 2}
KEYS = {
    "id_card": {
        "name": "姓名", "sex": "性别", "ethnicity": "民族", "birth_date": "出生", "address": "住址",
        "id_number": "公民身份号码", "issuing_authority": "签发机关",
        "issue_date": "签发日期", "expiry_date": "失效日期",
    },
    "business_license": {
        "credit_code": "社会信用代码", "company_name": "单位名称", "company_type": "类型",
        "legal_representative": "法人", "address": "地址", "registered_capital": "注册资本",
        "established_on": "成立日期", "business_scope": "经营范围",
    },
}  # fmt: skip


class Read(Protocol):
    """Send a picture to an endpoint; the body of the answer."""

    def __call__(
        self, image: Image.Image, endpoint: str = "idcard", *, file_format: str = "JPEG", **form: str
    ) -> dict[str, Any]: ...


@pytest.fixture
def read(paddle_reader: PaddleReader, fetch_token: FetchToken) -> Read:
    """Send pixels (RGB) to an endpoint; the body of the answer."""
    app = create_app(SandboxConfig((Account("test-key", "test-secret", qps=1000),)), paddle_reader)
    client = app.test_client()

    def send(image: Image.Image, endpoint: str = "idcard", *, file_format: str = "JPEG", **form: str) -> dict[str, Any]:
        buffer = io.BytesIO()
        image.save(buffer, file_format, quality=92, exif=image.info.get("exif", b""))
        if endpoint == "idcard":
            form.setdefault("id_card_side", "front")
        form["image"] = base64.b64encode(buffer.getvalue()).decode()
        query = {"access_token": fetch_token(client)}
        body: dict[str, Any] = client.post(f"/rest/2.0/ocr/v1/{endpoint}", query_string=query, data=form).get_json()
        return body

    return send


def sample(name: str) -> Image.Image:
    """A sample as a careful client sends it: upright, no larger than the endpoint takes."""
    with Image.open(SAMPLES / name) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.info.pop("exif", None)
    upright.thumbnail((3000, 3000))
    return upright


def expected(name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry for entry in EXPECTED if entry["file"] == name)
    return found


def words(body: dict[str, Any]) -> dict[str, str]:
    return {key: value["words"] for key, value in body["words_result"].items()}


def as_printed(document_type: str, field: str, value: str) -> str:
    try:
        day = date.fromisoformat(value)
    except ValueError:
        return value
    return f"{day:%Y%m%d}" if document_type == "id_card" else f"{day:%Y年%m月%d日}"


def warp(image: Image.Image, corners: list[tuple[float, float]]) -> Image.Image:
    """The picture as seen on a table: its corners moved to fractions of a frame of the same size."""
    width, height = image.size
    source = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    target = np.array([(x * width, y * height) for x, y in corners], np.float32)
    matrix = cv2.getPerspectiveTransform(source, target)
    warped = cv2.warpPerspective(np.asarray(image), matrix, (width, height), borderValue=(92, 88, 84))
    return Image.fromarray(warped)


def assert_front_is_right(body: dict[str, Any], name: str = FRONT) -> None:
    fields = expected(name)["fields"]
    assert words(body) == {
        KEYS["id_card"][field]: as_printed("id_card", field, value) for field, value in fields.items()
    }
    assert (body["image_status"], body["idcard_number_type"]) == ("normal", 1)


def test_samples_are_there() -> None:
    assert len(EXPECTED) >= 8


@pytest.mark.parametrize("entry", EXPECTED, ids=lambda entry: entry["file"])
def test_every_field_of_a_sample_is_read(read: Read, entry: dict[str, Any]) -> None:
    document_type = entry["document_type"]
    side = {"id_card_side": entry["options"]["side"]} if document_type == "id_card" else {}

    body = read(sample(entry["file"]), ENDPOINTS[document_type], **side)

    if document_type == "bank_card":
        fields, result = entry["fields"], body["result"]
        assert result["bank_card_number"].replace(" ", "") == fields["card_number"]
        assert result["bank_name"] == fields["bank_name"]
        assert result["bank_card_type"] == CARD_TYPES[fields["card_type"]]
        assert result["holder_name"] == (fields.get("holder_name") or "")
        if fields.get("expiry_date"):
            assert result["valid_date"] == f"{fields['expiry_date'][5:7]}/{fields['expiry_date'][2:4]}"
        return
    read_words = words(body)
    for field, key in KEYS[document_type].items():
        if value := entry["fields"].get(field):
            assert read_words[key] == as_printed(document_type, field, value)


@pytest.mark.parametrize(
    "turn", [(Image.Transpose.ROTATE_90, 1), (Image.Transpose.ROTATE_180, 2), (Image.Transpose.ROTATE_270, 3)]
)
def test_turned_picture_is_read_and_its_direction_told(read: Read, turn: tuple[Image.Transpose, int]) -> None:
    transpose, direction = turn

    body = read(sample(FRONT).transpose(transpose), detect_direction="true")

    assert_front_is_right(body)
    assert body["direction"] == direction


def test_location_is_in_the_pixels_sent(read: Read) -> None:
    image = sample(FRONT)
    upright = read(image)["words_result"]["公民身份号码"]["location"]
    turned = read(image.transpose(Image.Transpose.ROTATE_90))["words_result"]["公民身份号码"]["location"]

    # Turned left, x becomes the distance from the bottom, and y that from the old right edge.
    assert turned["left"] == pytest.approx(upright["top"], abs=20)
    assert turned["top"] == pytest.approx(image.width - upright["left"] - upright["width"], abs=20)
    assert turned["width"] == pytest.approx(upright["height"], abs=20)


def test_exif_orientation_is_ignored(read: Read) -> None:
    with Image.open(SAMPLES / "id_front_exif.jpg") as image:
        assert image.getexif()[0x0112] != 1

        body = read(image, detect_direction="true")

    assert_front_is_right(body, "id_front_exif.jpg")
    assert body["direction"] != 0


@pytest.mark.parametrize(
    "corners",
    [
        [(0.05, 0.1), (0.95, 0.02), (0.98, 0.93), (0.02, 0.98)],  # a little from the side
        [(0.16, 0.12), (0.84, 0.12), (1.0, 0.95), (0.0, 0.95)],  # from below
        [(0.02, 0.2), (0.9, 0.02), (0.98, 0.8), (0.1, 0.98)],  # turned by about ten degrees
        [(0.25, 0.3), (0.75, 0.24), (0.78, 0.72), (0.22, 0.76)],  # from afar
    ],
)
def test_slanted_photo_is_read(read: Read, corners: list[tuple[float, float]]) -> None:
    assert_front_is_right(read(warp(sample(FRONT), corners)))


@pytest.mark.parametrize("name", ["license_landscape.jpg", "license_portrait.png"])
@pytest.mark.parametrize(
    "corners",
    [
        [(0.03, 0.06), (0.97, 0.02), (0.98, 0.95), (0.02, 0.98)],
        [(0.04, 0.12), (0.93, 0.02), (0.98, 0.88), (0.08, 0.98)],
    ],
)
def test_slanted_license_is_read(read: Read, name: str, corners: list[tuple[float, float]]) -> None:
    fields = expected(name)["fields"]

    read_words = words(read(warp(sample(name), corners), "business_license"))

    for field in ("credit_code", "company_name", "legal_representative", "address"):
        assert read_words[KEYS["business_license"][field]] == fields[field]


def test_other_side_is_read(read: Read) -> None:
    body = read(sample(BACK), id_card_side="front")

    assert body["image_status"] == "reversed_side"
    assert words(body)["签发机关"] == expected(BACK)["fields"]["issuing_authority"]


def test_other_document_is_told(read: Read) -> None:
    assert read(sample("license_landscape.jpg"))["image_status"] == "non_idcard"
    assert read(sample(FRONT), "bankcard")["error_code"] == 216631
    assert read(sample(FRONT), "business_license")["error_code"] == 282102


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        (lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 40), "blurred"),
        (lambda pixels: (pixels * 0.02).astype(np.uint8), "over_dark"),
        (lambda pixels: np.clip(pixels.astype(np.float32) + 235, 0, 255).astype(np.uint8), "over_exposure"),
    ],
)
def test_unreadable_picture_says_why(read: Read, spoil: Callable[[Any], Any], status: Any) -> None:
    spoiled = Image.fromarray(spoil(np.asarray(sample(FRONT))))

    assert read(spoiled)["image_status"] == status


def test_general_text_is_read_line_by_line(read: Read) -> None:
    body = read(sample(BACK), "general_basic", probability="true")

    lines = [entry["words"] for entry in body["words_result"]]
    assert body["words_result_num"] == len(lines)
    assert any("居民身份证" in text.replace(" ", "") for text in lines)
    assert 0.5 <= body["words_result"][0]["probability"]["average"] <= 1
