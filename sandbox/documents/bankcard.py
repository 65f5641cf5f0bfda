"""Bank card: layout rules and the answer of `/ocr/v1/bankcard`, per https://ai.baidu.com/ai-doc/OCR/ak3h7xxg3."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sandbox.documents.check_digits import has_luhn
from sandbox.page import NO_WORDS, Line, Page, Row, Words
from sandbox.quality import Quality, card_quality

_DIGITS = str.maketrans("OoIl", "0011")
_DIGIT_RUN = re.compile(r"[0-9OoIl]+")
_VALID = re.compile(r"(?<!\d)(0[1-9]|1[0-2])/(\d{2})(?!\d)")
_BANK = re.compile(r"[\u4e00-\u9fff]{2,}?银行|[\u4e00-\u9fff]{2,}(?:信用社|农信)")
_HOLDER = re.compile(r"[A-Z][A-Z.\s/'-]{2,}")
# Latin print on cards that is no name.
_NOT_A_HOLDER = re.compile(
    r"BANK|VALID|THRU|FROM|MONTH|YEAR|DEBIT|CREDIT|CARD|UNION|PAY|GOLD|PLATINUM|CLASSIC|VISA|MASTER|GOOD|SINCE|MEMBER"
    r"|EXPIR|CHINA|CVV|ATM|LOGO|SAMPLE|SPECIMEN"
)
# First match wins: 准贷记卡 holds 贷记卡.
_TYPES = (
    (3, re.compile(r"准贷记")),
    (4, re.compile(r"预付")),
    (2, re.compile(r"贷记卡|信用卡|CREDIT")),
    (1, re.compile(r"借记卡|储蓄卡|DEBIT")),
)


@dataclass(frozen=True)
class BankCard:
    """What the front of a card says; a field that was not found has no text.

    Attributes:
        card_type: the vendor's number: 0 unknown, 1 debit, 2 credit, 3 quasi-credit, 4 prepaid.
    """

    number: Words
    valid_date: Words
    bank_name: Words
    holder_name: Words
    card_type: int


def read_bank_card(page: Page) -> BankCard | None:
    """The card a page shows, or None if it shows no card number."""
    rows = page.rows
    number = _find_number(rows)
    if number is None:
        return None
    taken = {id(line) for line in number.lines}
    others = [line for line in page.lines if id(line) not in taken]
    text = page.text.upper()
    card_type = next((code for code, pattern in _TYPES if pattern.search(text)), 0)
    return BankCard(number, _find_valid_date(rows), _find_bank(others), _find_holder(others), card_type)


def _find_number(rows: list[Row]) -> Words | None:
    """The longest row of 13 to 19 digits, those with a right check digit first."""
    candidates: list[Words] = []
    for row in rows:
        for match in _DIGIT_RUN.finditer(row.text):
            digits = match[0].translate(_DIGITS)
            if 13 <= len(digits) <= 19:
                candidates.append(row.span(*match.span()).reading(digits))
    return max(candidates, key=lambda words: (has_luhn(words.text), len(words.text)), default=None)


def _find_valid_date(rows: list[Row]) -> Words:
    found = []
    for row in rows:
        for line in row.lines:
            for match in _VALID.finditer(line.text):
                part = line.part(*match.span())
                found.append(Words(part.text, (part,)))
    # A card may print from and thru; the later one is when it ends.
    return max(found, key=lambda words: (words.text[3:], words.text[:2]), default=NO_WORDS)


def _find_bank(lines: list[Line]) -> Words:
    for line in lines:
        if match := _BANK.search(line.text):
            part = line.part(*match.span())
            return Words(part.text, (part,))
    return NO_WORDS


def _find_holder(lines: list[Line]) -> Words:
    """The lowest line of capitals that is not one of the words every card carries."""
    for line in sorted(lines, key=lambda each: -each.box.middle):
        name = line.printed.strip()
        if _HOLDER.fullmatch(name) and not _NOT_A_HOLDER.search(name.replace(" ", "")):
            return Words(name, (line,))
    return NO_WORDS


def answer_bank_card(card: BankCard, page: Page, quality: Quality, *, flags: Mapping[str, bool]) -> dict[str, object]:
    """The success body; the number in groups of four, as printed."""
    digits = card.number.text
    result: dict[str, object] = {
        "bank_card_number": " ".join(digits[start : start + 4] for start in range(0, len(digits), 4)),
        "valid_date": card.valid_date.text or "NO VALID",
        "bank_card_type": card.card_type,
        "bank_name": card.bank_name.text,
        "holder_name": card.holder_name.text,
    }
    if flags.get("location"):
        result["bank_card_number_location"] = card.number.location
    if flags.get("detect_quality"):
        is_complete = has_luhn(digits) and bool(card.bank_name.text)
        result["card_quality"] = card_quality(quality, is_complete=is_complete, confidence=page.confidence)
    return {"direction": page.direction, "result": result}
