"""The protocol: tokens, the order of errors, limits, quotas; no picture is read here."""

import base64
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from sandbox.accounts import Account
from sandbox.page import Page
from tests.sandbox.support import Call, FetchToken, FixedReader, ImageText, MakeClient, MakePage, MovableClock


def token_query(**changes: str) -> dict[str, str]:
    query = {"grant_type": "client_credentials", "client_id": "test-key", "client_secret": "test-secret"}
    return {name: value for name, value in (query | changes).items() if value}


# --- tokens


@pytest.mark.parametrize(("method", "place"), [("GET", "query"), ("POST", "query"), ("POST", "form")])
def test_token_has_baidus_shape(client: FlaskClient, clock: MovableClock, method: str, place: str) -> None:
    in_query, in_form = (token_query(), None) if place == "query" else (None, token_query())

    response = client.open("/oauth/2.0/token", method=method, query_string=in_query, data=in_form)

    body = response.get_json()
    expiry = int(clock().timestamp()) + 2592000
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert re.fullmatch(rf"24\.[0-9a-f]{{32}}\.2592000\.{expiry}\.282335-10000042", body["access_token"])
    assert body["expires_in"] == 2592000
    assert "brain_all_scope" in body["scope"].split(" ")


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_id": "nobody"}, 401, {"error": "invalid_client", "error_description": "unknown client id"}),
        ({"client_secret": "x"}, 401, {"error": "invalid_client", "error_description": "Client authentication failed"}),
        ({"grant_type": ""}, 400, {"error": "invalid_request"}),
        ({"grant_type": "password"}, 400, {"error": "unsupported_grant_type"}),
    ],
)
def test_refused_token_says_why(
    client: FlaskClient, changes: dict[str, str], status: Any, error: dict[str, str]
) -> None:
    response = client.post("/oauth/2.0/token", query_string=token_query(**changes))

    assert response.status_code == status
    assert error.items() <= response.get_json().items()


def test_a_new_token_leaves_the_old_one_valid(client: FlaskClient, call: Call, fetch_token: FetchToken) -> None:
    old, new = fetch_token(client), fetch_token(client)

    assert old != new
    assert "error_code" not in call(client, token=old)
    assert "error_code" not in call(client, token=new)


def test_expired_token_is_told_from_an_unknown_one(
    make_client: MakeClient, call: Call, fetch_token: FetchToken, clock: MovableClock
) -> None:
    client = make_client(token_lifetime=timedelta(seconds=60))
    token = fetch_token(client)

    clock.advance(59)
    assert "error_code" not in call(client, token=token)
    clock.advance(1)
    assert call(client, token=token)["error_code"] == 111
    assert call(client, token="24.other")["error_code"] == 110


# --- who may call what


def test_error_has_the_envelope_and_status_200(client: FlaskClient) -> None:
    response = client.post("/rest/2.0/ocr/v1/idcard?access_token=24.other", data={})

    body = response.get_json()
    assert response.status_code == 200
    assert list(body) == ["log_id", "error_code", "error_msg"]
    assert body["error_msg"] == "Access token invalid or no longer valid"
    assert len(str(body["log_id"])) in {18, 19}


@pytest.mark.parametrize("path", ["/", "/rest/2.0/ocr/v1/passport_of_mars", "/rest/2.0/solution/v1/iocr/recognise"])
def test_unknown_path_is_error_3(client: FlaskClient, path: str) -> None:
    assert client.post(path, data={}).get_json()["error_code"] == 3


def test_missing_token_is_error_100(client: FlaskClient) -> None:
    assert client.post("/rest/2.0/ocr/v1/idcard", data={"access_token": "in-the-body"}).get_json()["error_code"] == 100


def test_bce_signature_is_error_14(client: FlaskClient) -> None:
    headers = {"authorization": "bce-auth-v1/key/2026-03-01T12:00:00Z/1800/host/00"}

    body = client.post("/rest/2.0/ocr/v1/idcard", headers=headers).get_json()

    assert (body["error_code"], body["error_msg"]) == (14, "IAM Certification failed")


def test_endpoint_not_enabled_is_error_6(make_client: MakeClient, call: Call, account: Account) -> None:
    client = make_client(replace(account, endpoints=frozenset({"idcard"})))

    assert call(client)["error_code"] == 6


# --- quotas


def test_window_slides(client: FlaskClient, call: Call, clock: MovableClock) -> None:
    codes = []
    # Two calls fit in any second: the third waits for the first to be a second old, not for the clock's second.
    for wait in (0, 0.6, 0.3, 0.1, 0.0, 0.6):
        clock.advance(wait)
        codes.append(call(client).get("error_code"))

    assert codes == [None, None, 18, None, 18, None]


def test_refused_call_does_not_prolong_the_wait(client: FlaskClient, call: Call, clock: MovableClock) -> None:
    call(client), call(client)
    for _ in range(9):
        clock.advance(0.1)
        assert call(client)["error_code"] == 18

    clock.advance(0.1)
    assert "error_code" not in call(client)


