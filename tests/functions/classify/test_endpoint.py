"""What the endpoint may answer: attempts inside the deadline, and refusals that are told apart."""

import json
import socket
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import ClientError  # type: ignore[import-untyped]

from classify import objects
from classify.errors import UnexpectedResponse
from classify.sagemaker_runtime import raise_error
from tests.functions.fakes import PNG, Endpoint, Reply, ask, code_of, probabilities

pytestmark = pytest.mark.usefixtures("pauses")
GOOD = probabilities(0.1, 0.7, 0.2)


def container(status: Any) -> Reply:
    """How SageMaker passes on an error answer of the container."""
    body = {"Message": "Received client error", "OriginalStatusCode": status, "OriginalMessage": "secret text"}
    return Reply(424, body, "ModelError")


THROTTLED = Reply(429, {"message": "Rate exceeded"}, "ThrottlingException")
UNAVAILABLE = Reply(503, {"message": "secret text"}, "ServiceUnavailable")
NOT_FOUND = Reply(400, {"message": "Endpoint kennel-test of account 123456789012 not found."}, "ValidationError")
EXPIRED = "Signature expired: 20261121T115000Z is now earlier than 20261121T115500Z"


def error_of(*replies: Reply, endpoint: Endpoint, seconds: float = 60.0) -> dict[str, Any]:
    endpoint.replies = list(replies)
    error: dict[str, Any] = ask(seconds=seconds)["error"]
    assert "secret" not in error["message"]
    return error


@pytest.mark.parametrize(
    "reply",
    [
        THROTTLED,
        UNAVAILABLE,
        container(503),
        container(429),
        Reply(500, {}, "InternalFailure"),
        Reply(403, {"message": EXPIRED}, "InvalidSignatureException"),
        Reply(None),
    ],
)
def test_what_may_pass_is_tried_again(endpoint: Endpoint, reply: Reply) -> None:
    endpoint.replies = [reply, reply, GOOD]
    assert ask()["probabilities"] == [0.1, 0.7, 0.2]
    assert [body for _, _, body in endpoint.calls] == [PNG] * 3


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
        (Reply(200, b"not gzip", headers={"Content-Encoding": "gzip"}), "endpoint_unavailable"),
    ],
)
def test_after_four_attempts_it_is_given_up(endpoint: Endpoint, reply: Reply, code: str) -> None:
    error = error_of(reply, endpoint=endpoint)
    assert (error["code"], error["status"]) == (code, 503)
    assert len(endpoint.calls) == 4


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
        (container("many"), "endpoint_unavailable", 503),
        (container([400]), "endpoint_unavailable", 503),
        (Reply(424, {"Message": "no status"}, "ModelError"), "endpoint_unavailable", 503),
        (Reply(400, {"message": "secret text"}, "ValidationError"), "internal_error", 500),
        (Reply(400, {"message": "Role not found"}, "AccessDeniedException"), "internal_error", 500),
        (Reply(403, {"message": "secret text"}, "AccessDeniedException"), "internal_error", 500),
        (Reply(403, {"message": "The security token is expired"}, "ExpiredTokenException"), "internal_error", 500),
        (Reply(302, b"", headers={"Location": "http://169.254.169.254/"}), "internal_error", 500),
    ],
)
def test_what_will_not_pass_is_said_at_once(endpoint: Endpoint, reply: Reply, code: str, status: int) -> None:
    error = error_of(reply, endpoint=endpoint)
    assert (error["code"], error["status"]) == (code, status)
    assert len(endpoint.calls) == 1


def test_without_a_model_the_caller_learns_what_to_do(endpoint: Endpoint) -> None:
    message = error_of(NOT_FOUND, endpoint=endpoint)["message"]
    assert "training pipeline" in message
    assert "approve" in message


def test_pauses_grow_and_are_drawn_at_random(endpoint: Endpoint, pauses: list[float]) -> None:
    error_of(THROTTLED, endpoint=endpoint)
    assert pauses == [0.1, 0.2, 0.4]


def test_no_pause_outlasts_the_deadline(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 3600.0)
    assert error_of(THROTTLED, GOOD, endpoint=endpoint)["code"] == "endpoint_throttled"
    assert len(endpoint.calls) == 1


def test_an_endpoint_that_hangs_is_left_before_lambda_ends_the_sandbox(endpoint: Endpoint) -> None:
    error = error_of(Reply(hangs=True), endpoint=endpoint, seconds=0.8)  # the endpoint waits for the end of the test
    assert error["code"] == "endpoint_unavailable"
    assert "in time" in error["message"]


def test_without_time_the_endpoint_is_not_called(endpoint: Endpoint) -> None:
    assert error_of(GOOD, endpoint=endpoint, seconds=0.4)["code"] == "endpoint_unavailable"
    assert endpoint.calls == []


def test_an_endpoint_that_refuses_connections_is_unavailable(environment: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", f"http://127.0.0.1:{port}")
    assert code_of() == "endpoint_unavailable"


def test_the_log_tells_what_the_caller_does_not(endpoint: Endpoint, capsys: pytest.CaptureFixture[str]) -> None:
    error_of(container(500), endpoint=endpoint)
    line = json.loads(capsys.readouterr().out)
    assert "ModelError (424): Received client error (the container answered 500: secret text)" in line["error"]
    assert line["code"] == "endpoint_unavailable"


def test_an_error_answer_of_an_unknown_shape_is_read_all_the_same() -> None:
    for body in (b"", b"[[1, 2]]", b'[["message"]]', b"7", b"\xff", b'{"message": null, "__type": 7}'):
        with pytest.raises(UnexpectedResponse):
            raise_error(400, "", body)
    assert str(objects.error_of({})).startswith("S3 could not give the object")


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
def test_an_error_is_read_as_boto3_reads_it(endpoint: Endpoint, body: dict[str, Any], error: str) -> None:
    endpoint.replies = [Reply(424, body, error)]
    client = boto3.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
    with pytest.raises(ClientError) as its:
        client.invoke_endpoint(EndpointName="kennel-test", Body=PNG)
    client.close()
    with pytest.raises(Exception, match=r".") as ours:
        raise_error(424, error, json.dumps(body).encode())
    read = its.value.response["Error"]
    assert str(ours.value.__cause__ or ours.value).startswith(f"{read['Code']} (424): {read['Message']}")
