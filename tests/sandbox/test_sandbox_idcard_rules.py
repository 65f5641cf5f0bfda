"""ID card: from lines to fields."""

from typing import Any

import pytest

from sandbox.documents.idcard import IdCard, number_type, read_id_card
from sandbox.page import Page, Words
from tests.sandbox.support import MakePage


def read_card(page: Page) -> IdCard:
    card = read_id_card(page)
    assert card is not None
    return card


def texts(card: IdCard) -> dict[str, str]:
    return {key: words.text for key, words in card.fields.items()}


def test_front_is_read_with_its_address_joined(front_page: Page) -> None:
    card = read_card(front_page)

    assert card.side == "front"
    assert texts(card) == {
        "姓名": "测样丽", "性别": "女", "民族": "汉", "出生": "19900307",
        "住址": "样例省样例市样例区样例路1号样例小区2栋301室", "公民身份号码": "999999199003070020",
    }  # fmt: skip


def test_location_covers_all_lines_of_a_field(front_page: Page) -> None:
    card = read_card(front_page)

    assert card.fields["住址"].location == {"left": 170, "top": 300, "width": 400, "height": 78}


@pytest.mark.parametrize(
    "rows",
    [
        # every label run together with its value
        [("姓名测样丽", 60, 60, 220), ("性别女民族汉", 60, 140, 400), ("出生1990年3月7日", 60, 220, 440),
         ("住址样例省样例市", 60, 300, 400), ("公民身份号码999999199003070020", 60, 530, 690)],
        # the number in groups, the birth date in pieces, the people's label with its value
        [("姓名", 60, 60, 70), ("测样丽", 170, 60, 110), ("性别", 60, 140, 70), ("女", 170, 140, 34),
         ("民族汉", 320, 140, 130), ("出生", 60, 220, 70), ("1990", 170, 220, 80), ("年", 260, 220, 30),
         ("3", 310, 220, 20), ("月", 350, 220, 30), ("7", 400, 220, 20), ("日", 440, 220, 30), ("住址", 60, 300, 70),
         ("样例省样例市", 170, 300, 220), ("公民身份号码", 60, 530, 190), ("999999", 330, 530, 130),
         ("19900307", 470, 530, 170), ("0020", 650, 530, 90)],
        # the labels of name and address were not read, and something is read in the portrait
        [("姓名测样丽", 60, 60, 220), ("●", 730, 60, 100, 90), ("性别女", 60, 140, 160), ("民族漢", 320, 140, 130),
         ("出生1990年3月7日", 60, 220, 440), ("样例省样例市", 170, 300, 220), ("◎", 760, 300, 60),
         ("公民身份号码", 60, 530, 190), ("999999199003070020", 330, 530, 420)],
    ],
)  # fmt: skip
def test_lines_may_be_merged_or_split(make_page: MakePage, rows: list[tuple[Any, ...]]) -> None:
    card = read_card(make_page(*rows))

    assert texts(card) == {
        "姓名": "测样丽", "性别": "女", "民族": "汉", "出生": "19900307", "住址": "样例省样例市",
        "公民身份号码": "999999199003070020",
    }  # fmt: skip


def test_address_of_three_lines_leaves_out_print_in_the_portrait(make_page: MakePage, front_page: Page) -> None:
    page = make_page(
        ("姓名测样丽", 60, 60, 220), ("性别女民族汉", 60, 140, 400), ("出生1990年3月7日", 60, 220, 440),
        ("住址", 60, 300, 70), ("样例省样例市", 170, 300, 300), ("样例区", 170, 345, 300), ("O", 760, 345, 60),
        ("样例路1号", 170, 390, 160), ("公民身份号码999999199003070020", 60, 530, 690),
    )  # fmt: skip

    assert read_card(page).fields["住址"].text == "样例省样例市样例区样例路1号"


def test_place_of_a_merged_value_is_its_own_part_of_the_line(make_page: MakePage) -> None:
    page = make_page(
        ("姓名测样丽", 100, 60, 250), ("性别女民族汉", 60, 140, 400), ("出生1990年3月7日", 60, 220, 440),
        ("公民身份号码999999199003070020", 60, 530, 690),
    )  # fmt: skip

    assert read_card(page).fields["姓名"].location == {"left": 200, "top": 60, "width": 150, "height": 30}


def test_people_with_a_long_name_is_read_whole(make_page: MakePage) -> None:
    page = make_page(
        ("姓名测样丽", 60, 60, 220), ("性别女民族维吾尔", 60, 140, 400), ("出生1990年3月7日", 60, 220, 440),
        ("公民身份号码999999199003070020", 60, 530, 690),
    )  # fmt: skip

    assert read_card(page).fields["民族"].text == "维吾尔"


@pytest.mark.parametrize(
    ("validity", "issued", "expires"),
    [
        ("2015.06.12-2035.06.12", "20150612", "20350612"),
        ("2015.06.12-长期", "20150612", "长期"),
        # dots and dash as the model may see them
        ("2015,06.12一2035.0612", "20150612", "20350612"),
    ],
)
def test_back_is_read(make_page: MakePage, validity: str, issued: str, expires: str) -> None:
    page = make_page(
        ("中华人民共和国", 290, 70, 450, 70), ("居民身份证", 310, 170, 430, 80), ("签发机关", 220, 440, 130),
        ("样例市公安局", 390, 440, 220), ("样例分局", 390, 480, 140), ("有效期限", 220, 530, 130),
        (validity, 390, 530, 360),
    )  # fmt: skip

    card = read_card(page)

    assert card.side == "back"
    assert texts(card) == {"签发机关": "样例市公安局样例分局", "签发日期": issued, "失效日期": expires}


def test_other_papers_with_a_name_are_no_id_card(make_page: MakePage) -> None:
    driving_license = make_page(
        ("姓名测样丽", 60, 60, 220), ("性别女国籍中国", 60, 140, 300), ("住址样例路1号", 60, 200, 300)
    )
    bank_card = make_page(("样例银行", 60, 60, 200), ("6222020000000000018", 60, 330, 700))

    assert read_id_card(driving_license) is None
    assert read_id_card(bank_card) is None


@pytest.mark.parametrize(
    ("number", "birth", "sex", "expected"),
    [
        ("999999199003070020", "19900307", "女", 1),  # all agree
        ("999999199003070020", "19900308", "男", 2),  # neither agrees
        ("999999199003070020", "19900308", "女", 3),  # the birth date disagrees
        ("999999199003070020", "19900307", "男", 4),  # the sex disagrees
        ("999999199003070021", "19900307", "女", 0),  # wrong check character
        ("999999199013070020", "19900307", "女", 0),  # no such month
        ("", "19900307", "女", 0),  # no number
    ],
)
def test_number_type_says_what_disagrees(front_page: Page, number: str, birth: str, sex: str, expected: Any) -> None:
    fields = dict(read_card(front_page).fields) | {
        "公民身份号码": Words(number), "出生": Words(birth), "性别": Words(sex),
    }  # fmt: skip

    assert number_type(fields) == expected


def test_number_type_of_an_empty_front_is_minus_one(front_page: Page) -> None:
    assert number_type(dict.fromkeys(read_card(front_page).fields, Words(""))) == -1