def test_endpoints_and_accounts_have_windows_of_their_own(
    make_client: MakeClient, call: Call, fetch_token: FetchToken, account: Account
) -> None:
    other = replace(account, api_key="other-key")
    client = make_client(account, other)
    for _ in range(2):
        call(client)

    assert call(client)["error_code"] == 18
    assert call(client, "bankcard")["error_code"] != 18
    assert "error_code" not in call(client, token=fetch_token(client, other))


def test_qps_below_one_is_one_call_in_longer(
    make_client: MakeClient, call: Call, clock: MovableClock, account: Account
) -> None:
    client = make_client(replace(account, qps=0.5))

    codes = []
    for wait in (0, 1.9, 0.1):
        clock.advance(wait)
        codes.append(call(client).get("error_code"))

    assert codes == [None, 18, None]


def test_day_limit_ends_at_midnight_in_shanghai(
    make_client: MakeClient, call: Call, clock: MovableClock, account: Account
) -> None:
    client = make_client(replace(account, qps=100, day_limit=2))

    codes = [call(client).get("error_code") for _ in range(3)]
    clock.advance(4 * 3600 - 1)  # 23:59:59 there
    codes.append(call(client).get("error_code"))
    clock.advance(1)
    codes.append(call(client).get("error_code"))

    assert codes == [None, None, 17, 17, None]


# --- parameters and pictures


@pytest.mark.parametrize(
    ("endpoint", "form", "code"),
    [
        ("idcard", {"id_card_side": "front"}, 216101),  # neither image nor url
        ("idcard", {"id_card_side": "front", "image": "", "url": "http://example.com/a.jpg"}, 216200),  # presence wins
        ("idcard", {"image": "GOOD"}, 216101),  # no side
        ("idcard", {"image": "GOOD", "id_card_side": "left"}, 216100),
        ("idcard", {"image": "GOOD", "id_card_side": "front", "detect_risk": "yes"}, 216100),
        ("bankcard", {"image": "GOOD", "location": "maybe"}, 216100),
        ("bankcard", {"url": "x" * 1025}, 282114),
        ("bankcard", {"url": ""}, 282114),
        ("bankcard", {"url": "ftp://example.com/a.jpg"}, 282111),
        ("bankcard", {"url": "http://example.com/a.jpg"}, 282112),
        ("bankcard", {"image": "data:image/png;base64,GOOD"}, 216201),  # prefix left in
        ("bankcard", {"image": "@@@@"}, 216201),
        ("bankcard", {"image": base64.b64encode(b"not a picture").decode()}, 216201),
    ],
)
def test_bad_parameter_has_its_code(
    client: FlaskClient, call: Call, image_text: ImageText, endpoint: str, form: dict[str, str], code: int | None
) -> None:
    form = {name: value.replace("GOOD", image_text()) for name, value in form.items()}

    assert call(client, endpoint, **form)["error_code"] == code


def test_plus_signs_lost_in_transport_are_an_image_format_error(client: FlaskClient, fetch_token: FetchToken) -> None:
    text = base64.b64encode(b"\xfb\xef\xbe" * 30).decode()

    response = client.post(
        f"/rest/2.0/ocr/v1/bankcard?access_token={fetch_token(client)}",
        data=f"image={text}",
        content_type="application/x-www-form-urlencoded",
    )

    assert response.get_json()["error_code"] == 216201


@pytest.mark.parametrize(
    ("mode", "file_format", "code"),
    [
        ("RGB", "JPEG", None), ("RGB", "PNG", None), ("RGB", "BMP", None), ("L", "JPEG", None), ("RGBA", "PNG", None),
        ("P", "PNG", None), ("1", "PNG", None),
        ("CMYK", "JPEG", 216201), ("I;16", "PNG", 216201), ("RGB", "WEBP", 216201), ("P", "GIF", 216201),
        ("RGB", "TIFF", 216201),
    ],
)  # fmt: skip
def test_only_plain_jpeg_png_and_bmp_are_taken(
    client: FlaskClient, call: Call, image_text: ImageText, mode: str, file_format: str, code: int | None
) -> None:
    body = call(client, image=image_text(mode=mode, file_format=file_format))

    assert body.get("error_code") == code


@pytest.mark.parametrize(
    ("endpoint", "size", "code"),
    [
        ("general_basic", (4096, 15), None),
        ("general_basic", (4097, 15), 216202),
        ("general_basic", (100, 14), 216202),
        ("business_license", (8193, 20), 216202),
        ("business_license", (8192, 20), 282102),  # taken, and no license
    ],
)
def test_sides_are_limited_per_endpoint(
    client: FlaskClient, call: Call, image_text: ImageText, endpoint: str, size: tuple[int, int], code: int | None
) -> None:
    assert call(client, endpoint, image=image_text(size)).get("error_code") == code


def test_truncated_picture_is_an_image_format_error(client: FlaskClient, call: Call, image_text: ImageText) -> None:
    content = base64.b64decode(image_text((400, 400), file_format="JPEG"))

    assert call(client, image=base64.b64encode(content[:-200]).decode())["error_code"] == 216201


def test_length_is_judged_on_the_encoded_text(client: FlaskClient, call: Call, image_text: ImageText) -> None:
    """Base64 of 2.8 MB in which every letter is a plus sign takes three times that in the body."""
    picture = base64.b64decode(image_text(file_format="BMP"))
    padded = base64.b64encode(picture + b"\xfb\xef\xbe" * 700_000).decode()
    assert len(padded) < 3_000_000

    body = call(client, image=padded)

    assert (body["error_code"], body["error_msg"]) == (216202, "image size error")


def test_body_of_ten_megabytes_is_oversize(client: FlaskClient, call: Call) -> None:
    body = call(client, image="A" * 10_000_000)

    assert (body["error_code"], body["error_msg"]) == (216202, "input oversize")


def test_flags_are_read_in_any_case_and_unknown_names_ignored(
    client: FlaskClient, call: Call, image_text: ImageText
) -> None:
    form = {"image": image_text(), "detect_direction": "TRUE", "nonsense": "1"}

    assert call(client, **form)["direction"] == -1


# --- what is answered


def test_blank_page_is_a_success_without_words(client: FlaskClient, call: Call) -> None:
    body = call(client)

    assert (body["words_result_num"], body["words_result"]) == (0, [])


def test_front_has_the_documented_shape(
    client: FlaskClient, call: Call, image_text: ImageText, fixed_reader: FixedReader, front_page: Page
) -> None:
    fixed_reader.page = front_page
    flags = {"detect_risk": "true", "detect_quality": "true", "detect_direction": "true", "detect_photo": "true"}

    body = call(client, "idcard", image=image_text((1000, 630)), id_card_side="front", **flags)

    assert body["words_result"]["民族"] == {
        "location": {"left": 420, "top": 140, "width": 34, "height": 30},
        "words": "汉",
    }
    assert body["words_result_num"] == 6
    assert (body["idcard_number_type"], body["image_status"], body["direction"]) == (1, "normal", 0)
    assert body["risk_type"] == "normal"
    assert {"IsClear", "IsClear_propobility", "IsComplete", "IsNoCover"} <= body["card_quality"].keys()
    assert base64.b64decode(body["photo"]).startswith(b"\xff\xd8")
    assert body["photo_location"]["left"] > 600


def test_flags_not_sent_leave_their_keys_out(
    client: FlaskClient, call: Call, image_text: ImageText, fixed_reader: FixedReader, front_page: Page
) -> None:
    fixed_reader.page = front_page

    body = call(client, "idcard", image=image_text(), id_card_side="front")

    assert body.keys() == {"log_id", "words_result", "words_result_num", "idcard_number_type", "image_status"}


def test_other_side_is_read_and_called_reversed(
    client: FlaskClient, call: Call, image_text: ImageText, fixed_reader: FixedReader, front_page: Page
) -> None:
    fixed_reader.page = front_page

    body = call(client, "idcard", image=image_text(), id_card_side="back")

    assert body["image_status"] == "reversed_side"
    assert body["words_result"]["姓名"]["words"] == "测样丽"


def test_illegal_number_is_not_returned(
    client: FlaskClient, call: Call, image_text: ImageText, fixed_reader: FixedReader, make_page: MakePage
) -> None:
    fixed_reader.page = make_page(
        ("姓名测样丽", 60, 60, 220), ("性别女民族汉", 60, 140, 400), ("公民身份号码999999199003070021", 60, 530, 690)
    )

    body = call(client, "idcard", image=image_text(), id_card_side="front")

    assert body["idcard_number_type"] == 0
    assert body["words_result"]["公民身份号码"]["words"] == ""


def test_no_card_is_answered_as_the_sandbox_is_told(
    make_client: MakeClient, call: Call, image_text: ImageText, fixed_reader: FixedReader, make_page: MakePage
) -> None:
    fixed_reader.page = make_page(("样例咖啡店", 60, 60, 220))
    form = {"image": image_text((200, 200), "L"), "id_card_side": "front"}

    as_error = call(make_client(failures="error"), "idcard", **form)
    as_status = call(make_client(failures="status"), "idcard", **form)

    assert (as_error["error_code"], as_error["error_msg"]) == (216633, "recognize idcard error")
    assert "error_code" not in as_status
    assert as_status["words_result_num"] == 0
    assert as_status["idcard_number_type"] == -1


@pytest.mark.parametrize(("endpoint", "code"), [("bankcard", 216631), ("business_license", 282102)])
def test_id_card_sent_as_something_else_is_no_target(
    client: FlaskClient,
    call: Call,
    image_text: ImageText,
    fixed_reader: FixedReader,
    front_page: Page,
    endpoint: str,
    code: int,
) -> None:
    fixed_reader.page = front_page

    assert call(client, endpoint, image=image_text())["error_code"] == code


def test_defect_is_answered_as_an_internal_error(
    client: FlaskClient, call: Call, fixed_reader: FixedReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fixed_reader, "page", None)

    assert call(client)["error_code"] == 282000


def test_health_needs_no_token(client: FlaskClient) -> None:
    assert client.get("/healthz").status_code == 200
