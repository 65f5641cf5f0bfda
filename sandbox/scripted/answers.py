"""What is answered for a picture: the vendor's shape, with fields made from the picture's SHA-256.

So a test can tell that a result belongs to its image. All numbers are of nobody: area code 999999 is not allocated.
"""

import base64
import hashlib
import itertools
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_HERE = {"left": 1, "top": 1, "width": 100, "height": 20}


def picture_digest(body: bytes) -> str | None:
    """SHA-256 of the picture in a url-encoded form, in hex; None without one, "" if it is no base64."""
    start = 0 if body.startswith(b"image=") else body.find(b"&image=") + 1
    if start == 0 and not body.startswith(b"image="):
        return None
    end = body.find(b"&", start)
    value = body[start + 6 : end if end > 0 else len(body)]
    if b"+" in value:  # a space, in a form: whoever does not escape it gets no answer from the vendor either
        return ""
    try:
        return hashlib.sha256(base64.b64decode(unquote_to_bytes(value), validate=True)).hexdigest()
    except ValueError:
        return ""


def card_number(digest: str) -> str:
    """The 19 digits answered for a picture, with their Luhn digit."""
    digits = f"{int(digest[:15], 16):018d}"[:18]
    doubled = (
        sum(divmod(2 * int(digit), 10)) if place % 2 == 0 else int(digit)
        for place, digit in enumerate(reversed(digits))
    )
    return digits + str(-sum(doubled) % 10)


def id_number(digest: str) -> str:
    """The citizen number answered for a picture, with its check character."""
    body = f"99999919900307{int(digest[:3], 16) % 1000:03d}"
    total = sum(int(digit) * weight for digit, weight in zip(body, _ID_WEIGHTS, strict=True))
    return body + "10X98765432"[total % 11]


def _bank_card(digest: str) -> dict[str, object]:
    number = card_number(digest)
    groups = " ".join(number[start : start + 4] for start in range(0, 19, 4))
    card = {
        "bank_card_number": groups,
        "valid_date": "NO VALID",
        "bank_card_type": 1,
        "bank_name": "样例银行",
        "holder_name": "",
    }
    return {"direction": 0, "result": card}


def _id_card(digest: str) -> dict[str, object]:
    number = id_number(digest)
    words = {
        "姓名": "测样丽",
        "性别": "男" if int(number[16]) % 2 else "女",
        "民族": "汉",
        "出生": number[6:14],
        "公民身份号码": number,
        "住址": f"样例市样例路{digest[:12]}号",
    }
    fields = {name: {"words": value, "location": _HERE} for name, value in words.items()}
    return {
        "direction": 0,
        "image_status": "normal",
        "idcard_number_type": 1,
        "words_result": fields,
        "words_result_num": len(fields),
    }


def _business_license(digest: str) -> dict[str, object]:
    words = {
        "单位名称": f"样例{digest[:12]}有限公司",
        "社会信用代码": "91999999MA0000000K",
        "法人": "测样丽",
        "地址": "样例市样例路1号",
    }
    fields = {name: {"words": value, "location": _HERE} for name, value in words.items()}
    return {"direction": 0, "words_result": fields, "words_result_num": len(fields)}


def _general(digest: str) -> dict[str, object]:
    return {"direction": 0, "words_result": [{"words": digest}], "words_result_num": 1}


ANSWERS: dict[str, Callable[[str], dict[str, object]]] = {
    "bankcard": _bank_card,
    "idcard": _id_card,
    "business_license": _business_license,
    "general_basic": _general,
}

log_ids = itertools.count(1_790_000_000_000_000_000, 1013)
"""19 digits, as the vendor's: beyond what a float holds."""
