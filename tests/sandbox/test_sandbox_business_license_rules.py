"""Business license: from lines to fields, both forms."""

from typing import Any

import pytest

from sandbox.documents.business_license import KEYS, BusinessLicense, answer_business_license, read_business_license
from sandbox.page import Page
from sandbox.quality import Quality
from tests.sandbox.support import MakePage

SHARP = Quality(sharpness=500, brightness=128, contrast=60)
HEAD = [("营业执照", 620, 120, 400, 100), ("统一社会信用代码", 80, 170, 230), ("91999999MA0000000K", 80, 215, 310)]


def read_license(page: Page) -> BusinessLicense:
    license_read = read_business_license(page)
    assert license_read is not None
    return license_read


def answer(page: Page, flags: dict[str, bool]) -> Any:
    return answer_business_license(read_license(page), page, SHARP, flags=flags)


def texts(license_read: BusinessLicense) -> dict[str, str]:
    return {key: words.text for key, words in license_read.fields.items()}


@pytest.fixture
def landscape(make_page: MakePage) -> Page:
    """The form since 2019; rows of the right column stand a little lower than those of the left."""
    return make_page(
        *HEAD, ("名称", 100, 380, 120), ("样例科技有限公司", 270, 380, 230), ("类型", 100, 450, 120),
        ("有限责任公司（自然人独资）", 270, 450, 330), ("法定代表人", 100, 520, 145), ("测样丽", 270, 520, 90),
        ("经营范围", 100, 590, 135), ("软件开发、技术服务、", 270, 590, 550), ("类型设计、", 270, 632, 550),
        ("数据处理。", 270, 674, 200), ("注册资本", 900, 388, 140), ("壹佰万元整", 1070, 388, 145),
        ("成立日期", 900, 458, 140), ("2020年01月02日", 1070, 458, 210), ("营业期限", 900, 528, 140),
        ("长期", 1070, 528, 60), ("住所", 900, 598, 115), ("样例省样例市样例路1号", 1070, 598, 470),
        ("样例大厦301室", 1070, 640, 200), ("登记机关", 950, 850, 170), ("2020年01月02日", 1180, 960, 260),
        ("国家企业信用信息公示系统网址", 60, 1050, 470, 22),
    )  # fmt: skip


def test_two_columns_are_kept_apart(landscape: Page) -> None:
    assert texts(read_license(landscape)) == {
        "社会信用代码": "91999999MA0000000K", "单位名称": "样例科技有限公司", "类型": "有限责任公司（自然人独资）",
        "法人": "测样丽", "经营范围": "软件开发、技术服务、类型设计、数据处理。", "注册资本": "壹佰万元整",
        "成立日期": "2020年01月02日", "有效期": "长期", "地址": "样例省样例市样例路1号样例大厦301室",
        "核准日期": "2020年01月02日",
    }  # fmt: skip


def test_portrait_form_is_read(make_page: MakePage) -> None:
    page = make_page(
        ("营业执照", 300, 160, 380, 90), ("统一社会信用代码91999999MA0000000K", 260, 300, 490),
        ("名称", 140, 400, 110), ("样例科技有限公司", 310, 400, 210),
        ("类型", 140, 470, 110), ("有限责任公司", 310, 470, 200),
        ("住所", 140, 540, 110), ("样例路1号", 310, 540, 200), ("法定代表人测样丽", 140, 610, 250),
        ("注册资本", 140, 680, 130), ("壹佰万元整", 310, 680, 140), ("成立日期", 140, 750, 130),
        ("2016年03月08日", 310, 750, 200), ("营业期限", 140, 820, 130),
        ("2016年03月08日至2036年03月07日", 310, 820, 420),
        ("经营范围", 140, 890, 130), ("软件开发、技术服务、技术转让、", 310, 890, 680), ("数据处理。", 310, 926, 200),
        ("登记机关", 560, 1080, 165), ("样张", 740, 1080, 80), ("2016年03月08日", 640, 1220, 260),
    )  # fmt: skip

    assert texts(read_license(page)) == {
        "社会信用代码": "91999999MA0000000K", "单位名称": "样例科技有限公司", "类型": "有限责任公司",
        "地址": "样例路1号", "法人": "测样丽", "注册资本": "壹佰万元整", "成立日期": "2016年03月08日",
        "有效期": "2016年03月08日至2036年03月07日", "经营范围": "软件开发、技术服务、技术转让、数据处理。",
        "核准日期": "2016年03月08日",
    }  # fmt: skip


@pytest.mark.parametrize(
    "label",
    [
        [("名", 100, 380, 30), ("称", 190, 380, 30)],  # the two letters as two lines
        [("称", 190, 380, 30)],  # only one of them seen
    ],
)
def test_label_with_wide_spaces_is_put_together(make_page: MakePage, label: list[tuple[Any, ...]]) -> None:
    page = make_page(
        *HEAD, *label, ("样例科技有限公司", 270, 380, 230), ("法定代表人", 100, 520, 145), ("测样丽", 270, 520, 90)
    )

    assert read_license(page).fields["单位名称"].text == "样例科技有限公司"


@pytest.mark.parametrize(
    ("flags", "expected"), [({}, "有限责任公司(自然人独资)"), ({"fullwidth_shift": True}, "有限责任公司（自然人独资）")]
)
def test_brackets_are_shifted_as_asked(landscape: Page, flags: dict[str, bool], expected: Any) -> None:
    body = answer(landscape, flags)

    assert body["words_result"]["类型"]["words"] == expected


def test_answer_has_every_key_and_says_what_is_absent(landscape: Page) -> None:
    body = answer(landscape, {})

    assert tuple(body["words_result"]) == KEYS
    assert body["words_result_num"] == 15
    assert body["words_result"]["税务登记号"] == {
        "words": "无",
        "location": {"left": -1, "top": -1, "width": 0, "height": 0},
    }


def test_a_letter_head_is_no_license(make_page: MakePage) -> None:
    assert read_business_license(make_page(("名称", 60, 60, 70), ("样例科技有限公司", 170, 60, 200))) is None
