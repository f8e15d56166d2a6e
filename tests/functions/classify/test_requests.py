"""What callers may send, and what they get: directly, and through the HTTP API (payload format 2.0)."""

import json
from typing import Any

import pytest

from classify.handler import handler
from tests.functions.fakes import (
    HOST,
    IMAGE,
    PNG,
    Context,
    Endpoint,
    Internet,
    Reply,
    Site,
    ask,
    base64_of,
    code_of,
    http,
    page,
    picture,
    probabilities,
)


def test_an_image_in_the_event_is_classified(endpoint: Endpoint) -> None:
    answer = ask(IMAGE)
    assert sorted(answer.pop("timings")) == ["endpoint_ms"]
    assert answer == {
        "probabilities": [0.1, 0.7, 0.2],
        "predictions": [
            {"label": "dog", "probability": 0.7},
            {"label": "owl", "probability": 0.2},
            {"label": "cat", "probability": 0.1},
        ],
        "label": "dog",
        "verdict": "class",
        "threshold": None,
        "known": None,
        "model": "arn:kennel/7",
        "request_id": Context().aws_request_id,
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_the_endpoint_gets_the_bytes_with_their_kind(endpoint: Endpoint, kind: str) -> None:
    assert code_of({"image": base64_of(picture(kind))}) == "ok"
    [(path, headers, body)] = endpoint.calls
    assert path == "/endpoints/kennel-test/invocations"
    assert (headers["content-type"], headers["accept"]) == (f"image/{kind.lower()}", "application/json")
    assert headers["x-amzn-sagemaker-inference-id"] == Context().aws_request_id
    assert body == picture(kind)


def test_a_url_is_fetched_and_classified(endpoint: Endpoint, site: Site, internet: Internet) -> None:
    site.pages["/dog.png"] = page(PNG)
    value = ask({"url": f"https://{HOST}/dog.png"})
    assert value["predictions"][0]["label"] == "dog"
    assert sorted(value["timings"]) == ["endpoint_ms", "fetch_ms"]
    assert endpoint.calls[0][2] == PNG


def test_top_k_cuts_the_predictions_and_nothing_else(endpoint: Endpoint) -> None:
    value = ask(IMAGE | {"top_k": 2})
    assert [entry["label"] for entry in value["predictions"]] == ["dog", "owl"]
    assert len(value["probabilities"]) == 3


def test_top_k_comes_from_the_environment_unless_given(endpoint: Endpoint, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TOP_K", "1")
    assert len(ask(IMAGE)["predictions"]) == 1
    assert len(ask(IMAGE | {"top_k": 1000})["predictions"]) == 3


def test_of_equal_classes_the_earlier_one_comes_first(endpoint: Endpoint) -> None:
    endpoint.replies = [probabilities(0.25, 0.25, 0.25, 0.25)]
    assert [entry["label"] for entry in ask(IMAGE)["predictions"]] == ["cat", "dog", "owl", "yak"]


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "DATA:image/png;name=a;BASE64,"])
def test_a_data_url_and_line_breaks_are_tolerated(endpoint: Endpoint, prefix: str) -> None:
    text = base64_of(PNG)
    assert code_of({"image": f"{prefix}{text[:40]}\r\n{text[40:]}\n"}) == "ok"
    assert endpoint.calls[0][2] == PNG


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "https://example.com/a.jpg",
        7,
        {},
        {"top_k": 3},
        {"url": None},
        {"url": ""},
        {"url": 7},
        {"url": ["https://example.com"]},
        {"s3_uri": {}},
        {"s3_uri": "photos/a.jpg"},
        {"s3_uri": "s3://pictures-bucket"},
        {"s3_uri": "s3://pictures-bucket/"},
        {"s3_uri": "s3:///a.jpg"},
        {"s3_uri": "S3://pictures-bucket/photos/\ud800"},
        {"s3_uri": "s3://pictures-bucket/photos/\ud800"},
        {"s3_uri": f"s3://pictures-bucket/photos/{'a' * 2000}"},
        {"image": ""},
        {"image": b"bytes".hex},
        {"image": "no base64!"},
        {"image": "abc"},
        {"image": "aGk=", "url": "https://example.com"},
        {"url": "https://example.com", "s3_uri": "s3://a/b"},
        {"Url": "https://example.com"},
        {"image": "aGk=", "topk": 3},
        {"image": "aGk=", "top_k": 0},
        {"image": "aGk=", "top_k": -1},
        {"image": "aGk=", "top_k": 1001},
        {"image": "aGk=", "top_k": True},
        {"image": "aGk=", "top_k": 2.0},
        {"image": "aGk=", "top_k": "3"},
        {"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}},
    ],
)
def test_other_shapes_are_invalid_and_told_how_to_be_right(endpoint: Endpoint, event: Any) -> None:
    error = ask(event)["error"]
    assert (error["code"], error["status"]) == ("invalid_request", 400)
    assert any(hint in error["message"] for hint in ("Send exactly one of", "s3://bucket/key", "top_k must", "base64"))
    assert endpoint.calls == []


