"""The HTTP API's way in and out (payload format 2.0)."""

import json
from typing import Any

import pytest
from classify.handler import handler

from tests.functions.worlds import PNG, Context, Reply, Runtime, base64_of, http, picture


def ask(event: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
    value = handler(event, Context())
    assert sorted(value) == ["body", "headers", "isBase64Encoded", "statusCode"]
    assert value["isBase64Encoded"] is False
    return value["statusCode"], json.loads(value["body"]), value["headers"]


def test_json_is_answered_as_a_direct_call_is(runtime: Runtime) -> None:
    event = {"image": base64_of(PNG), "top_k": 2}
    status, body, headers = ask(http(json.dumps(event), "application/json; charset=utf-8"))
    direct = handler(event, Context())
    assert status == 200
    assert body.pop("timings").keys() == direct.pop("timings").keys()
    assert body == direct
    assert headers == {"content-type": "application/json", "cache-control": "no-store"}


@pytest.mark.parametrize("content_type", ["image/jpeg", "IMAGE/PNG", "application/octet-stream", "application/x-image"])
def test_a_raw_body_is_a_picture_whatever_kind_it_claims(runtime: Runtime, content_type: str) -> None:
    status, body, _ = ask(http(picture("WEBP"), content_type))
    assert status == 200, body
    assert (runtime.calls[0][1]["content-type"], runtime.calls[0][2]) == ("image/webp", picture("WEBP"))


def test_the_content_type_is_found_in_any_spelling(runtime: Runtime) -> None:
    event = http(PNG, None) | {"headers": {"CONTENT-Type": "image/png"}}
    assert ask(event)[0] == 200


def test_json_needs_no_content_type_and_may_come_in_base64(runtime: Runtime) -> None:
    assert ask(http(json.dumps({"image": base64_of(PNG)}), None))[0] == 200
    assert ask(http(json.dumps({"image": base64_of(PNG)}).encode(), "application/json"))[0] == 200


def test_top_k_may_stand_in_the_query(runtime: Runtime) -> None:
    query = {"queryStringParameters": {"top_k": "1"}}
    assert len(ask(http(PNG, "image/png", **query))[1]["predictions"]) == 1
    as_json = json.dumps({"image": base64_of(PNG)})
    assert len(ask(http(as_json, "application/json", **query))[1]["predictions"]) == 1


@pytest.mark.parametrize("top_k", ["0", "", "two", "-1", "1001", "99999999999999999999", "1.0", "٣"])
def test_a_top_k_that_is_no_small_number_is_invalid(runtime: Runtime, top_k: str) -> None:
    status, body, _ = ask(http(PNG, "image/png", queryStringParameters={"top_k": top_k}))
    assert (status, body["error"]["code"]) == (400, "invalid_request")
    assert "1 to 1000" in body["error"]["message"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (None, "application/json"),
        ("", "image/png"),
        ("{", "application/json"),
        ("[" * 100_000, "application/json"),
        ("[]", "application/json"),
        ("7", None),
        ("1" * 5000, "application/json"),
        (b"\xff\xfe\xfd", "application/json"),
        ("url=https%3A%2F%2Fexample.com", "application/x-www-form-urlencoded"),
        ("hello", "text/plain"),
        (b"--x", "multipart/form-data; boundary=x"),
    ],
)
def test_other_bodies_are_invalid(runtime: Runtime, body: Any, content_type: str | None) -> None:
    status, answer, _ = ask(http(body, content_type))
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert "end" in answer["error"]["message"]  # Send ... or send ...
    assert runtime.calls == []


def test_a_busy_endpoint_says_when_to_come_again(runtime: Runtime) -> None:
    runtime.replies = [Reply(424, {"OriginalStatusCode": 500, "Message": "secret"}, "ModelError")]
    status, body, headers = ask(http(PNG, "image/png"))
    assert (status, body["error"]["code"]) == (503, "endpoint_unavailable")
    assert headers["retry-after"] == "5"


def test_text_where_a_picture_was_announced_is_not_one(runtime: Runtime) -> None:
    status, body, _ = ask(http("hello\ud800", "image/png"))
    assert (status, body["error"]["code"]) == (400, "not_an_image")
