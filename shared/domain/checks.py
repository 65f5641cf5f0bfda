"""Check digits, and agreement between fields.

Check digits are python-stdnum's: GB 11643 (ID number), GB 32100 (credit code), ISO/IEC 7812-1 annex B (Luhn). Its
full `validate` is not used for ID numbers, for it refuses area codes it does not know, which is no misreading.
"""

import re
from collections.abc import Callable, Mapping
from datetime import date

from stdnum import luhn
from stdnum.cn import ric, uscc
from stdnum.exceptions import ValidationError

from shared.domain.result import Check, CheckStatus, FieldStatus, FieldValue

Fields = Mapping[str, FieldValue]
_ID_NUMBER = re.compile(r"\d{17}[\dX]")


def run_checks(codes: tuple[str, ...], fields: Fields, *, today: date) -> tuple[Check, ...]:
    """Run the named checks; those whose fields are not part of this document are left out.

    Args:
        codes: names out of `CHECKS`.
        fields: the fields of a result.
        today: the day by which expiry is judged, in the document's country.
    """
    outcomes = (CHECKS[code](fields, today) for code in codes)
    return tuple(outcome for outcome in outcomes if outcome is not None)


def _check(code: str, names: tuple[str, ...], passed: bool | None, detail: str, severity: str = "error") -> Check:
    if passed is None:
        return Check(code, CheckStatus.SKIPPED, severity, names, "A field it needs was not read.")
    return Check(code, CheckStatus.PASSED if passed else CheckStatus.FAILED, severity, names, "" if passed else detail)


def _value(fields: Fields, name: str) -> str | None:
    return fields[name].value if name in fields else None


def _id_number_checksum(fields: Fields, today: date) -> Check | None:
    if "id_number" not in fields:
        return None
    number = _value(fields, "id_number")
    passed: bool | None = None
    if number:
        passed = bool(_ID_NUMBER.fullmatch(number)) and number[-1] == ric.calc_check_digit(number)
    detail = "The ID number is not 18 characters long or its check digit is wrong: a character was misread."
    return _check("id_number.checksum", ("id_number",), passed, detail)


def _id_number_birth_date(fields: Fields, today: date) -> Check | None:
    if "id_number" not in fields:
        return None
    number, birth_date = _value(fields, "id_number"), _value(fields, "birth_date")
    passed: bool | None = None
    if number and birth_date:
        try:
            passed = ric.get_birth_date(number).isoformat() == birth_date
        except (ValidationError, ValueError):
            passed = False
    detail = "The birth date in the ID number is not the printed one."
    return _check("id_number.birth_date", ("id_number", "birth_date"), passed, detail)


def _id_number_sex(fields: Fields, today: date) -> Check | None:
    if "id_number" not in fields:
        return None
    number, sex = _value(fields, "id_number"), _value(fields, "sex")
    passed: bool | None = None
    if number and sex:
        passed = bool(_ID_NUMBER.fullmatch(number)) and ("男" if int(number[16]) % 2 else "女") == sex
    return _check("id_number.sex", ("id_number", "sex"), passed, "The sex in the ID number is not the printed one.")


def _card_number_luhn(fields: Fields, today: date) -> Check | None:
    if "card_number" not in fields:
        return None
    number = _value(fields, "card_number")
    passed = luhn.is_valid(number) if number else None
    return _check("card_number.luhn", ("card_number",), passed, "The card number's check digit is wrong.")


def _credit_code_checksum(fields: Fields, today: date) -> Check | None:
    if "credit_code" not in fields:
        return None
    code = _value(fields, "credit_code")
    passed = uscc.is_valid(code) if code else None
    return _check("credit_code.checksum", ("credit_code",), passed, "The credit code's check character is wrong.")


def _expiry(fields: Fields, today: date) -> Check | None:
    name = next((name for name in ("expiry_date", "valid_until") if name in fields), None)
    if name is None:
        return None
    field = fields[name]
    passed: bool | None = None
    if field.status is FieldStatus.LONG_TERM:
        passed = True
    elif field.value:
        # A month (YYYY-MM) lasts to its end: compared as text, "2031-07" is not before "2031-07".
        passed = field.value >= today.isoformat()[: len(field.value)]
    return _check("expiry", (name,), passed, "The document has expired.", severity="warning")


CHECKS: Mapping[str, Callable[[Fields, date], Check | None]] = {
    "id_number.checksum": _id_number_checksum,
    "id_number.birth_date": _id_number_birth_date,
    "id_number.sex": _id_number_sex,
    "card_number.luhn": _card_number_luhn,
    "credit_code.checksum": _credit_code_checksum,
    "expiry": _expiry,
}
