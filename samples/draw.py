"""Draws the sample pictures: invented documents, as a phone or a scanner would see them.

    python samples/draw.py --font PATH_TO_CJK_FONT [--out samples]

Everybody and everything on them is invented. Area code 999999 is allocated to nobody, and neither is a card number
that begins with 999999; the check characters are right, so that a reader's checks can be tested. Each document says
"样张 SPECIMEN" at its border and carries no real emblem, portrait or seal.
The same font and library versions give the same bytes again: every seed is fixed.
What is printed is written to `expected.json` too, as the values Kazheng should find.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from photo import Shot, desk_dark, desk_gray, desk_wood, photograph, scan
from PIL import Image
from sheets import (
    Sheet,
    draw_bank_card,
    draw_id_back,
    draw_id_front,
    draw_license_landscape,
    draw_license_portrait,
)

SPECIMEN = "样张 SPECIMEN"
CREDIT_CODE_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
ORIENTATION, ROTATE_CLOCKWISE = 0x0112, 6  # the EXIF tag, and its value for "turn right to see it upright"


def id_number(birth_date: str, sequence: int) -> str:
    """An 18-character ID number of nobody's area (GB 11643); an odd `sequence` is a man's."""
    body = f"999999{birth_date.replace('-', '')}{sequence:03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(int(c) * w for c, w in zip(body, weights, strict=True)) % 11]


def credit_code(organization: str) -> str:
    """An 18-character unified social credit code of nobody's area (GB 32100) for a 9-character organization code."""
    body = f"91999999{organization}"
    total = sum(CREDIT_CODE_ALPHABET.index(c) * pow(3, i, 31) for i, c in enumerate(body))
    return body + CREDIT_CODE_ALPHABET[-total % 31]


