"""Business license: layout rules and the answer of `/ocr/v1/business_license`, per https://cloud.baidu.com/doc/OCR/s/sk3h7y3zs.

Two forms are known: since 2019 a landscape sheet with two columns of labels, before that a portrait sheet with one.
Both are read the same way: labels are found first, and a label owns the text to its right up to the next column, and
the lines below that go on at the same left edge.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.documents.check_digits import is_credit_code
from sandbox.page import NO_WORDS, Box, Line, Page, Words, join, make_rows
from sandbox.quality import Quality, card_quality

KEYS = (
    "社会信用代码", "单位名称", "类型", "法人", "地址", "注册资本", "实收资本", "成立日期", "有效期", "组成形式",
    "经营范围", "证件编号", "核准日期", "登记机关", "税务登记号",
)  # fmt: skip
ABSENT = {"words": "无", "location": {"left": -1, "top": -1, "width": 0, "height": 0}}
_SHIFTED_KEYS = ("单位名称", "类型", "经营范围")

# Printed label → key; a longer label stands before the shorter one that ends it.
_LABELS = {
    "统一社会信用代码": "社会信用代码",
    "社会信用代码": "社会信用代码",
    "主要经营场所": "地址",
    "经营场所": "地址",
    "营业场所": "地址",
    "住所": "地址",
    "单位名称": "单位名称",
    "企业名称": "单位名称",
    "名称": "单位名称",
    "主体类型": "类型",
    "公司类型": "类型",
    "类型": "类型",
    "法定代表人": "法人",
    "执行事务合伙人": "法人",
    "负责人": "法人",
    "经营者": "法人",
    "投资人": "法人",
    "注册资本": "注册资本",
    "出资额": "注册资本",
    "实收资本": "实收资本",
    "成立日期": "成立日期",
    "注册日期": "成立日期",
    "营业期限": "有效期",
    "合伙期限": "有效期",
    "经营期限": "有效期",
    "组成形式": "组成形式",
    "经营范围": "经营范围",
    "证照编号": "证件编号",
    "编号": "证件编号",
    "登记机关": "登记机关",
    "税务登记号": "税务登记号",
}
_LABEL = re.compile(rf"({'|'.join(_LABELS)})[:：]?")
# What is left of a label of two letters printed far apart, when the other one was not seen.
_REMNANTS = {"称": "名称", "型": "类型", "所": "住所", "名": "名称", "类": "类型", "住": "住所"}
# Printed outside the columns: they bound no column.
_OUTSIDE_COLUMNS = frozenset({"社会信用代码", "证件编号", "登记机关"})
_CODE = re.compile(r"[0-9A-HJ-NPQRTUWXY]{18}")
_OFFICE = re.compile(r"局|厅|委员会|中心")
_DATE_LINE = re.compile(r"\d{4}年\d{1,2}月\d{1,2}日")
# A value of one line never goes on below; what stands there belongs to something else.
_SEVERAL_LINES = frozenset({"单位名称", "类型", "地址", "经营范围"})
_HALF_WIDTH = str.maketrans("（）", "()")
_FULL_WIDTH = str.maketrans("()", "（）")


@dataclass(frozen=True)
class _Label:
    key: str
    line: Line
    value: Line | None


@dataclass(frozen=True)
class BusinessLicense:
    """What a license says; a field that was not found is left out."""

    fields: Mapping[str, Words]


def read_business_license(page: Page) -> BusinessLicense | None:
    """The license a page shows, or None if it shows none."""
    lines = _join_split_labels(page.lines)
    labels = _find_labels(lines)
    code = _find_code(page)
    if len({label.key for label in labels}) + 2 * bool(code.text) + 2 * ("营业执照" in page.text) < 4:
        return None
    label_lines = {id(label.line) for label in labels}
    free = [line for line in lines if id(line) not in label_lines and not _starts_label(line, labels)]
    fields = {label.key: _value(label, labels, free) for label in labels if label.key != "社会信用代码"}
    fields["社会信用代码"] = code
    # Beside this label stands the seal, seldom readable; what is read there must at least be an office.
    if not _OFFICE.search(fields.get("登记机关", NO_WORDS).text):
        fields.pop("登记机关", None)
    fields["核准日期"] = _find_approval_date(labels, free, fields)
    return BusinessLicense({key: words for key, words in fields.items() if words.text})


def _starts_label(line: Line, labels: Sequence[_Label]) -> bool:
    return any(label.value is not None and label.line.quad[0] == line.quad[0] for label in labels)


def _join_split_labels(lines: Sequence[Line]) -> list[Line]:
    """Labels printed with wide spaces (名　　称) may come as several lines: make one of them."""
    joined: list[Line] = []
    for row in make_rows(lines):
        rest = list(row.lines)
        while rest:
            line = rest.pop(0)
            while rest and line.text and _is_begun_label(line.text, rest[0].text) and _gap(line, rest[0]) < 5:
                line = _merge(line, rest.pop(0))
            joined.append(line)
    return joined


def _is_begun_label(start: str, rest: str) -> bool:
    return (
        any(
            label.startswith(start) and start != label and (start + rest).startswith(label[: len(start + rest)])
            for label in _LABELS
        )
        and start not in _LABELS
    )


def _gap(line: Line, other: Line) -> float:
    return (other.box.left - line.box.right) / max(line.box.height, 1.0)


def _merge(line: Line, other: Line) -> Line:
    box = Box(line.box.left, min(line.box.top, other.box.top), other.box.right, max(line.box.bottom, other.box.bottom))
    quad = (line.quad[0], other.quad[1], other.quad[2], line.quad[3])
    return Line(line.text + other.text, min(line.score, other.score), box, quad)


def _find_labels(lines: Sequence[Line]) -> list[_Label]:
    """The first label of each key, from the top; one that holds its value's beginning is taken apart."""
    found: dict[str, _Label] = {}
    for line in sorted(lines, key=lambda each: each.box.middle):
        match = _LABEL.match(line.text)
        if not match:
            continue
        key = _LABELS[match[1]]
        is_merged = match.end() < len(line.text)
        if key in found or (is_merged and _inside_scope(line, found)):
            continue
        if is_merged:
            label, value = line.part(0, match.end()), line.part(match.end(), len(line.text))
            found[key] = _Label(key, label, value)
        else:
            found[key] = _Label(key, line, None)
    for line in lines:
        if line.text in _REMNANTS:
            key = _LABELS[_REMNANTS[line.text]]
            found.setdefault(key, _Label(key, line, None))
    return list(found.values())


