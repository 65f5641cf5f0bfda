"""The table of document types: type → endpoint, options, limits, fields, checks. Adding a type is adding a row.

Facts of the endpoints, read November 2026:
https://cloud.baidu.com/doc/OCR/s/rk3h7xzck (ID card), https://ai.baidu.com/ai-doc/OCR/ak3h7xxg3 (bank card),
https://cloud.baidu.com/doc/OCR/s/sk3h7y3zs (business licence). Sizes count after base64 and url-encoding; whether
a megabyte is 10^6 or 2^20 bytes is not said, so we take the smaller. The endpoints take sides up to 8192 px; older
pages say 4096, no card gains by more, and a smaller upload arrives sooner: so 4096.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from shared.domain.errors import FieldError, InvalidRequestError
from shared.domain.job import JobErrorCode

MEGABYTE = 1_000_000


class FieldKind(StrEnum):
    """How the text of a field becomes its value."""

    TEXT = "text"
    """As printed, spaces around it removed."""
    DIGITS = "digits"
    """Letters and digits only: spaces and dashes removed, upper case."""
    DATE = "date"
    """ISO 8601 `YYYY-MM-DD`; `长期` (no end) becomes null with status `long_term`."""
    PERIOD_END = "period_end"
    """The end of a period such as `2020年01月02日至2040年01月01日`, as a DATE."""
    MONTH = "month"
    """ISO 8601 `YYYY-MM` from `MM/YY`."""
    CARD_TYPE = "card_type"
    """`debit`, `credit`, `quasi_credit`, `prepaid`, or null."""


@dataclass(frozen=True)
class Field:
    """One field of a document.

    `baidu` is the vendor's key; `asked` marks the fields a recognition is for: without any of them it has failed.
    """

    name: str
    label: str
    baidu: str
    kind: FieldKind = FieldKind.TEXT
    asked: bool = False


@dataclass(frozen=True)
class Option:
    """One option a client may set.

    `baidu` is the vendor's parameter. `choices` None means a boolean. `default` is used when it is left out.
    """

    name: str
    baidu: str
    default: str | bool
    choices: tuple[str, ...] | None = None
    description: str = ""


@dataclass(frozen=True)
class Limits:
    """What an endpoint takes: bytes of the encoded form value, pixels of the sides, Pillow format names."""

    encoded_bytes: int
    short_side: int
    long_side: int
    formats: tuple[str, ...] = ("JPEG", "PNG", "BMP")


@dataclass(frozen=True)
class DocumentType:
    """One row of the table.

    `endpoint` names the vendor's interface: quotas are counted by it. `fields` lists the fields of each side (the
    only key is "" where a document has one side). `fixed` holds parameters sent with every call.
    """

    name: str
    label: str
    endpoint: str
    limits: Limits
    fields: Mapping[str, tuple[Field, ...]]
    options: tuple[Option, ...]
    checks: tuple[str, ...]
    not_this: JobErrorCode
    fixed: Mapping[str, str]

    def fields_for(self, options: Mapping[str, object]) -> tuple[Field, ...]:
        """The fields a result has under these options."""
        return self.fields[str(options.get("side", ""))]

    def validate_options(self, given: Mapping[str, object]) -> dict[str, str | bool]:
        """Options with defaults filled in.

        Raises:
            InvalidRequestError: an option is unknown or has a wrong value; all such are listed.
        """
        known = {option.name: option for option in self.options}
        errors = [
            FieldError(f"/options/{name}", f"unknown option of {self.name}; it takes: {', '.join(known) or 'none'}")
            for name in given
            if name not in known
        ]
        values: dict[str, str | bool] = {}
        for name, option in known.items():
            try:
                values[name] = _read_option(option, given.get(name, option.default))
            except ValueError as error:
                errors.append(FieldError(f"/options/{name}", str(error)))
        if errors:
            raise InvalidRequestError(errors)
        return values


def _read_option(option: Option, value: object) -> str | bool:
    if option.choices is None:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        raise ValueError("must be true or false")
    if isinstance(value, str) and value in option.choices:
        return value
    raise ValueError(f"must be one of: {', '.join(option.choices)}")


_QUALITY = Option("detect_quality", "detect_quality", False, description="report sharpness and completeness")

_ID_CARD = DocumentType(
    name="id_card",
    label="居民身份证",
    endpoint="idcard",
    limits=Limits(encoded_bytes=8 * MEGABYTE, short_side=15, long_side=4096),
    fields={
        "front": (
            Field("name", "姓名", "姓名", asked=True),
            Field("sex", "性别", "性别"),
            Field("ethnicity", "民族", "民族"),
            Field("birth_date", "出生", "出生", FieldKind.DATE),
            Field("address", "住址", "住址", asked=True),
            Field("id_number", "公民身份号码", "公民身份号码", FieldKind.DIGITS, asked=True),
        ),
        "back": (
            Field("issuing_authority", "签发机关", "签发机关", asked=True),
            Field("issue_date", "签发日期", "签发日期", FieldKind.DATE),
            Field("expiry_date", "失效日期", "失效日期", FieldKind.DATE),
        ),
    },
    options=(
        Option("side", "id_card_side", "front", ("front", "back"), "front: with the portrait; back: with the emblem"),
        Option("detect_risk", "detect_risk", False, description="report copies, screens and edited pictures"),
        _QUALITY,
    ),
    checks=("id_number.checksum", "id_number.birth_date", "id_number.sex", "expiry"),
    not_this=JobErrorCode.NOT_AN_ID_CARD,
    fixed={},
)

_BANK_CARD = DocumentType(
    name="bank_card",
    label="银行卡",
    endpoint="bankcard",
    limits=Limits(encoded_bytes=8 * MEGABYTE, short_side=15, long_side=4096),
    fields={
        "": (
            Field("bank_name", "发卡行", "bank_name", asked=True),
            Field("card_number", "卡号", "bank_card_number", FieldKind.DIGITS, asked=True),
            Field("card_type", "卡类型", "bank_card_type", FieldKind.CARD_TYPE),
            Field("expiry_date", "有效期", "valid_date", FieldKind.MONTH),
            Field("holder_name", "持卡人", "holder_name"),
        )
    },
    options=(_QUALITY,),
    checks=("card_number.luhn", "expiry"),
    not_this=JobErrorCode.NOT_A_BANK_CARD,
    fixed={"location": "true"},
)

_BUSINESS_LICENSE = DocumentType(
    name="business_license",
    label="营业执照",
    endpoint="business_license",
    limits=Limits(encoded_bytes=10 * MEGABYTE, short_side=15, long_side=4096),
    fields={
        "": (
            Field("credit_code", "统一社会信用代码", "社会信用代码", FieldKind.DIGITS, asked=True),
            Field("company_name", "名称", "单位名称", asked=True),
            Field("company_type", "类型", "类型"),
            Field("legal_representative", "法定代表人", "法人", asked=True),
            Field("address", "住所", "地址", asked=True),
            Field("registered_capital", "注册资本", "注册资本"),
            Field("paid_in_capital", "实收资本", "实收资本"),
            Field("established_on", "成立日期", "成立日期", FieldKind.DATE),
            Field("valid_until", "营业期限", "有效期", FieldKind.PERIOD_END),
            Field("business_scope", "经营范围", "经营范围"),
            Field("organization_form", "组成形式", "组成形式"),
            Field("certificate_number", "证件编号", "证件编号"),
            Field("approved_on", "核准日期", "核准日期", FieldKind.DATE),
            Field("registration_authority", "登记机关", "登记机关"),
            Field("tax_number", "税务登记号", "税务登记号"),
        )
    },
    options=(Option("detect_risk", "risk_warn", False, description="report copies and screens"), _QUALITY),
    checks=("credit_code.checksum", "expiry"),
    not_this=JobErrorCode.NOT_A_BUSINESS_LICENSE,
    fixed={},
)

DOCUMENT_TYPES: Mapping[str, DocumentType] = {row.name: row for row in (_ID_CARD, _BANK_CARD, _BUSINESS_LICENSE)}


def document_type(name: str) -> DocumentType:
    """The row of a type.

    Raises:
        InvalidRequestError: there is no such type.
    """
    try:
        return DOCUMENT_TYPES[name]
    except KeyError:
        known = ", ".join(DOCUMENT_TYPES)
        raise InvalidRequestError([FieldError("/document_type", f"must be one of: {known}")]) from None
