"""Every error the sandbox can answer, with Baidu's code and text, in one table.

Codes and texts follow https://ai.baidu.com/ai-doc/OCR/dk3h7y5vr, read November 2026. The HTTP status is 200 for all.
"""

from enum import Enum


class Fault(Enum):
    """An error Baidu answers: code and message, as sent."""

    UNKNOWN_PATH = (3, "Unsupported openapi method")
    NO_PERMISSION = (6, "No permission to access data")
    SIGNATURE_REFUSED = (14, "IAM Certification failed")
    DAY_LIMIT = (17, "Open api daily request limit reached")
    QPS_LIMIT = (18, "Open api qps request limit reached")
    TOKEN_MISSING = (100, "Invalid parameter")
    TOKEN_UNKNOWN = (110, "Access token invalid or no longer valid")
    TOKEN_EXPIRED = (111, "Access token expired")
    BAD_PARAMETER = (216100, "invalid param")
    MISSING_PARAMETER = (216101, "not enough param")
    EMPTY_IMAGE = (216200, "empty image")
    BAD_IMAGE_FORMAT = (216201, "image format error")
    BAD_IMAGE_SIZE = (216202, "image size error")
    BODY_TOO_LARGE = (216202, "input oversize")
    NO_BANK_CARD = (216631, "recognize bank card error")
    NO_ID_CARD = (216633, "recognize idcard error")
    INTERNAL = (282000, "internal error")
    NO_TARGET = (282102, "target detect error")
    BAD_URL = (282111, "url format illegal")
    URL_UNREACHABLE = (282112, "url download timeout")
    BAD_URL_LENGTH = (282114, "url size error")

    @property
    def code(self) -> int:
        """The vendor's number."""
        return self.value[0]

    @property
    def message(self) -> str:
        """The vendor's text."""
        return self.value[1]


class FaultError(Exception):
    """This call is answered with an error of the vendor."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault
