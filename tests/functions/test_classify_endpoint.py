"""What the endpoint may say, over the wire: retries inside the deadline, and refusals."""

import json
import socket
import time
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from classify import error_mapping as faults
from classify.handler import handler
from classify.sagemaker_runtime import Response

from tests.functions.worlds import PICTURE, PNG, Context, Reply, Runtime, probabilities

pytestmark = pytest.mark.usefixtures("pauses")
GOOD = probabilities(0.1, 0.7, 0.2)


def container(status: int) -> Reply:
    """How SageMaker passes on an error answer of the container."""
    body = {"Message": "Received client error", "OriginalStatusCode": status, "OriginalMessage": "secret text"}
    return Reply(424, body, "ModelError")


THROTTLED = Reply(429, {"message": "Rate exceeded"}, "ThrottlingException")
UNAVAILABLE = Reply(503, {"message": "secret text"}, "ServiceUnavailable")
NOT_FOUND = Reply(400, {"message": "Endpoint kennel-test of account 123456789012 not found."}, "ValidationError")


def error_of(*replies: Reply, runtime: Runtime, seconds: float = 20.0) -> dict[str, Any]:
    runtime.replies = list(replies)
    error: dict[str, Any] = handler(PICTURE, Context(seconds))["error"]
    assert "secret" not in error["message"]
    return error


@pytest.mark.parametrize(
    "reply", [THROTTLED, UNAVAILABLE, container(503), container(429), Reply(500, {}, "InternalFailure"), Reply(None)]
)
def test_what_may_pass_is_tried_again(runtime: Runtime, reply: Reply) -> None:
    runtime.replies = [reply, reply, GOOD]
    assert handler(PICTURE, Context())["probabilities"] == [0.1, 0.7, 0.2]
    assert [body for _, _, body in runtime.calls] == [PNG] * 3


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (THROTTLED, "endpoint_throttled"),
        (Reply(400, {"message": "Rate exceeded"}, "ThrottlingException"), "endpoint_throttled"),
        (Reply(429, {"message": "loading"}, "ModelNotReadyException"), "endpoint_throttled"),
        (container(429), "endpoint_throttled"),
        (UNAVAILABLE, "endpoint_unavailable"),
        (Reply(530, {"message": "x"}, "InternalDependencyException"), "endpoint_unavailable"),
        (container(503), "endpoint_unavailable"),
        (Reply(None), "endpoint_unavailable"),
        (Reply(502, b"<html>Bad Gateway</html>"), "endpoint_unavailable"),
        (Reply(503, [1]), "endpoint_unavailable"),
        (Reply(504, b"[" * 100_000), "endpoint_unavailable"),
    ],
)
def test_after_four_attempts_it_is_given_up(runtime: Runtime, reply: Reply, code: str) -> None:
    error = error_of(reply, runtime=runtime)
    assert (error["code"], error["status"]) == (code, 503)
    assert len(runtime.calls) == 4


@pytest.mark.parametrize(
    ("reply", "code", "status"),
    [
        (NOT_FOUND, "no_model", 503),
        (container(400), "not_an_image", 400),
        (container(413), "too_large", 413),
        (container(415), "unsupported_image", 415),
        (container(404), "bad_answer", 502),
        (container(406), "bad_answer", 502),
        (container(500), "endpoint_unavailable", 503),
        (Reply(424, {"Message": "no status"}, "ModelError"), "endpoint_unavailable", 503),
        (Reply(400, {"message": "secret text"}, "ValidationError"), "internal_error", 500),
        (Reply(403, {"message": "secret text"}, "AccessDeniedException"), "internal_error", 500),
    ],
)
def test_what_will_not_pass_is_said_at_once(runtime: Runtime, reply: Reply, code: str, status: int) -> None:
    error = error_of(reply, runtime=runtime)
    assert (error["code"], error["status"]) == (code, status)
    assert len(runtime.calls) == 1


def test_without_a_model_the_caller_learns_what_to_do(runtime: Runtime) -> None:
    message = error_of(NOT_FOUND, runtime=runtime)["message"]
    assert "training pipeline" in message
    assert "approve" in message


def test_pauses_grow_and_are_drawn_at_random(runtime: Runtime, pauses: list[float]) -> None:
    error_of(THROTTLED, runtime=runtime)
    assert pauses == [0.1, 0.2, 0.4, 0.8]


def test_no_pause_outlasts_the_deadline(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 60.0)
    started = time.monotonic()
    assert error_of(THROTTLED, GOOD, runtime=runtime, seconds=5.0)["code"] == "endpoint_throttled"
    assert time.monotonic() - started < 2
    assert len(runtime.calls) == 1


def test_an_endpoint_that_hangs_is_left_before_lambda_ends_the_sandbox(runtime: Runtime) -> None:
    started = time.monotonic()
    assert error_of(Reply(200, {}, delay=30), runtime=runtime, seconds=0.8)["code"] == "endpoint_unavailable"
    assert time.monotonic() - started < 0.8


def test_without_time_the_endpoint_is_not_called(runtime: Runtime) -> None:
    assert error_of(GOOD, runtime=runtime, seconds=0.4)["code"] == "endpoint_unavailable"
    assert runtime.calls == []


def test_an_endpoint_that_refuses_connections_is_unavailable(environment: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{port}")
    assert handler(PICTURE, Context())["error"]["code"] == "endpoint_unavailable"


def test_the_log_tells_what_the_caller_does_not(runtime: Runtime, capsys: pytest.CaptureFixture[str]) -> None:
    error_of(container(500), runtime=runtime)
    line = json.loads(capsys.readouterr().out)
    assert "ModelError" in line["error"]
    assert line["code"] == "endpoint_unavailable"


def test_an_error_answer_of_an_unknown_shape_is_read_all_the_same() -> None:
    assert isinstance(faults.of_endpoint(Response(400, "", b"")), faults.Unforeseen)
    assert str(faults.of_s3({})).startswith("S3 could not give the object")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"message": "Rate exceeded"}, "ThrottlingException"),
        ({"Message": "m", "OriginalStatusCode": 400}, "ModelError:http://internal.example/"),
        ({"__type": "com.example#ModelError", "message": "m", "OriginalStatusCode": 503}, ""),
        ({"code": "ServiceUnavailable", "Message": "m"}, ""),
        ({"__type": "Other", "message": "m"}, "ValidationError"),
    ],
)
def test_an_error_is_read_as_boto3_reads_it(runtime: Runtime, body: dict[str, Any], error: str) -> None:
    runtime.replies = [Reply(424, body, error)]
    client = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    with pytest.raises(ClientError) as its:
        client.invoke_endpoint(EndpointName="kennel-test", Body=PNG)
    client.close()
    ours = faults.of_endpoint(Response(424, error, json.dumps(body).encode()))
    read = its.value.response["Error"]
    assert str(ours.__cause__ or ours) == f"{read['Code']} (424): {read['Message']}"
