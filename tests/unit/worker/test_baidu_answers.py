"""Baidu's success answers in our words, and success shapes that are none."""

from typing import Any

import pytest

from shared.domain.documents import DOCUMENT_TYPES
from shared.domain.errors import ProviderError
from shared.domain.result import FieldStatus, Recognition
from worker.providers.baidu_fields import read_answer
from worker.providers.protocol import PreparedImage

IMAGE = PreparedImage(b"", width=1000, height=500)


def words(**entries: str) -> dict[str, Any]:
    place = {"left": 100, "top": 50, "width": 200, "height": 25}
    return {key: {"words": text, "location": place} for key, text in entries.items()}


FRONT = {
    "log_id": 1790000000000000001,
    "words_result_num": 6,
    "words_result": words(
        姓名="测样丽", 性别="女", 民族="汉", 出生="19900307", 住址="样例路1号", 公民身份号码="99999919900307002 0"
    ),
    "image_status": "normal",
    "idcard_number_type": 1,
}
BACK = {
    "log_id": "1790000000000000002",
    "words_result": words(签发机关="样例市公安局", 签发日期="20150612", 失效日期="长期"),
    "image_status": "normal",
}
CARD = {
    "log_id": 1790000000000000010,
    "result": {
        "bank_card_number": "6222 0200 0000 0000 018",
        "valid_date": "07/31",
        "bank_card_type": 1,
        "bank_name": "样例银行",
        "holder_name": "",
        "bank_card_number_location": {"left": 0, "top": 250, "width": 500, "height": 50},
    },
}
NOTHING = {"words": "无", "location": {"left": -1, "top": -1, "width": 0, "height": 0}}
LICENSE = {
    "log_id": 1790000000000000020,
    "words_result_num": 3,  # one less than there are, as the vendor's own sample has it
    "words_result": {
        **words(
            社会信用代码="91999999MA0000000K", 单位名称="样例科技有限公司", 有效期="2020年01月02日至2040年01月01日"
        ),
        "实收资本": NOTHING,
    },
}


def read(answer: dict[str, Any], document_type: str, **options: object) -> Recognition:
    document = DOCUMENT_TYPES[document_type]
    return read_answer(answer, document, document.validate_options(options), IMAGE)


def values(recognition: Recognition) -> dict[str, str | None]:
    return {name: field.value for name, field in recognition.fields.items()}


def failure(answer: dict[str, Any], document_type: str, **options: object) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        read(answer, document_type, **options)
    return caught.value


def test_a_front_is_normalized() -> None:
    found = read(FRONT, "id_card")

    assert values(found) == {
        "name": "测样丽",
        "sex": "女",
        "ethnicity": "汉",
        "birth_date": "1990-03-07",
        "address": "样例路1号",
        "id_number": "999999199003070020",
    }
    assert found.upstream_log_id == "1790000000000000001"
    assert found.fields["birth_date"].text == "19900307"
    assert found.fields["name"].confidence is None  # the vendor gives none


def test_long_term_is_a_date_without_an_end() -> None:
    found = read(BACK, "id_card", side="back")

    assert found.fields["expiry_date"].value is None
    assert found.fields["expiry_date"].status is FieldStatus.LONG_TERM
    assert found.upstream_log_id == "1790000000000000002"


def test_a_bank_card_is_normalized() -> None:
    found = read(CARD, "bank_card")

    assert values(found) == {
        "bank_name": "样例银行",
        "card_number": "6222020000000000018",
        "card_type": "debit",
        "expiry_date": "2031-07",
        "holder_name": None,
    }


@pytest.mark.parametrize(
    ("number", "card_type"), [(0, None), (1, "debit"), (2, "credit"), (3, "quasi_credit"), (4, "prepaid"), (9, None)]
)
def test_card_types(number: int, card_type: str | None) -> None:
    answer = {"result": {**CARD["result"], "bank_card_type": number}}  # type: ignore[dict-item]

    assert values(read(answer, "bank_card"))["card_type"] == card_type