def test_an_unknown_field_is_named_but_not_at_any_length(endpoint: Endpoint) -> None:
    message = ask({"x" * 5000: 1})["error"]["message"]
    assert "x" * 40 in message
    assert len(message) < 300


def test_a_mistake_inside_is_an_internal_error_that_tells_nothing(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("ENDPOINT_NAME")
    error = ask(IMAGE)["error"]
    assert (error["code"], error["status"]) == ("internal_error", 500)
    assert "ENDPOINT_NAME" not in error["message"]
    line = json.loads(capsys.readouterr().out)
    assert line["level"] == "ERROR"
    assert line["request_id"] == Context().aws_request_id
    assert "KeyError: 'ENDPOINT_NAME'" in line["error"]


def test_each_invocation_logs_one_json_line_without_the_image(
    endpoint: Endpoint, capsys: pytest.CaptureFixture[str]
) -> None:
    ask(IMAGE)
    ask({})
    good, bad = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert sorted(good) == ["code", "level", "milliseconds", "request_id", "status", "timings"]
    assert 0 < good["timings"]["endpoint_ms"] <= good["milliseconds"] + 0.1
    assert (good["code"], good["status"], good["level"]) == ("ok", 200, "INFO")
    assert (bad["code"], bad["status"], bad["level"]) == ("invalid_request", 400, "INFO")
    assert bad["error"].startswith("InvalidRequest: There is no image.")


def test_the_context_may_be_missing(endpoint: Endpoint) -> None:
    assert handler(IMAGE, None)["request_id"] == ""


def through_api(event: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
    value = handler(event, Context())
    assert sorted(value) == ["body", "headers", "isBase64Encoded", "statusCode"]
    assert value["isBase64Encoded"] is False
    return value["statusCode"], json.loads(value["body"]), value["headers"]


def test_json_is_answered_as_a_direct_call_is(endpoint: Endpoint) -> None:
    event = {"image": base64_of(PNG), "top_k": 2}
    status, body, headers = through_api(http(json.dumps(event), "application/json; charset=utf-8"))
    direct = ask(event)
    assert status == 200
    assert body.pop("timings").keys() == direct.pop("timings").keys()
    assert body == direct
    assert headers == {"content-type": "application/json", "cache-control": "no-store"}


@pytest.mark.parametrize("content_type", ["image/jpeg", "IMAGE/PNG", "application/octet-stream", "application/x-image"])
def test_a_raw_body_is_an_image_whatever_kind_it_claims(endpoint: Endpoint, content_type: str) -> None:
    status, body, _ = through_api(http(picture("WEBP"), content_type))
    assert status == 200, body
    assert (endpoint.calls[0][1]["content-type"], endpoint.calls[0][2]) == ("image/webp", picture("WEBP"))


def test_the_content_type_is_found_in_any_spelling(endpoint: Endpoint) -> None:
    event = http(PNG, None) | {"headers": {"CONTENT-Type": "image/png"}}
    assert through_api(event)[0] == 200


def test_json_needs_no_content_type_and_may_come_in_base64(endpoint: Endpoint) -> None:
    assert through_api(http(json.dumps({"image": base64_of(PNG)}), None))[0] == 200
    assert through_api(http(json.dumps({"image": base64_of(PNG)}).encode(), "application/json"))[0] == 200


def test_top_k_may_stand_in_the_query(endpoint: Endpoint) -> None:
    query = {"queryStringParameters": {"top_k": "1"}}
    assert len(through_api(http(PNG, "image/png", **query))[1]["predictions"]) == 1
    as_json = json.dumps({"image": base64_of(PNG)})
    assert len(through_api(http(as_json, "application/json", **query))[1]["predictions"]) == 1


@pytest.mark.parametrize("top_k", ["0", "", "two", "-1", "1001", "99999999999999999999", "1.0", "٣"])
def test_a_top_k_that_is_no_small_number_is_invalid(endpoint: Endpoint, top_k: str) -> None:
    status, body, _ = through_api(http(PNG, "image/png", queryStringParameters={"top_k": top_k}))
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
def test_other_bodies_are_invalid(endpoint: Endpoint, body: Any, content_type: str | None) -> None:
    status, answer, _ = through_api(http(body, content_type))
    assert (status, answer["error"]["code"]) == (400, "invalid_request")
    assert "end" in answer["error"]["message"]  # Send ... or send ...
    assert endpoint.calls == []


def test_a_busy_endpoint_says_when_to_come_again(endpoint: Endpoint) -> None:
    endpoint.replies = [Reply(424, {"OriginalStatusCode": 429, "Message": "secret"}, "ModelError")]
    status, body, headers = through_api(http(PNG, "image/png"))
    assert (status, body["error"]["code"]) == (503, "endpoint_throttled")
    assert headers["retry-after"] == "2"


def test_text_where_an_image_was_announced_is_not_one(endpoint: Endpoint) -> None:
    status, body, _ = through_api(http("hello\ud800", "image/png"))
    assert (status, body["error"]["code"]) == (400, "not_an_image")
