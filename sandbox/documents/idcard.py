"""Citizen identity card, front (portrait) and back (emblem): layout rules and the answer of `/ocr/v1/idcard`.

Follows https://cloud.baidu.com/doc/OCR/s/rk3h7xzck. `risk_type` is always `normal`: copies and screens are not
judged here. `photo_location` is estimated from where the text is, by the proportions of the card.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import cv2

from sandbox.documents.check_digits import is_id_number
from sandbox.page import NO_WORDS, Line, Page, Row, Words, join
from sandbox.pictures import Picture
from sandbox.quality import Quality, card_quality

Side: TypeAlias = Literal["front", "back"]

FRONT_KEYS = ("姓名", "性别", "民族", "出生", "住址", "公民身份号码")
BACK_KEYS = ("签发机关", "签发日期", "失效日期")

# The 56 recognized peoples, as printed on the card.
PEOPLES = frozenset({
    "汉", "蒙古", "回", "藏", "维吾尔", "苗", "彝", "壮", "布依", "朝鲜", "满", "侗", "瑶", "白", "土家",
    "哈尼", "哈萨克", "傣", "黎", "傈僳", "佤", "畲", "高山", "拉祜", "水", "东乡", "纳西", "景颇", "柯尔克孜",
    "土", "达斡尔", "仫佬", "羌", "布朗", "撒拉", "毛南", "仡佬", "锡伯", "阿昌", "普米", "塔吉克", "怒",
    "乌孜别克", "俄罗斯", "鄂温克", "德昂", "保安", "裕固", "京", "塔塔尔", "独龙", "鄂伦春", "赫哲", "门巴",
    "珞巴", "基诺",
})  # fmt: skip
# A lone character gives the model no context: it takes the old form for the new one.
_OLD_FORMS = str.maketrans("漢滿満壯維爾鮮", "汉满满壮维尔鲜")
# Edges of other print that come out as accented letters, which no card has.
_STRAY = re.compile(r"[\u00a1-\u024f]")

_NUMBER_LABEL = re.compile(r"公?民?身份号码|公民身份")
_NUMBER = re.compile(r"[0-9OoIl]{17}[0-9OoIlXx]")
_DIGITS = str.maketrans("OoIlx", "0011X")
_SEX = re.compile(r"性?别([男女])")
_PEOPLE = re.compile(r"民?族(.+)")
_BIRTH = re.compile(r"(\d{4})年?(\d{1,2})月(\d{1,2})日?")
_BIRTH_LABEL = re.compile(r"出生?")
_NAME_LABEL = re.compile(r"^姓名?|姓名")
_ADDRESS_LABEL = re.compile(r"^住址?|住址")
_DATE = r"(\d{4})[.,。·\-]?(\d{2})[.,。·\-]?(\d{2})"
_VALIDITY = re.compile(_DATE + r"[-—–~一至]*(?:" + _DATE + r"|(长期))")
_AUTHORITY_LABEL = re.compile(r"签发机关|发机关")
_FRONT_SIGNS = ("姓名", "性别", "民族", "出生", "住址", "公民身份")
_BACK_SIGNS = ("居民身份证", "签发机关", "有效期限", "中华人民共和国")


@dataclass(frozen=True)
class IdCard:
    """What one side of a card says; a field that was not found has no text."""

    side: Side
    fields: Mapping[str, Words]

    @property
    def is_complete(self) -> bool:
        """Every field was found."""
        return all(words.text for words in self.fields.values())


def read_id_card(page: Page) -> IdCard | None:
    """The side of a card that a page shows, or None if it shows no card."""
    text = page.text
    front = sum(sign in text for sign in _FRONT_SIGNS) + 2 * (_find_number(page.rows) is not None)
    back = sum(sign in text for sign in _BACK_SIGNS) + bool(_VALIDITY.search(text))
    # A driving license has name, sex, address and birth as well, but none of these.
    is_front = any(sign in text for sign in ("公民身份", "身份号码", "民族")) or front >= 5
    is_back = any(sign in text for sign in ("居民身份证", "签发机关"))
    if is_front and front >= 3 and front >= back:
        return IdCard("front", _read_front(page))
    if is_back and back >= 2:
        return IdCard("back", _read_back(page))
    return None


def _find_number(rows: list[Row]) -> tuple[int, Words] | None:
    """Index of the row with the citizen number, and the number."""
    for index, row in enumerate(rows):
        match = _NUMBER.search(row.text)
        if match:
            return index, row.span(*match.span()).reading(match[0].translate(_DIGITS))
    return None


def _read_front(page: Page) -> dict[str, Words]:
    rows = page.rows
    fields = dict.fromkeys(FRONT_KEYS, NO_WORDS)
    found = _find_number(rows)
    last = len(rows)
    if found:
        last, fields["公民身份号码"] = found
    else:
        last = next((index for index, row in enumerate(rows) if _NUMBER_LABEL.search(row.text)), last)
    sex_row = birth_row = -1
    for index, row in enumerate(rows[:last]):
        if not fields["性别"].text and (match := _SEX.search(row.text)):
            sex_row, fields["性别"] = index, row.span(*match.span(1))
        if not fields["民族"].text and (match := _PEOPLE.search(row.text)):
            sex_row, fields["民族"] = index, _people(row.run(match.start(1)))
        if not fields["出生"].text and (match := _BIRTH.search(row.text)):
            birth_row = index
            year, month, day = match.groups()
            fields["出生"] = row.span(*match.span()).reading(f"{year}{int(month):02}{int(day):02}")
        elif birth_row < 0 and _BIRTH_LABEL.match(row.text):
            birth_row = index
    fields["姓名"] = _read_name(rows[: sex_row if sex_row > 0 else last])
    fields["住址"] = _read_address(rows, birth_row, last)
    return fields


def _people(words: Words) -> Words:
    text = words.text.translate(_OLD_FORMS)
    longest = max((name for name in PEOPLES if text.startswith(name)), key=len, default=text)
    return words.reading(longest)


def _read_name(rows: list[Row]) -> Words:
    for row in rows:
        match = _NAME_LABEL.search(row.text)
        if match and match.end() < len(row.text):
            return _cleaned(row.run(match.end()))
    return NO_WORDS


def _read_address(rows: list[Row], birth_row: int, last: int) -> Words:
    """The text right of the label and the lines that continue it, down to the number."""
    for index in range(birth_row + 1, last):
        row = rows[index]
        match = _ADDRESS_LABEL.search(row.text)
        if not match:
            continue
        label = row.span(*match.span()).lines[-1]
        first = row.run(match.end())
        lines = list(first.lines)
        for later in rows[index + 1 : last]:
            lines += _continuation(later, label, first)
        return _cleaned(join(lines))
    if birth_row < 0:
        return NO_WORDS
    # The label was not read: what stands between the birth date and the number is the address.
    return _cleaned(join(line for row in rows[birth_row + 1 : last] for line in row.run(0).lines))


def _cleaned(words: Words) -> Words:
    return words.reading(_STRAY.sub("", words.text))


def _continuation(row: Row, label: Line, first: Words) -> tuple[Line, ...]:
    height = label.box.height
    left = first.lines[0].box.left if first.lines else label.box.right
    start = 0
    for line in row.lines:
        # A line that starts far from the others is no address: print in the photo, or on the desk.
        if abs(line.box.left - left) <= 1.5 * height:
            return row.run(start).lines
        start += len(line.text)
    return ()


def _read_back(page: Page) -> dict[str, Words]:
    fields = dict.fromkeys(BACK_KEYS, NO_WORDS)
    rows = page.rows
    for index, row in enumerate(rows):
        if (match := _AUTHORITY_LABEL.search(row.text)) and not fields["签发机关"].text:
            first = row.run(match.end())
            lines = list(first.lines)
            label = row.span(*match.span()).lines[-1]
            for later in rows[index + 1 :]:
                if "有效" in later.text or _VALIDITY.search(later.text):
                    break
                lines += _continuation(later, label, first)
            fields["签发机关"] = join(lines)
        if match := _VALIDITY.search(row.text):
            fields["签发日期"] = row.span(match.start(1), match.end(3)).reading("".join(match.group(1, 2, 3)))
            if match[7]:
                fields["失效日期"] = row.span(*match.span(7))
            else:
                fields["失效日期"] = row.span(match.start(4), match.end(6)).reading("".join(match.group(4, 5, 6)))
    return fields


def number_type(fields: Mapping[str, Words]) -> int:
    """The vendor's `idcard_number_type`: how number, birth date and sex agree."""
    if not any(fields[key].text for key in FRONT_KEYS):
        return -1
    number = fields["公民身份号码"].text
    if not is_id_number(number):
        return 0
    birth_agrees = fields["出生"].text == number[6:14]
    sex_agrees = fields["性别"].text == ("男" if int(number[16]) % 2 else "女")
    if birth_agrees and sex_agrees:
        return 1
    if sex_agrees:
        return 3
    return 4 if birth_agrees else 2


