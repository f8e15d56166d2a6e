"""Whatever is sent and whatever the endpoint says: never an exception, always an answer of the table."""

import json
from typing import Any

from classify.handler import handler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.functions.test_classify_contract import ARCHITECTURE
from tests.functions.worlds import PICTURE, PNG, Context, Reply, Runtime, base64_of, http, probabilities

RETRIED = {"endpoint_throttled", "endpoint_unavailable"}
ANSWER = ["label", "model", "predictions", "probabilities", "request_id", "threshold", "timings"]

names = st.sampled_from(
    ["url", "s3_uri", "image", "top_k", "body", "headers", "requestContext", "isBase64Encoded", "http"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | st.text(max_size=9), inner, max_size=5),
    max_leaves=12,
)
refused_urls = st.text(max_size=30).map(lambda rest: f"http://{rest}")
refused_keys = st.text().map(lambda key: f"s3://elsewhere/{key}")
images = st.just(base64_of(PNG)) | st.binary(max_size=40).map(base64_of) | st.text(max_size=40)
direct = st.builds(
    lambda value, more: value | more,
    st.dictionaries(names, anything | refused_urls | refused_keys, max_size=4)
    | st.fixed_dictionaries({"image": images}),
    st.just({}) | st.fixed_dictionaries({"top_k": st.integers(-2, 1002) | anything}),
)
through_api = st.builds(
    lambda body, kind, more: http(body, kind) | more,
    st.just(PNG) | st.binary(max_size=60) | st.text(max_size=60) | direct.map(json.dumps),
    st.sampled_from([None, "application/json", "image/png", "application/octet-stream", "text/html", ";;"]),
    st.dictionaries(
        st.sampled_from(["body", "headers", "queryStringParameters", "isBase64Encoded", "version", "cookies"]),
        anything | st.fixed_dictionaries({"top_k": st.text(max_size=4)}),
        max_size=2,
    ),
)
fields = {"message": anything, "__type": anything, "code": anything, "OriginalStatusCode": anything}
replies = st.builds(
    Reply,
    st.integers(200, 599).filter(lambda status: status not in (204, 304)),  # those have no body
    st.fixed_dictionaries({}, optional=fields) | anything | st.binary(max_size=60),
    st.sampled_from(["", "ModelError", "ValidationError", "ThrottlingException", "a:b", "#", "RequestExpired"]),
)
unhurried = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def look_at(event: Any) -> str:
    """The code of an answer whose two forms agree."""
    value = handler(event, Context())
    answer = json.loads(value["body"]) if "statusCode" in value else json.loads(json.dumps(value))
    code, status = "ok", 200
    if "error" in answer:
        code, status = answer["error"]["code"], answer["error"]["status"]
        assert ARCHITECTURE[code] == status
    assert sorted(answer) == (["error", "request_id"] if "error" in answer else ANSWER)
    if "statusCode" in value:
        assert value["statusCode"] == status
        assert ("retry-after" in value["headers"]) == (code in RETRIED)
    return str(code)


@unhurried
@given(anything | direct | through_api)
def test_whatever_is_sent_gets_a_documented_answer_that_is_no_500(runtime: Runtime, event: Any) -> None:
    assert look_at(event) in {"ok", "invalid_request", "not_an_image", "too_large", "url_refused", "s3_refused"}


@unhurried
@given(replies, st.sampled_from([PICTURE, http(PNG, "image/png")]))
def test_whatever_the_endpoint_says_becomes_a_documented_answer(
    runtime: Runtime, pauses: list[float], reply: Reply, event: Any
) -> None:
    pauses.clear()
    runtime.calls.clear()
    runtime.replies = [reply]
    code = look_at(event)
    assert code not in ("invalid_request", "url_refused", "s3_refused", "fetch_failed", "fetch_timeout")
    assert len(runtime.calls) == (4 if len(pauses) == 4 else 1)


@unhurried
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(1, 6))
def test_an_answer_names_the_best_classes_in_order(runtime: Runtime, weights: list[float], top_k: int) -> None:
    total = sum(weights)
    shares = [weight / total for weight in weights] if total > 0.01 else [1.0]
    runtime.replies = [probabilities(*shares)]
    answer = handler(PICTURE | {"top_k": top_k}, Context())
    named = [entry["probability"] for entry in answer["predictions"]]
    assert named == sorted(shares, reverse=True)[:top_k]
    assert answer["label"] == answer["predictions"][0]["label"]