def _inside_scope(line: Line, found: Mapping[str, _Label]) -> bool:
    """Whether a line goes on in the text of the scope, which may break anywhere, before a word like 类型."""
    scope = found.get("经营范围")
    if scope is None:
        return False
    start = scope.line.box.right
    return scope.line.box.middle < line.box.middle and abs(line.box.left - start) < 3 * line.box.height


def _value(label: _Label, labels: Sequence[_Label], free: Sequence[Line]) -> Words:
    box = label.line.box
    height = box.height
    next_columns = [
        each.line.box.left
        for each in labels
        if each.key not in _OUTSIDE_COLUMNS and each.line.box.left > box.right + height
    ]
    column_end = min(next_columns, default=float("inf")) - 0.5 * height
    right_of = [line for line in free if box.right - 0.8 * height <= line.box.left < column_end]
    first_row = [line for line in right_of if abs(line.box.middle - box.middle) < 0.6 * height]
    lines = ([label.value] if label.value else []) + sorted(first_row, key=lambda line: line.box.left)
    if not lines:
        return NO_WORDS
    if label.key not in _SEVERAL_LINES:
        return join(lines)
    below = [
        each.line.box.middle
        for each in labels
        if each is not label
        and each.line.box.middle > box.middle + 0.6 * height
        and each.line.box.left < column_end
        and each.line.box.right > box.left
    ]
    end = min(below, default=float("inf")) - 0.5 * height
    left, middle = lines[0].box.left, box.middle
    for row in make_rows([line for line in right_of if box.middle + 0.6 * height < line.box.middle < end]):
        is_next = row.middle - middle < 2.2 * height and abs(row.lines[0].box.left - left) < 1.5 * height
        if not is_next:
            break
        lines += row.lines
        middle = row.middle
    return join(lines)


def _find_code(page: Page) -> Words:
    candidates = [row.span(*match.span()) for row in page.rows for match in _CODE.finditer(row.text)]
    return max(candidates, key=lambda words: is_credit_code(words.text), default=NO_WORDS)


def _find_approval_date(labels: Sequence[_Label], free: Sequence[Line], fields: Mapping[str, Words]) -> Words:
    """The date under the registration authority: a line of its own that belongs to no label."""
    authority = next((label.line for label in labels if label.key == "登记机关"), None)
    if authority is None:
        return NO_WORDS
    taken = {id(line) for words in fields.values() for line in words.lines}
    for line in free:
        if id(line) not in taken and line.box.middle > authority.box.middle and _DATE_LINE.fullmatch(line.text):
            return Words(line.text, (line,))
    return NO_WORDS


def answer_business_license(
    license_read: BusinessLicense, page: Page, quality: Quality, *, flags: Mapping[str, bool]
) -> dict[str, object]:
    """The success body; a field that is not on the paper says 无."""
    brackets = _FULL_WIDTH if flags.get("fullwidth_shift") else _HALF_WIDTH
    result: dict[str, object] = {}
    for key in KEYS:
        words = license_read.fields.get(key)
        if words is None:
            result[key] = ABSENT
        else:
            text = words.text.translate(brackets) if key in _SHIFTED_KEYS else words.text
            result[key] = {"words": text, "location": words.location}
    body: dict[str, object] = {
        "direction": page.direction,
        "words_result_num": len(result),
        "words_result": result,
    }
    if flags.get("risk_warn"):
        body["risk_type"] = "normal"
    if flags.get("detect_quality"):
        is_complete = {"社会信用代码", "单位名称", "法人", "地址"} <= license_read.fields.keys()
        body["card_quality"] = card_quality(quality, is_complete=is_complete, confidence=page.confidence)
    return body