def answer_id_card(
    card: IdCard, page: Page, picture: Picture, quality: Quality, *, side: Side, flags: Mapping[str, bool]
) -> dict[str, object]:
    """The success body for a card that was read, whichever side was declared."""
    fields = dict(card.fields)
    agreement = number_type(fields) if card.side == "front" else -1
    if agreement == 0:
        # Documented: an illegal number is not returned.
        fields["公民身份号码"] = NO_WORDS
    status = "normal"
    if card.side != side:
        status = "reversed_side"
    elif not card.is_complete and quality.defect:
        status = quality.defect.value
    body: dict[str, object] = {
        "words_result": {key: {"location": words.location, "words": words.text} for key, words in fields.items()},
        "words_result_num": len(fields),
        "idcard_number_type": agreement,
        "image_status": status,
    }
    body |= _common(page, quality, is_complete=card.is_complete, flags=flags)
    if flags.get("detect_photo") and card.side == "front":
        body |= _photo(card, picture)
    return body


def answer_no_id_card(page: Page, quality: Quality, *, flags: Mapping[str, bool]) -> dict[str, object]:
    """The success-shaped body for a picture that shows no card."""
    body: dict[str, object] = {
        "words_result": {},
        "words_result_num": 0,
        "idcard_number_type": -1,
        "image_status": quality.defect.value if quality.defect else "non_idcard",
    }
    return body | _common(page, quality, is_complete=False, flags=flags)


