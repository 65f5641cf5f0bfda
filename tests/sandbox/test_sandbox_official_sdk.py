"""The official Python SDK, a client nobody here wrote, against a sandbox that listens."""

from dataclasses import replace
from typing import Any, Protocol

import pytest
from aip import AipOcr
from aip.base import AipBase

from sandbox.accounts import Account
from sandbox.app import SandboxConfig, create_app
from sandbox.reader import PaddleReader
from tests.sandbox.support import SAMPLES, FixedReader, MovableClock, RunSandbox

pytestmark = [
    pytest.mark.enable_socket,
    # The SDK leaves its connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

BAIDU = "https://aip.baidubce.com"
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d494844520000001400000014080000000085a8f9e6"
)  # only the head of one: no picture is read where this is sent


class MakeSdk(Protocol):
    """The SDK pointed at a sandbox."""

    def __call__(self, url: str, api_key: str = "test-key", secret_key: str = "test-secret") -> Any: ...


@pytest.fixture
def make_sdk() -> MakeSdk:
    """The SDK with every address of Baidu replaced by the sandbox's."""

    def make(url: str, api_key: str = "test-key", secret_key: str = "test-secret") -> Any:
        sdk = AipOcr("10000042", api_key, secret_key)
        for owner in (AipBase, AipOcr):
            for name, value in vars(owner).items():
                if isinstance(value, str) and value.startswith(BAIDU):
                    setattr(sdk, name, value.replace(BAIDU, url))
        return sdk

    return make


@pytest.fixture
def generous(account: Account) -> Account:
    return replace(account, qps=1000)


def photo(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


@pytest.mark.slow
def test_cards_are_recognized(
    run_sandbox: RunSandbox, make_sdk: MakeSdk, paddle_reader: PaddleReader, generous: Account
) -> None:
    sdk = make_sdk(run_sandbox(paddle_reader, generous).url)

    front = sdk.idcard(photo("id_front_desk.jpg"), "front", {"detect_direction": "true"})
    back = sdk.idcard(photo("id_back_desk.jpg"), "back")
    bank = sdk.bankcard(photo("bank_credit.jpg"))
    licensed = sdk.businessLicense(photo("license_landscape.jpg"))
    text = sdk.basicGeneral(photo("id_back_desk.jpg"))

    assert front["words_result"]["公民身份号码"]["words"] == "999999199003070020"
    assert (front["image_status"], front["idcard_number_type"], front["direction"]) == ("normal", 1, 0)
    assert back["words_result"]["失效日期"]["words"] == "20350612"
    assert bank["result"]["bank_card_number"] == "9999 9904 3781 5265"
    assert licensed["words_result"]["社会信用代码"]["words"] == "91999999MA7K2P4W3J"
    assert text["words_result_num"] == len(text["words_result"]) > 3


def test_wrong_secret_ends_in_a_refused_signature(
    run_sandbox: RunSandbox, make_sdk: MakeSdk, fixed_reader: FixedReader
) -> None:
    sdk = make_sdk(run_sandbox(fixed_reader).url, secret_key="wrong")

    assert sdk.bankcard(PNG)["error_code"] == 14


def test_too_many_calls_end_in_error_18(run_sandbox: RunSandbox, make_sdk: MakeSdk, fixed_reader: FixedReader) -> None:
    sdk = make_sdk(run_sandbox(fixed_reader).url)

    codes = [sdk.bankcard(PNG)["error_code"] for _ in range(3)]

    assert codes == [216201, 216201, 18]


def test_unknown_token_is_fetched_anew_once(
    run_sandbox: RunSandbox, make_sdk: MakeSdk, clock: MovableClock, account: Account
) -> None:
    reader = FixedReader()
    sandbox = run_sandbox(reader)
    sdk = make_sdk(sandbox.url)
    sdk.bankcard(PNG)
    old = sdk._authObj["access_token"]

    sandbox.app = create_app(SandboxConfig((account,)), reader, clock=clock)  # restarted: old tokens are forgotten

    assert sdk.bankcard(PNG)["error_code"] == 216201
    assert sdk._authObj["access_token"] != old


def test_expired_token_is_not_refreshed_by_the_sdk(
    run_sandbox: RunSandbox, make_sdk: MakeSdk, fixed_reader: FixedReader, clock: MovableClock
) -> None:
    """The SDK repeats a call on 110 alone; it avoids 111 by its own clock."""
    sdk = make_sdk(run_sandbox(fixed_reader).url)
    sdk.bankcard(PNG)

    clock.advance(2_592_000)

    assert sdk.bankcard(PNG)["error_code"] == 111