def card_number(body: str) -> str:
    """`body` and its Luhn digit."""
    doubled = [int(c) * (2 if i % 2 == 0 else 1) for i, c in enumerate(reversed(body))]
    return body + str(-sum(d // 10 + d % 10 for d in doubled) % 10)


@dataclass(frozen=True)
class Sample:
    """One picture: who is on it, how it is seen, how it is stored.

    `turns`: quarter turns to the left of the stored pixels. `exif`: whether the file says how to undo them.
    """

    file: str
    draw: Callable[[Path, float, dict[str, str | None]], Sheet]
    document_type: str
    fields: dict[str, str | None]
    shot: Shot | None
    options: dict[str, str] = field(default_factory=dict)
    turns: int = 0
    exif: bool = False
    quality: int = 86


def person(name: str, ethnicity: str, birth_date: str, sequence: int, address: str) -> dict[str, str | None]:
    return {
        "name": name,
        "sex": "男" if sequence % 2 else "女",
        "ethnicity": ethnicity,
        "birth_date": birth_date,
        "address": address,
        "id_number": id_number(birth_date, sequence),
    }


FRONT, BACK = {"side": "front"}, {"side": "back"}
LEANING = ((0.13, 0.17), (0.86, 0.13), (0.90, 0.83), (0.10, 0.80))
TILTED = ((0.12, 0.22), (0.84, 0.12), (0.90, 0.78), (0.15, 0.86))
STEEP = ((0.18, 0.18), (0.83, 0.19), (0.91, 0.84), (0.09, 0.82))
PAGE = ((0.06, 0.06), (0.94, 0.05), (0.965, 0.945), (0.035, 0.935))

SAMPLES = (
    Sample(
        "id_front_desk.jpg",
        draw_id_front,
        "id_card",
        person("测样丽", "汉", "1990-03-07", 2, "样例省样例市样例区样例路1号样例小区2栋301室"),
        Shot((2000, 1500), LEANING, desk_wood, 1),
        FRONT,
    ),
    Sample(
        "id_back_desk.jpg",
        draw_id_back,
        "id_card",
        {"issuing_authority": "样例市公安局样例分局", "issue_date": "2015-06-12", "expiry_date": "2035-06-12"},
        Shot((2000, 1500), TILTED, desk_gray, 2, light=5.2),
        BACK,
    ),
    Sample(
        "bank_debit.webp",
        draw_bank_card,
        "bank_card",
        {"bank_name": "样例银行", "card_number": card_number("999999120345678016"), "card_type": "debit"},
        Shot((1800, 1350), LEANING, desk_wood, 3, light=5.0),
    ),
    Sample(
        "license_landscape.jpg",
        draw_license_landscape,
        "business_license",
        {
            "credit_code": credit_code("MA7K2P4W3"),
            "company_name": "样例市测样软件有限公司",
            "company_type": "有限责任公司(自然人独资)",
            "legal_representative": "测样丽",
            "address": "样例省样例市样例区样例路8号样例大厦6层602室",
            "registered_capital": "壹佰万元整",
            "established_on": "2020-01-02",
            "valid_until": None,
            "business_scope": "软件开发、技术服务、技术咨询、计算机系统集成、数据处理服务。",
        },
        Shot((2600, 1950), PAGE, desk_wood, 4, noise=3.5, blur=0.7),
        quality=84,
    ),
    Sample(
        "id_front_exif.jpg",
        draw_id_front,
        "id_card",
        person("范样辰", "回", "1985-11-23", 17, "样例省示范市测试县样例镇样例村3组26号"),
        Shot((2000, 1500), TILTED, desk_gray, 5),
        FRONT,
        turns=1,
        exif=True,
    ),
    Sample(
        "id_front_turned_90.jpg",
        draw_id_front,
        "id_card",
        person("林样舟", "满", "2001-08-15", 31, "样例省样例市示范区测试大道108号5单元902室"),
        Shot((1800, 1350), LEANING, desk_dark, 6, light=5.3),
        FRONT,
        turns=3,
    ),
    Sample(
        "id_front_turned_180.jpg",
        draw_id_front,
        "id_card",
        person("宋样宁", "汉", "1978-12-30", 46, "示范省样例市测试区花园街15号"),
        Shot((1800, 1350), STEEP, desk_wood, 7),
        FRONT,
        turns=2,
    ),
    Sample(
        "id_front_over_4mb.jpg",
        draw_id_front,
        "id_card",
        person("何样明", "壮", "1996-05-04", 105, "示范省示范市样例区新测路77号样例公寓B座12室"),
        Shot((4000, 3000), STEEP, desk_gray, 8, light=4.4, noise=5.0, blur=1.5),
        FRONT,
        quality=95,
    ),
    Sample(
        "id_back_long_term.jpg",
        draw_id_back,
        "id_card",
        {"issuing_authority": "示范市公安局", "issue_date": "2021-09-01", "expiry_date": None},
        Shot((1800, 1350), STEEP, desk_dark, 9),
        BACK,
    ),
    Sample(
        "bank_credit.jpg",
        draw_bank_card,
        "bank_card",
        {
            "bank_name": "示范银行",
            "card_number": card_number("999999043781526"),
            "card_type": "credit",
            "expiry_date": "2031-07",
            "holder_name": "FAN YANGCHEN",
        },
        Shot((1800, 1350), TILTED, desk_gray, 10, light=4.4),
    ),
    Sample(
        "license_portrait.png",
        draw_license_portrait,
        "business_license",
        {
            "credit_code": credit_code("MA3T6N8H5"),
            "company_name": "示范市样例商贸有限公司",
            "company_type": "有限责任公司(自然人投资或控股)",
            "legal_representative": "范样辰",
            "address": "样例省示范市测试县样例街20号",
            "registered_capital": "叁佰万元整",
            "established_on": "2016-05-18",
            "valid_until": "2036-05-17",
            "business_scope": "日用百货、服装、文具、家具的批发和零售、仓储服务、货物运输代理。",
        },
        None,
    ),
)


def encode(picture: Image.Image, sample: Sample) -> bytes:
    stored, target = Image.fromarray(np.rot90(np.array(picture), sample.turns)), BytesIO()
    kind = {".jpg": "JPEG", ".webp": "WEBP", ".png": "PNG"}[Path(sample.file).suffix]
    exif = Image.Exif()
    if sample.exif:
        exif[ORIENTATION] = ROTATE_CLOCKWISE
    stored.save(target, kind, exif=exif, **({"optimize": True} if kind == "PNG" else {"quality": sample.quality}))
    return target.getvalue()


def draw_sample(sample: Sample, font: Path) -> bytes:
    if sample.shot is None:
        return encode(scan(sample.draw(font, 0.59, sample.fields), seed=11), sample)  # A4 at 150 dots per inch
    sheet_width = 4200 if sample.draw is draw_license_landscape else 856
    sheet = sample.draw(font, sample.shot.scale_for(sheet_width), sample.fields)
    return encode(photograph(sheet, sample.shot), sample)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the sample pictures.")
    parser.add_argument("--font", type=Path, required=True, help="a font with simplified Chinese characters")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    for sample in SAMPLES:
        (arguments.out / sample.file).write_bytes(draw_sample(sample, arguments.font))
    expected = [
        {"file": s.file, "document_type": s.document_type, "options": s.options, "fields": s.fields} for s in SAMPLES
    ]
    text = json.dumps(expected, ensure_ascii=False, indent=2) + "\n"
    (arguments.out / "expected.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
