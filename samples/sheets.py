"""The invented documents, flat."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]

BLACK, BLUE, RED, GOLD, BROWN = (28, 28, 32), (36, 118, 176), (196, 36, 36), (184, 146, 78), (104, 72, 40)
SPECIMEN = "样张 SPECIMEN"


class Sheet:
    """A document being drawn. Lengths are in tenths of a millimeter, origin top left; `scale` is pixels for each."""

    def __init__(self, width: int, height: int, scale: float, font: Path, paper: Color, corner: int = 0) -> None:
        self.width, self.height, self.scale, self.font = width, height, scale, font
        self.image = Image.new("RGB", (round(width * scale), round(height * scale)), paper)
        self.pen = ImageDraw.Draw(self.image, "RGBA")
        self.mask = Image.new("L", self.image.size, 0)
        ImageDraw.Draw(self.mask).rounded_rectangle((0, 0, *self.image.size), corner * scale, fill=255)

    def px(self, *lengths: float) -> tuple[float, ...]:
        return tuple(length * self.scale for length in lengths)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        size: float,
        color: Color,
        *,
        bold: float = 0,
        gap: float = 0,
        opacity: int = 255,
        right: bool = False,
    ) -> float:
        """Write one line whose top left (or right) is x, y; `gap` is added after each character. Gives its width."""
        font = load_font(self.font, round(size * self.scale))
        widths = [font.getlength(c) / self.scale + gap for c in text]
        at = x - sum(widths) + gap if right else x
        for character, width in zip(text, widths, strict=True):
            self.pen.text(
                (at * self.scale, y * self.scale),
                character,
                fill=(*color, opacity),
                font=font,
                stroke_width=bold * self.scale,
            )
            at += width
        return sum(widths)

    def spread(self, x: float, y: float, text: str, size: float, width: float, color: Color) -> None:
        """Write `text` with its characters spread over `width`, as labels on forms are."""
        self.text(x, y, text, size, color, gap=(width - size * len(text)) / max(1, len(text) - 1))

    def wrapped(self, x: float, y: float, text: str, size: float, width: float, leading: float) -> None:
        """Write `text` in black, broken into lines of at most `width`."""
        font, line = load_font(self.font, round(size * self.scale)), ""
        for character in text:
            if line and font.getlength(line + character) > width * self.scale:
                self.text(x, y, line, size, BLACK)
                line, y = "", y + leading
            line += character
        self.text(x, y, line, size, BLACK)

    def waves(self, color: Color, opacity: int, *, step: float, swing: float, length: float) -> None:
        """Cover the sheet with the fine wavy lines of security paper."""
        xs = np.arange(0, self.width + 8, 6.0)
        for i in range(int((self.height + 4 * swing) / step)):
            for sign in (1, -1):
                ys = (
                    i * step
                    - 2 * swing
                    + sign * swing * np.sin(xs / length + i * 0.21)
                    + swing * 0.5 * np.sin(xs / length * 2.7)
                )
                points = [self.px(x, y) for x, y in zip(xs, ys, strict=True)]
                self.pen.line(points, fill=(*color, opacity), width=max(1, round(self.scale)))

    def rings(self, x: float, y: float, radius: float, color: Color) -> None:
        """A stand-in for an emblem: a disc in rings, with nothing on it."""
        for share, opacity in ((1.0, 200), (0.88, 110), (0.62, 200), (0.5, 90)):
            r = radius * share
            self.pen.ellipse(
                self.px(x - r, y - r, x + r, y + r),
                outline=(*color, 255),
                fill=(*color, opacity),
                width=round(3 * self.scale),
            )
        for i in range(24):
            a = math.tau * i / 24
            points = (
                x + radius * 0.66 * math.cos(a),
                y + radius * 0.66 * math.sin(a),
                x + radius * 0.84 * math.cos(a),
                y + radius * 0.84 * math.sin(a),
            )
            self.pen.line(self.px(*points), fill=(236, 196, 96, 255), width=round(2.5 * self.scale))

    def silhouette(self, x: float, y: float, width: float) -> None:
        """A stand-in for a portrait, 1.25 times as high as wide."""
        w, h, gray = width, width * 1.25, (126, 132, 140, 255)
        self.pen.rectangle(self.px(x, y, x + w, y + h), fill=(226, 230, 234, 200))
        self.pen.ellipse(self.px(x + w * 0.29, y + h * 0.13, x + w * 0.71, y + h * 0.56), fill=gray)
        self.pen.pieslice(self.px(x + w * 0.06, y + h * 0.6, x + w * 0.94, y + h * 1.4), 180, 360, fill=gray)

    def code_square(self, x: float, y: float, width: float) -> None:
        """A square of random modules in place of a QR code: it encodes nothing."""
        modules = np.random.default_rng(29).integers(0, 2, (29, 29))
        for row, column in ((0, 0), (0, 22), (22, 0)):
            modules[row : row + 7, column : column + 7] = 1
            modules[row + 1 : row + 6, column + 1 : column + 6] = 0
            modules[row + 2 : row + 5, column + 2 : column + 5] = 1
        cell = width / 29
        for r, c in np.argwhere(modules):
            self.pen.rectangle(
                self.px(x + c * cell, y + r * cell, x + (c + 1) * cell, y + (r + 1) * cell), fill=(*BLACK, 255)
            )

    def seal(self, x: float, y: float, radius: float) -> None:
        """A red round stamp that says what this is."""
        side = round(2 * radius * self.scale)
        stamp = Image.new("RGBA", (side, side))
        pen, font = ImageDraw.Draw(stamp), load_font(self.font, round(radius * 0.3 * self.scale))
        pen.ellipse((4, 4, side - 4, side - 4), outline=(*RED, 150), width=round(radius * 0.06 * self.scale))
        pen.text((side / 2, side / 2), "样张", font=font, fill=(*RED, 150), anchor="mm")
        for i, character in enumerate("仅供软件测试不作证明"):
            glyph = Image.new("RGBA", (side, side))
            ImageDraw.Draw(glyph).text(
                (side / 2, side * 0.16),
                character,
                font=font.font_variant(size=font.size * 0.8),
                fill=(*RED, 150),
                anchor="mm",
            )
            stamp.alpha_composite(glyph.rotate(126 - 28 * i, Image.Resampling.BICUBIC))
        self.image.paste(stamp, (round((x - radius) * self.scale), round((y - radius) * self.scale)), stamp)


def load_font(path: Path, size: int) -> ImageFont.FreeTypeFont:
    """The font at `size` pixels; of a collection, its simplified Chinese face if there is one."""
    key = (path, size)
    if key not in FONTS:
        FONTS[key] = ImageFont.truetype(str(path), size, index=face_index(path), layout_engine=ImageFont.Layout.BASIC)
    return FONTS[key]


def face_index(path: Path) -> int:
    for index in range(10):
        try:
            family = ImageFont.truetype(str(path), 10, index=index).getname()[0] or ""
        except OSError:
            break
        if family.endswith(" SC"):
            return index
    return 0


FONTS: dict[tuple[Path, int], ImageFont.FreeTypeFont] = {}


# --- documents -----------------------------------------------------------------------------------------------------


def split_date(iso: str) -> list[str]:
    """Year, month and day as ID cards print them: without leading zeros."""
    return [str(int(part)) for part in iso.split("-")]


def as_printed(text: str | None) -> str:
    """Licenses print full-width brackets; Kazheng, like Baidu, gives half-width ones."""
    return (text or "").translate(str.maketrans("()", "（）"))


def long_date(iso: str | None) -> str:
    return "{}年{}月{}日".format(*iso.split("-")) if iso else "长期"


def draw_id_front(font: Path, scale: float, fields: dict[str, str | None]) -> Sheet:
    sheet = Sheet(856, 540, scale, font, (236, 241, 244), corner=32)
    sheet.waves((120, 176, 206), 46, step=13, swing=16, length=46)
    sheet.waves((226, 150, 150), 30, step=21, swing=26, length=78)
    value = {name: text or "" for name, text in fields.items()}
    for y, label in ((62, "姓名"), (128, "性别"), (194, "出生"), (262, "住址")):
        sheet.text(56, y, label, 27, BLUE, gap=3)
    sheet.text(146, 56, value["name"], 36, BLACK, gap=4, bold=0.3)
    sheet.text(146, 124, value["sex"], 32, BLACK)
    sheet.text(258, 128, "民族", 27, BLUE, gap=3)
    sheet.text(344, 124, value["ethnicity"], 32, BLACK)
    year, month, day = split_date(value["birth_date"])
    for x, number, y_label, label in ((146, year, 238, "年"), (286, month, 330, "月"), (378, day, 422, "日")):
        sheet.text(x, 190, number, 32, BLACK, gap=1)
        sheet.text(y_label, 194, label, 27, BLUE)
    sheet.wrapped(146, 256, value["address"], 32, 362, 44)
    sheet.text(56, 452, "公民身份号码", 27, BLUE, gap=3)
    sheet.text(282, 443, value["id_number"], 38, BLACK, gap=5, bold=0.4)
    sheet.silhouette(544, 78, 258)
    sheet.text(834, 508, SPECIMEN, 15, BLUE, opacity=150, right=True)
    return sheet


def draw_id_back(font: Path, scale: float, fields: dict[str, str | None]) -> Sheet:
    sheet = Sheet(856, 540, scale, font, (240, 240, 242), corner=32)
    sheet.waves((214, 130, 140), 40, step=12, swing=18, length=52)
    sheet.waves((120, 176, 206), 36, step=19, swing=30, length=90)
    sheet.rings(140, 138, 84, RED)
    sheet.spread(270, 76, "中华人民共和国", 50, 500, BLACK)
    sheet.spread(270, 158, "居民身份证", 66, 500, BLACK)
    for x, y, label in ((196, 372, "签发机关"), (196, 440, "有效期限")):
        sheet.text(x, y, label, 27, BLACK, gap=3, bold=0.5)
    sheet.text(342, 368, fields["issuing_authority"] or "", 31, BLACK, gap=1)
    start, end = ((fields[name] or "长期").replace("-", ".") for name in ("issue_date", "expiry_date"))
    sheet.text(342, 437, f"{start}-{end}", 31, BLACK, gap=2)
    sheet.text(834, 508, SPECIMEN, 15, BLUE, opacity=150, right=True)
    return sheet


def draw_bank_card(font: Path, scale: float, fields: dict[str, str | None]) -> Sheet:
    number, credit = fields["card_number"] or "", fields["card_type"] == "credit"
    dark, light, white = (
        ((44, 40, 46), (112, 84, 66), (250, 244, 232)) if credit else ((12, 58, 122), (38, 124, 184), (250, 252, 255))
    )
    sheet = Sheet(856, 540, scale, font, dark, corner=32)
    ramp = np.linspace(0, 1, sheet.image.width)[None, :] * 0.6 + np.linspace(0, 1, sheet.image.height)[:, None] * 0.4
    shade = np.array(dark) + ramp[..., None] * (np.array(light) - np.array(dark))
    sheet.image.paste(Image.fromarray(shade.astype(np.uint8)))
    sheet.waves(white, 16, step=34, swing=40, length=120)
    sheet.pen.ellipse(sheet.px(44, 46, 108, 110), outline=(*white, 255), width=round(7 * scale))
    sheet.pen.rectangle(sheet.px(64, 66, 88, 90), fill=(*white, 255))
    sheet.text(126, 44, fields["bank_name"] or "", 46, white, bold=0.6, gap=2)
    sheet.text(128, 106, "SHIFAN BANK" if credit else "YANGLI BANK", 18, white, gap=2)
    sheet.text(806, 50, "信用卡" if credit else "借记卡", 34, white, right=True, gap=2)
    sheet.text(806, 98, "CREDIT" if credit else "DEBIT", 20, white, right=True, gap=2)
    draw_chip(sheet, 84, 176)
    groups = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    size, gap = (50, 5.0) if credit else (47, 2.0)
    sheet.text(72.5, 311.5, groups, size, (20, 20, 24), bold=0.8, gap=gap, opacity=130)
    sheet.text(70, 309, groups, size, white, bold=0.8, gap=gap)
    if fields.get("expiry_date"):
        year, month = (fields["expiry_date"] or "").split("-")
        sheet.text(330, 388, "VALID THRU", 17, white)
        sheet.text(330, 408, f"{month}/{year[2:]}", 32, white, gap=2)
    if fields.get("holder_name"):
        sheet.text(72, 452, fields["holder_name"] or "", 32, white, gap=2)
    sheet.text(830, 508, SPECIMEN, 15, white, opacity=170, right=True)
    return sheet


def draw_chip(sheet: Sheet, x: float, y: float) -> None:
    line, width = (132, 100, 44, 255), round(2.5 * sheet.scale)
    sheet.pen.rounded_rectangle(
        sheet.px(x, y, x + 118, y + 92), 14 * sheet.scale, fill=(222, 186, 104, 255), outline=line, width=width
    )
    for dy in (30, 62):
        sheet.pen.line(sheet.px(x, y + dy, x + 42, y + dy), fill=line, width=width)
        sheet.pen.line(sheet.px(x + 76, y + dy, x + 118, y + dy), fill=line, width=width)
    sheet.pen.rounded_rectangle(sheet.px(x + 42, y + 18, x + 76, y + 74), 8 * sheet.scale, outline=line, width=width)


def draw_frame(sheet: Sheet, edge: float) -> None:
    """The gold border of a license."""
    sheet.waves((226, 190, 120), 44, step=26, swing=34, length=92)
    for inset, width in ((edge, 14), (edge + 26, 4), (edge + 40, 8)):
        sheet.pen.rectangle(
            sheet.px(inset, inset, sheet.width - inset, sheet.height - inset),
            outline=(*GOLD, 255),
            width=round(width * sheet.scale),
        )


def draw_license_landscape(font: Path, scale: float, fields: dict[str, str | None]) -> Sheet:
    """The form of 2019: landscape, two columns. 420 mm by 297 mm."""
    sheet = Sheet(4200, 2970, scale, font, (252, 250, 242))
    draw_frame(sheet, 120)
    sheet.rings(2100, 430, 180, RED)
    sheet.spread(1440, 650, "营业执照", 250, 1320, BLACK)
    sheet.text(1935, 960, "（副 本）", 84, BLACK)
    sheet.text(330, 480, "统一社会信用代码", 76, BLACK, gap=4, bold=1)
    sheet.text(330, 590, fields["credit_code"] or "", 82, BLACK, gap=4, bold=1)
    sheet.code_square(3130, 400, 340)
    for i, line in enumerate(("扫描二维码登录", "企业信用信息公", "示系统了解更多", "登记信息。")):
        sheet.text(3500, 410 + 76 * i, line, 52, BROWN)
    left = (
        ("名称", "company_name"),
        ("类型", "company_type"),
        ("法定代表人", "legal_representative"),
        ("经营范围", "business_scope"),
    )
    for i, (label, name) in enumerate(left):
        sheet.spread(330, 1200 + 200 * i, label, 74, 400 if len(label) > 2 else 220, BROWN)
        sheet.wrapped(800, 1198 + 200 * i, as_printed(fields[name]), 78, 1400, 118)
    right = (
        ("注册资本", fields["registered_capital"]),
        ("成立日期", long_date(fields["established_on"])),
        ("营业期限", long_date(fields["valid_until"])),
        ("住所", fields["address"]),
    )
    for i, (label, text) in enumerate(right):
        sheet.spread(2400, 1200 + 200 * i, label, 74, 320 if len(label) > 2 else 220, BROWN)
        sheet.wrapped(2790, 1198 + 200 * i, text or "", 78, 1080, 118)
    sheet.text(2560, 2240, "登记机关", 96, BROWN, gap=24)
    sheet.seal(3420, 2260, 240)
    sheet.text(2960, 2480, "2020 年 01 月 02 日", 78, BLACK)
    sheet.text(330, 2660, "本页为软件测试所画，内容均为虚构", 52, BROWN)
    sheet.text(3870, 2660, "样例单位监制", 52, BROWN, right=True)
    sheet.text(4060, 2878, SPECIMEN, 62, RED, opacity=150, right=True)
    return sheet


def draw_license_portrait(font: Path, scale: float, fields: dict[str, str | None]) -> Sheet:
    """The form of 2014: portrait, one column. 210 mm by 297 mm."""
    sheet = Sheet(2100, 2970, scale, font, (252, 251, 246))
    draw_frame(sheet, 84)
    sheet.rings(1050, 330, 140, RED)
    sheet.spread(600, 510, "营业执照", 170, 900, BLACK)
    sheet.text(940, 725, "（副 本）", 56, BLACK)
    sheet.text(520, 840, "统一社会信用代码", 50, BROWN, gap=3)
    sheet.text(1010, 838, fields["credit_code"] or "", 54, BLACK, gap=3)
    period = f"{long_date(fields['established_on'])}至{long_date(fields['valid_until'])}"
    rows = (
        ("名称", fields["company_name"]),
        ("类型", fields["company_type"]),
        ("住所", fields["address"]),
        ("法定代表人", fields["legal_representative"]),
        ("注册资本", fields["registered_capital"]),
        ("成立日期", long_date(fields["established_on"])),
        ("营业期限", period),
        ("经营范围", fields["business_scope"]),
    )
    for i, (label, text) in enumerate(rows):
        sheet.spread(330, 990 + 128 * i, label, 50, 270 if len(label) > 2 else 150, BROWN)
        sheet.wrapped(670, 988 + 128 * i, as_printed(text), 54, 1130, 84)
    sheet.text(1010, 2310, "登记机关", 64, BROWN, gap=16)
    sheet.seal(1540, 2330, 180)
    sheet.text(1240, 2530, "2016 年 05 月 18 日", 54, BLACK)
    sheet.text(330, 2700, "本页为软件测试所画，内容均为虚构", 38, BROWN)
    sheet.text(2000, 2902, SPECIMEN, 44, RED, opacity=150, right=True)
    return sheet