def test_no_expiry_on_the_card_is_null() -> None:
    answer = {"result": {**CARD["result"], "valid_date": "NO VALID"}}  # type: ignore[dict-item]

    assert read(answer, "bank_card").fields["expiry_date"].status is FieldStatus.ABSENT


def test_what_a_license_does_not_have_is_null_and_has_no_place() -> None:
    found = read(LICENSE, "business_license")

    assert found.fields["paid_in_capital"].status is FieldStatus.ABSENT
    assert found.fields["paid_in_capital"].polygon is None
    assert found.fields["valid_until"].value == "2040-01-01"
    assert found.fields["legal_representative"].value is None


def test_places_are_fractions_of_the_image() -> None:
    polygon = read(FRONT, "id_card").fields["name"].polygon

    assert polygon == ((0.1, 0.1), (0.3, 0.1), (0.3, 0.15), (0.1, 0.15))


def test_a_text_that_is_no_date_is_kept_and_told() -> None:
    answer = {**FRONT, "words_result": words(姓名="测样丽", 出生="19901341")}

    field = read(answer, "id_card").fields["birth_date"]

    assert (field.value, field.text, field.status) == (None, "19901341", FieldStatus.UNPARSED)


@pytest.mark.parametrize(
    ("status", "fields", "code"),
    [
        ("non_idcard", {}, "not_an_id_card"),
        ("reversed_side", {"姓名": "测样丽"}, "wrong_side"),  # it was read, but not what was asked for
        ("other_type_card", {}, "other_card_type"),
        ("blurred", {}, "blurred"),
        ("over_exposure", {}, "over_exposed"),
        ("over_dark", {}, "too_dark"),
        ("not_complete", {}, "incomplete"),
        ("unknown", {}, "not_an_id_card"),
        ("normal", {"民族": "汉"}, "nothing_found"),  # none of the fields asked for
    ],
)
def test_a_success_that_is_no_card_is_a_failure(status: str, fields: dict[str, str], code: str) -> None:
    error = failure({"image_status": status, "words_result": words(**fields), "log_id": 7}, "id_card")

    assert error.error_code == code
    assert (error.billed, error.upstream_log_id) == (True, "7")


def test_a_blurred_card_that_could_be_read_is_a_result() -> None:
    assert values(read({**FRONT, "image_status": "blurred"}, "id_card"))["name"] == "测样丽"


@pytest.mark.parametrize(
    ("answer", "document_type"),
    [
        ({"words_result": {"单位名称": NOTHING}}, "business_license"),
        ({"words_result": []}, "business_license"),
        ({}, "id_card"),
        ({"result": {"bank_card_number": "", "bank_name": "", "bank_card_type": 0}}, "bank_card"),
        ({"result": "nonsense"}, "bank_card"),
    ],
)
def test_an_empty_success_is_a_failure(answer: dict[str, Any], document_type: str) -> None:
    assert failure(answer, document_type).error_code in {
        "not_a_business_license",
        "not_an_id_card",
        "not_a_bank_card",
        "nothing_found",
    }


def test_portraits_are_not_kept() -> None:
    found = read({**FRONT, "photo": "base64", "card_image": "base64"}, "id_card")

    assert "photo" not in found.raw
    assert "card_image" not in found.raw


def test_quality_and_risk_are_given_when_asked_for() -> None:
    quality = {"IsClear": 1, "IsClear_propobility": 0.98, "IsComplete": 0, "IsComplete_propobility": 0.4}

    found = read({**FRONT, "card_quality": quality, "risk_type": "copy"}, "id_card")

    assert found.quality == {
        "clear": {"passed": True, "probability": 0.98},
        "complete": {"passed": False, "probability": 0.4},
    }
    assert found.risk == {"type": "copy", "edit_tool": None}
