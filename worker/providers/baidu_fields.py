"""Baidu's success answers, in our words.

Normalization: spaces out of numbers, ISO dates, `长期` is a date without an end, `无` and `""` are null
(https://cloud.baidu.com/doc/OCR/s/sk3h7y3zs for `无`; date texts are free form there).
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

from shared.domain.documents import DocumentType, Field, FieldKind
from shared.domain.errors import ProviderError
from shared.domain.job import JobErrorCode
from shared.domain.result import FieldStatus, FieldValue, Point, Recognition
from shared.domain.retry import FailureKind
from worker.providers.protocol import PreparedImage

_DATE = re.compile(r"(\d{4})\D?(\d{1,2})\D?(\d{1,2})")
_MONTH = re.compile(r"(0[1-9]|1[0-2])/?(\d{2})")
_ABSENT = frozenset({"", "无", "NO VALID"})
_LONG_TERM = "长期"

# https://ai.baidu.com/ai-doc/OCR/ak3h7xxg3
_CARD_TYPES = {"0": None, "1": "debit", "2": "credit", "3": "quasi_credit", "4": "prepaid"}

# Where the vendor says why an ID card gave nothing: https://cloud.baidu.com/doc/OCR/s/rk3h7xzck. `not_complete` is
# not documented there; a wrapper library lists it.
_IMAGE_STATUS = {
    "reversed_side": JobErrorCode.WRONG_SIDE,
    "non_idcard": JobErrorCode.NOT_AN_ID_CARD,
    "blurred": JobErrorCode.BLURRED,
    "other_type_card": JobErrorCode.OTHER_CARD_TYPE,
    "over_exposure": JobErrorCode.OVER_EXPOSED,
    "over_dark": JobErrorCode.TOO_DARK,
    "not_complete": JobErrorCode.INCOMPLETE,
}


def read_answer(
    answer: Mapping[str, Any], document: DocumentType, options: Mapping[str, object], image: PreparedImage
) -> Recognition:
    """A success-shaped answer as a recognition.

    Raises:
        ProviderError: it is no success: not the declared document, or none of the fields asked for was read.
    """
    log_id = None if answer.get("log_id") is None else str(answer["log_id"])
    found = _found_texts(answer)
    fields = {row.name: _read_field(row, found, image) for row in document.fields_for(options)}
    asked = [row.name for row in document.fields_for(options) if row.asked]
    nothing = not any(fields[name].value for name in asked)
    status = answer.get("image_status")
    if status in ("reversed_side", "non_idcard", "other_type_card") or (nothing and status in _IMAGE_STATUS):
        raise _not_readable(_IMAGE_STATUS[str(status)], str(status), log_id)
    if nothing:
        raise _not_readable(document.not_this if not found else JobErrorCode.NOTHING_FOUND, "no field", log_id)
    return Recognition(
        fields=fields,
        upstream_log_id=log_id,
        raw={key: value for key, value in answer.items() if key not in ("photo", "card_image")},
        quality=_quality(answer),
        risk=_risk(answer),
    )


def _not_readable(code: JobErrorCode, said: str, log_id: str | None) -> ProviderError:
    # A success for the vendor, who bills it.
    return ProviderError(
        FailureKind.BAD_INPUT,
        f"the provider found nothing to read ({said})",
        upstream_code=said,
        upstream_log_id=log_id,
        error_code=code,
        billed=True,
    )


def _found_texts(answer: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any] | None]]:
    """Vendor key → (text, location), for both shapes: `words_result` and the bank card's flat `result`."""
    words = answer.get("words_result")
    if isinstance(words, Mapping):
        return {
            key: (str(entry.get("words", "")).strip(), entry.get("location"))
            for key, entry in words.items()
            if isinstance(entry, Mapping) and str(entry.get("words", "")).strip() not in _ABSENT
        }
    result = answer.get("result")
    if isinstance(result, Mapping):
        return {
            key: (str(value).strip(), result.get(f"{key}_location"))
            for key, value in result.items()
            if isinstance(value, str | int) and str(value).strip() not in _ABSENT
        }
    return {}


def _read_field(
    row: Field, found: Mapping[str, tuple[str, Mapping[str, Any] | None]], image: PreparedImage
) -> FieldValue:
    if row.baidu not in found:
        return FieldValue(None, None, row.label, FieldStatus.ABSENT)
    text, location = found[row.baidu]
    value, status = normalize(text, row.kind)
    return FieldValue(value, text, row.label, status, polygon=_polygon(location, image))


def normalize(text: str, kind: FieldKind) -> tuple[str | None, FieldStatus]:
    """The value of a text that is there, and what is known of it."""
    match kind:
        case FieldKind.TEXT:
            return text, FieldStatus.READ
        case FieldKind.DIGITS:
            value = re.sub(r"[^0-9A-Za-z]", "", text).upper()
            return (value, FieldStatus.READ) if value else (None, FieldStatus.UNPARSED)
        case FieldKind.CARD_TYPE:
            card_type = _CARD_TYPES.get(text)
            return card_type, FieldStatus.READ if card_type else FieldStatus.ABSENT
        case FieldKind.MONTH:
            month = _MONTH.fullmatch(text.replace(" ", ""))
            return (f"20{month[2]}-{month[1]}", FieldStatus.READ) if month else (None, FieldStatus.UNPARSED)
        case FieldKind.DATE | FieldKind.PERIOD_END:
            if _LONG_TERM in text or "永久" in text:
                return None, FieldStatus.LONG_TERM
            dates = _dates(text)
            if not dates:
                return None, FieldStatus.UNPARSED
            return (dates[-1] if kind is FieldKind.PERIOD_END else dates[0]).isoformat(), FieldStatus.READ


def _dates(text: str) -> list[date]:
    found = []
    for year, month, day in _DATE.findall(text):
        try:
            found.append(date(int(year), int(month), int(day)))
        except ValueError:
            continue
    return found


def _polygon(location: Mapping[str, Any] | None, image: PreparedImage) -> tuple[Point, ...] | None:
    """Rectangle in pixels to four corners in fractions; None where the vendor gives no place (zeros or -1)."""
    if not isinstance(location, Mapping):
        return None
    try:
        left, top, width, height = (float(location[key]) for key in ("left", "top", "width", "height"))
    except (KeyError, TypeError, ValueError):
        return None
    if width <= 0 or height <= 0:
        return None
    right, bottom = left + width, top + height
    corners: Iterable[Point] = ((left, top), (right, top), (right, bottom), (left, bottom))
    return tuple((_fraction(x, image.width), _fraction(y, image.height)) for x, y in corners)


def _fraction(pixels: float, whole: int) -> float:
    return round(min(1.0, max(0.0, pixels / whole)), 5)


def _quality(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """`card_quality`, whose probabilities the vendor spells `…_propobility`."""
    result = answer.get("result")
    card = answer.get("card_quality") or (result.get("card_quality") if isinstance(result, Mapping) else None)
    if not isinstance(card, Mapping):
        return None
    names = {"clear": "IsClear", "complete": "IsComplete", "uncovered": "IsNoCover"}
    return {
        ours: {"passed": bool(card.get(theirs)), "probability": card.get(f"{theirs}_propobility")}
        for ours, theirs in names.items()
        if theirs in card
    }


def _risk(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    if "risk_type" not in answer:
        return None
    return {"type": answer["risk_type"], "edit_tool": answer.get("edit_tool") or None}
