"""Bank card: from lines to fields."""

from typing import Any

import pytest

from sandbox.documents.bankcard import BankCard, answer_bank_card, read_bank_card
from sandbox.page import Page
from sandbox.quality import Quality
from tests.sandbox.support import MakePage

SHARP = Quality(sharpness=500, brightness=128, contrast=60)


def read_card(page: Page) -> BankCard:
    card = read_bank_card(page)
    assert card is not None
    return card


def result(page: Page) -> Any:
    return answer_bank_card(read_card(page), page, SHARP, flags={})["result"]


def page_with(make_page: MakePage, *rows: tuple[Any, ...]) -> Page:
    return make_page(("样例银行", 60, 50, 200, 50), *rows)


@pytest.mark.parametrize(
    ("rows", "digits", "grouped"),
    [
        # 16 digits, one line
        ([("9999 9904 3781 5265", 90, 330, 700)], "9999990437815265", "9999 9904 3781 5265"),
        # 19 digits in lines of their own
        (
            [("999999", 90, 330, 200), ("1203456780167", 310, 332, 500)],
            "9999991203456780167",
            "9999 9912 0345 6780 167",
        ),
        # ungrouped, letters taken for digits
        ([("99999904378l5265", 90, 330, 700)], "9999990437815265", "9999 9904 3781 5265"),
    ],
)
def test_number_is_read_and_grouped(
    make_page: MakePage, rows: list[tuple[Any, ...]], digits: str, grouped: str
) -> None:
    page = page_with(make_page, *rows)

    card = read_card(page)

    assert card.number.text == digits
    assert result(page)["bank_card_number"] == grouped


def test_the_number_with_a_right_check_digit_wins(make_page: MakePage) -> None:
    page = page_with(make_page, ("40088000000000000", 60, 580, 300, 16), ("9999990437815265", 90, 330, 700))

    assert read_card(page).number.text == "9999990437815265"


@pytest.mark.parametrize(
    ("print_on_card", "expected"),
    [
        ("借记卡", 1),
        ("储蓄卡", 1),
        ("DEBIT", 1),
        ("信用卡", 2),
        ("贷记卡", 2),
        ("准贷记卡", 3),
        ("预付费卡", 4),
        ("金卡", 0),
    ],
)
def test_card_type_follows_the_words_on_it(make_page: MakePage, print_on_card: str, expected: Any) -> None:
    page = page_with(make_page, ("9999990437815265", 90, 330, 700), (print_on_card, 780, 60, 110))

    assert read_card(page).card_type == expected


def test_rest_of_the_card_is_read(make_page: MakePage) -> None:
    page = page_with(
        make_page, ("9999990437815265", 90, 330, 700), ("VALID THRU", 390, 440, 90, 20), ("07/31", 500, 440, 110),
        ("CE YANGLI", 90, 530, 190), ("UnionPay银联", 760, 530, 200),
    )  # fmt: skip

    card = read_card(page)

    assert (card.bank_name.text, card.valid_date.text, card.holder_name.text) == ("样例银行", "07/31", "CE YANGLI")


def test_of_two_dates_the_later_one_is_the_end(make_page: MakePage) -> None:
    page = page_with(make_page, ("9999990437815265", 90, 330, 700), ("08/21", 300, 440, 110), ("07/31", 500, 440, 110))

    assert read_card(page).valid_date.text == "07/31"


def test_what_is_not_printed_is_empty(make_page: MakePage) -> None:
    page = make_page(("9999990437815265", 90, 330, 700))

    assert result(page) == {
        "bank_card_number": "9999 9904 3781 5265", "valid_date": "NO VALID", "bank_card_type": 0, "bank_name": "",
        "holder_name": "",
    }  # fmt: skip


def test_no_number_is_no_card(make_page: MakePage) -> None:
    assert read_bank_card(make_page(("样例银行", 60, 50, 200), ("400 8800 000", 60, 100, 200))) is None
