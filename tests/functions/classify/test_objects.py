"""Pictures named by s3_uri: from an S3 that is real enough to know ranges, and from one that breaks."""

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from tests.functions.fakes import PNG, Endpoint, ask

BUCKET = "pictures-bucket"


@pytest.fixture
def s3(moto_server: str, endpoint: Endpoint, environment: pytest.MonkeyPatch) -> Any:
    """A client of the S3 that the function reads from; the bucket is there."""
    environment.setenv("AWS_ENDPOINT_URL_S3", moto_server)
    client = boto3.client("s3")
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return client


def read(uri: str, seconds: float = 60.0) -> dict[str, Any]:
    return ask({"s3_uri": uri}, seconds)


def code_of(uri: str) -> str:
    return str(read(uri)["error"]["code"])


@pytest.mark.parametrize("key", ["photos/dog.png", "photos/2026/süß + 100%.png", "photos/a?b#c"])
def test_an_object_in_an_allowed_place_is_classified(s3: Any, endpoint: Endpoint, key: str) -> None:
    s3.put_object(Bucket=BUCKET, Key=key, Body=PNG)
    assert read(f"s3://{BUCKET}/{key}")["predictions"][0]["label"] == "dog"
    assert endpoint.calls[0][2] == PNG


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://{BUCKET}/secret/dog.png",
        f"s3://{BUCKET}/photos-secret/dog.png",
        f"s3://{BUCKET}/photos/../secret/dog.png",
        f"s3://{BUCKET}/photos/./dog.png",
        f"s3://{BUCKET}//photos/dog.png",
        f"s3://{BUCKET}/Photos/dog.png",
        f"s3://{BUCKET}-2/photos/dog.png",
        "s3://other-bucket/photos/dog.png",
        f"s3://other-bucket/{BUCKET}/photos/dog.png",
    ],
)
def test_an_object_elsewhere_is_refused_without_a_call(
    endpoint: Endpoint, environment: pytest.MonkeyPatch, uri: str
) -> None:
    environment.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # a call would end as fetch_failed
    error = read(uri)["error"]
    assert (error["code"], error["status"]) == ("s3_refused", 403)
    assert "the stack allows" in error["message"]


@pytest.mark.parametrize("allowed", ["", ",", " , / ,"])
def test_nothing_allowed_means_nothing_is_read(
    endpoint: Endpoint, environment: pytest.MonkeyPatch, allowed: str
) -> None:
    environment.setenv("ALLOWED_S3_PREFIXES", allowed)
    assert code_of(f"s3://{BUCKET}/photos/dog.png") == "s3_refused"


@pytest.mark.parametrize("allowed", [BUCKET, f"{BUCKET}/", f"x/y, {BUCKET}/photos/", f"{BUCKET}/photos"])
def test_a_prefix_is_a_folder_however_it_is_written(s3: Any, environment: pytest.MonkeyPatch, allowed: str) -> None:
    environment.setenv("ALLOWED_S3_PREFIXES", allowed)
    s3.put_object(Bucket=BUCKET, Key="photos/dog.png", Body=PNG)
    assert "predictions" in read(f"s3://{BUCKET}/photos/dog.png")


def test_an_object_that_is_not_there_is_refused(s3: Any) -> None:
    error = read(f"s3://{BUCKET}/photos/none.png")["error"]
    assert (error["code"], error["status"]) == ("s3_refused", 403)
    assert "does not exist, or may not be read" in error["message"]


def test_a_bucket_that_is_not_there_is_refused(s3: Any, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ALLOWED_S3_PREFIXES", "no-such-bucket")
    assert code_of("s3://no-such-bucket/dog.png") == "s3_refused"


def test_an_empty_object_is_no_picture(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="photos/empty.png", Body=b"")
    assert code_of(f"s3://{BUCKET}/photos/empty.png") == "not_an_image"


def test_an_object_may_have_just_the_bound(s3: Any, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("MAX_BYTES", str(len(PNG)))
    s3.put_object(Bucket=BUCKET, Key="photos/dog.png", Body=PNG)
    s3.put_object(Bucket=BUCKET, Key="photos/dogs.png", Body=PNG + b"x")
    assert "predictions" in read(f"s3://{BUCKET}/photos/dog.png")
    assert code_of(f"s3://{BUCKET}/photos/dogs.png") == "too_large"


@pytest.fixture
def broken(endpoint: Endpoint, environment: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An S3 that answers what the test wrote into the dictionary, and keeps the ranges that were asked for."""
    said: dict[str, Any] = {"status": 200, "body": b"", "length": None, "ranges": []}
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said["ranges"].append(self.headers["Range"])
            over.wait(said.get("delay", 0))
            self.send_response(said["status"])
            self.send_header("Content-Length", str(said["length"] or len(said["body"])))
            self.end_headers()
            self.wfile.write(said["body"])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        environment.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.0)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield said
        over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (403, b"<Error><Code>AccessDenied</Code><Message>secret</Message></Error>", "s3_refused"),
        (400, b"<Error><Code>KeyTooLongError</Code></Error>", "fetch_failed"),
        (503, b"<Error><Code>SlowDown</Code></Error>", "fetch_failed"),
        (500, b"not even XML", "fetch_failed"),
    ],
)
def test_errors_of_s3_are_told_apart(broken: dict[str, Any], status: int, body: bytes, code: str) -> None:
    broken |= {"status": status, "body": body}
    error = read(f"s3://{BUCKET}/photos/dog.png")["error"]
    assert error["code"] == code
    assert "secret" not in error["message"]


def test_never_more_than_the_bound_and_a_byte_is_asked_for(
    broken: dict[str, Any], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("MAX_BYTES", "1000")
    broken |= {"status": 206, "body": PNG}
    read(f"s3://{BUCKET}/photos/dog.png")
    assert broken["ranges"] == ["bytes=0-1000"]


def test_an_object_that_breaks_off_fails(broken: dict[str, Any]) -> None:
    broken |= {"status": 206, "body": PNG, "length": len(PNG) + 1000}
    assert code_of(f"s3://{BUCKET}/photos/dog.png") == "fetch_failed"


def test_an_s3_that_hangs_is_left_in_time(broken: dict[str, Any]) -> None:
    broken |= {"delay": 30}
    error = read(f"s3://{BUCKET}/photos/dog.png", seconds=1.0)["error"]
    assert (error["code"], error["status"]) == ("fetch_timeout", 504)


def test_an_s3_that_is_not_there_fails(endpoint: Endpoint, environment: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    environment.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    assert code_of(f"s3://{BUCKET}/photos/dog.png") == "fetch_failed"