def _common(page: Page, quality: Quality, *, is_complete: bool, flags: Mapping[str, bool]) -> dict[str, object]:
    body: dict[str, object] = {}
    if flags.get("detect_direction"):
        body["direction"] = page.direction
    if flags.get("detect_risk"):
        body["risk_type"] = "normal"
    if flags.get("detect_quality"):
        body["card_quality"] = card_quality(quality, is_complete=is_complete, confidence=page.confidence)
    return body


def _photo(card: IdCard, picture: Picture) -> dict[str, object]:
    """The portrait, right of name to address and above the end of the number, cut from the image."""
    top, bottom = card.fields["姓名"].lines, card.fields["公民身份号码"].lines
    if not top or not bottom:
        return {}
    # Text axes in the image frame, from the number's own quad: along the line, and down the card.
    start, end = bottom[0].quad[0], bottom[-1].quad[1]
    along = (end[0] - start[0], end[1] - start[1])
    name = top[0].quad[0]
    # The portrait spans, in lengths of the number, 0.82 to 1.42 from the number's start; its top is the name's.
    share = ((name[0] - start[0]) * along[0] + (name[1] - start[1]) * along[1]) / (along[0] ** 2 + along[1] ** 2)
    up = (name[0] - start[0] - share * along[0], name[1] - start[1] - share * along[1])
    corners = [
        (start[0] + a * along[0] + u * up[0], start[1] + a * along[1] + u * up[1])
        for a in (0.82, 1.42)
        for u in (0.1, 1.0)
    ]
    left, right = max(0, round(min(x for x, _ in corners))), min(picture.width, round(max(x for x, _ in corners)))
    upper, lower = max(0, round(min(y for _, y in corners))), min(picture.height, round(max(y for _, y in corners)))
    if right - left < 8 or lower - upper < 8:
        return {}
    _, encoded = cv2.imencode(".jpg", picture.pixels[upper:lower, left:right])
    return {
        "photo": base64.b64encode(encoded.tobytes()).decode(),
        "photo_location": {"left": left, "top": upper, "width": right - left, "height": lower - upper},
    }
