"""The OCR endpoints the sandbox speaks: their limits, parameters and what answers them. One table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sandbox.documents.bankcard import answer_bank_card, read_bank_card
from sandbox.documents.business_license import answer_business_license, read_business_license
from sandbox.documents.general_basic import answer_general_basic
from sandbox.documents.idcard import answer_id_card, answer_no_id_card, read_id_card
from sandbox.faults import Fault, FaultError
from sandbox.page import Page
from sandbox.pictures import Picture, PictureLimits
from sandbox.quality import measure_quality

FailureStyle: TypeAlias = Literal["error", "status"]
Body: TypeAlias = dict[str, object]

TRUE = frozenset({"true", "1"})
FALSE = frozenset({"false", "0", ""})


@dataclass(frozen=True)
class Options:
    """A call's parameters, checked.

    Attributes:
        flags: every flag of the endpoint, true or false.
        choices: every enumerated parameter, with one of its values.
    """

    flags: Mapping[str, bool] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Endpoint:
    """One kind of recognition.

    Attributes:
        answer: from the text read off a picture to the body, `log_id` aside; raises FaultError if there is no target.
        required: enumerated parameters that must be sent, with their values.
        enumerated: enumerated parameters that may be left out, with their values.
    """

    name: str
    limits: PictureLimits
    flags: tuple[str, ...]
    answer: Callable[[Page, Picture, Options, FailureStyle], Body]
    required: Mapping[str, frozenset[str]] = field(default_factory=dict)
    enumerated: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def check_options(self, form: Mapping[str, str]) -> Options:
        """The options a form holds; what the endpoint does not know is ignored.

        Raises:
            FaultError: a required one is missing (216101), or one has a value it can't have (216100).
        """
        choices = {}
        for name, values in {**self.required, **self.enumerated}.items():
            value = form.get(name)
            if value is None:
                if name in self.required:
                    raise FaultError(Fault.MISSING_PARAMETER)
                continue
            if value not in values:
                raise FaultError(Fault.BAD_PARAMETER)
            choices[name] = value
        return Options({name: _flag(form.get(name, "")) for name in self.flags}, choices)


def _flag(value: str) -> bool:
    lowered = value.lower()
    if lowered not in TRUE | FALSE:
        raise FaultError(Fault.BAD_PARAMETER)
    return lowered in TRUE


def _idcard(page: Page, picture: Picture, options: Options, failures: FailureStyle) -> Body:
    card, quality = read_id_card(page), measure_quality(picture.pixels)
    if card is not None:
        side: Literal["front", "back"] = "front" if options.choices["id_card_side"] == "front" else "back"
        return answer_id_card(card, page, picture, quality, side=side, flags=options.flags)
    if failures == "error":
        raise FaultError(Fault.NO_ID_CARD)
    return answer_no_id_card(page, quality, flags=options.flags)


def _bankcard(page: Page, picture: Picture, options: Options, _: FailureStyle) -> Body:
    card = None if read_id_card(page) else read_bank_card(page)
    if card is None:
        raise FaultError(Fault.NO_BANK_CARD)
    return answer_bank_card(card, page, measure_quality(picture.pixels), flags=options.flags)


def _business_license(page: Page, picture: Picture, options: Options, _: FailureStyle) -> Body:
    license_read = read_business_license(page)
    if license_read is None:
        raise FaultError(Fault.NO_TARGET)
    return answer_business_license(license_read, page, measure_quality(picture.pixels), flags=options.flags)


def _general_basic(page: Page, picture: Picture, options: Options, _: FailureStyle) -> Body:
    return answer_general_basic(page, flags=options.flags)


_CARD_LIMITS = PictureLimits(encoded_bytes=8_000_000, shortest_side=15, longest_side=8192)

ENDPOINTS = {
    endpoint.name: endpoint
    for endpoint in (
        Endpoint(
            "idcard",
            _CARD_LIMITS,
            flags=(
                "detect_ps",
                "detect_risk",
                "detect_screenshot",
                "detect_quality",
                "detect_photo",
                "detect_card",
                "detect_direction",
                "detect_rectify",
            ),
            answer=_idcard,
            required={"id_card_side": frozenset({"front", "back"})},
        ),
        Endpoint("bankcard", _CARD_LIMITS, flags=("location", "detect_quality", "detect_direction"), answer=_bankcard),
        Endpoint(
            "business_license",
            PictureLimits(encoded_bytes=10_000_000, shortest_side=15, longest_side=8192),
            flags=("risk_warn", "detect_quality", "fullwidth_shift", "detect_direction"),
            answer=_business_license,
            enumerated={"accuracy": frozenset({"normal", "high"})},
        ),
        Endpoint(
            "general_basic",
            PictureLimits(encoded_bytes=8_000_000, shortest_side=15, longest_side=4096),
            flags=("detect_direction", "detect_language", "paragraph", "probability"),
            answer=_general_basic,
        ),
    )
}
