"""What callers may send, and what they get: through the handler, with the runtime endpoint on loopback."""

import json
from typing import Any

import pytest
from classify.errors import INTERNAL, OUTCOMES
from classify.handler import handler, respond

from tests.functions.worlds import (
    HOST,
    PICTURE,
    PNG,
    Context,
    Internet,
    Runtime,
    Site,
    base64_of,
    page,
    picture,
    probabilities,
)

ARCHITECTURE = {
    "invalid_request": 400,
    "not_an_image": 400,
    "unsupported_image": 415,
    "too_large": 413,
    "url_refused": 403,
    "s3_refused": 403,
    "fetch_failed": 502,
    "fetch_timeout": 504,
    "no_model": 503,
    "endpoint_throttled": 503,
    "endpoint_unavailable": 503,
    "bad_answer": 502,
    "internal_error": 500,
}


def code_of(event: Any) -> str:
    value = handler(event, Context())
    assert value["request_id"] == Context().aws_request_id
    return str(value.get("error", {"code": "ok"})["code"])


def test_codes_and_statuses_are_the_documented_ones() -> None:
    assert {outcome.code: outcome.status for outcome in (*OUTCOMES.values(), INTERNAL)} == ARCHITECTURE


def test_only_a_busy_or_broken_endpoint_asks_to_come_again() -> None:
    again = {outcome.code for outcome in OUTCOMES.values() if outcome.retry_after}
    assert again == {"endpoint_throttled", "endpoint_unavailable"}


def test_a_picture_in_the_event_is_classified(runtime: Runtime) -> None:
    answer = handler(PICTURE, Context())
    assert sorted(answer.pop("timings")) == ["endpoint_ms"]
    assert answer == {
        "probabilities": [0.1, 0.7, 0.2],
        "predictions": [
            {"label": "dog", "probability": 0.7},
            {"label": "owl", "probability": 0.2},
            {"label": "cat", "probability": 0.1},
        ],
        "label": "dog",
        "threshold": None,
        "model": "arn:kennel/7",
        "request_id": Context().aws_request_id,
    }


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_the_endpoint_gets_the_bytes_with_their_kind(runtime: Runtime, kind: str) -> None:
    assert code_of({"image": base64_of(picture(kind))}) == "ok"
    [(path, headers, body)] = runtime.calls
    assert path == "/endpoints/kennel-test/invocations"
    assert (headers["content-type"], headers["accept"]) == (f"image/{kind.lower()}", "application/json")
    assert body == picture(kind)


def test_a_url_is_fetched_and_classified(runtime: Runtime, site: Site, internet: Internet) -> None:
    site.pages["/dog.png"] = page(PNG)
    value = respond({"url": f"https://{HOST}/dog.png"}, Context(), internet.fetcher().fetch)
    assert value["predictions"][0]["label"] == "dog"
    assert sorted(value["timings"]) == ["endpoint_ms", "fetch_ms"]
    assert runtime.calls[0][2] == PNG


def test_top_k_cuts_the_predictions_and_nothing_else(runtime: Runtime) -> None:
    value = handler(PICTURE | {"top_k": 2}, Context())
    assert [entry["label"] for entry in value["predictions"]] == ["dog", "owl"]
    assert len(value["probabilities"]) == 3


def test_top_k_comes_from_the_environment_unless_given(runtime: Runtime, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TOP_K", "1")
    assert len(handler(PICTURE, Context())["predictions"]) == 1
    assert len(handler(PICTURE | {"top_k": 1000}, Context())["predictions"]) == 3


def test_of_equal_classes_the_earlier_one_comes_first(runtime: Runtime) -> None:
    runtime.replies = [probabilities(0.25, 0.25, 0.25, 0.25)]
    assert [entry["label"] for entry in handler(PICTURE, Context())["predictions"]] == ["cat", "dog", "owl", "yak"]


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "DATA:image/png;name=a;BASE64,"])
def test_a_data_url_and_line_breaks_are_tolerated(runtime: Runtime, prefix: str) -> None:
    text = base64_of(PNG)
    assert code_of({"image": f"{prefix}{text[:40]}\r\n{text[40:]}\n"}) == "ok"
    assert runtime.calls[0][2] == PNG


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
def test_other_shapes_are_invalid_and_told_how_to_be_right(runtime: Runtime, event: Any) -> None:
    error = handler(event, Context())["error"]
    assert (error["code"], error["status"]) == ("invalid_request", 400)
    assert any(hint in error["message"] for hint in ("Send exactly one of", "s3://bucket/key", "top_k must", "base64"))
    assert runtime.calls == []


def test_an_unknown_field_is_named_but_not_at_any_length(runtime: Runtime) -> None:
    message = handler({"x" * 5000: 1}, Context())["error"]["message"]
    assert "x" * 40 in message
    assert len(message) < 300


def test_a_mistake_inside_is_an_internal_error_that_tells_nothing(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.delenv("ENDPOINT_NAME")
    error = handler(PICTURE, Context())["error"]
    assert (error["code"], error["status"]) == ("internal_error", 500)
    assert "ENDPOINT_NAME" not in error["message"]
    line = json.loads(capsys.readouterr().out)
    assert line["level"] == "ERROR"
    assert line["request_id"] == Context().aws_request_id
    assert "KeyError: 'ENDPOINT_NAME'" in line["error"]


def test_each_invocation_logs_one_json_line_without_the_picture(
    runtime: Runtime, capsys: pytest.CaptureFixture[str]
) -> None:
    handler(PICTURE, Context())
    handler({}, Context())
    good, bad = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert sorted(good) == ["code", "level", "milliseconds", "request_id", "status", "timings"]
    assert 0 < good["timings"]["endpoint_ms"] <= good["milliseconds"] + 0.1
    assert (good["code"], good["status"], good["level"]) == ("ok", 200, "INFO")
    assert (bad["code"], bad["status"], bad["level"]) == ("invalid_request", 400, "INFO")
    assert bad["error"].startswith("InvalidRequest: There is no picture.")


def test_the_context_may_be_missing(runtime: Runtime) -> None:
    assert handler(PICTURE, None)["request_id"] == ""
