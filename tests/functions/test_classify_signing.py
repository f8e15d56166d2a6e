"""What AWS gets to see: signatures that hold for what arrives, over TLS that proves the name."""

import datetime
import os
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from classify import timed_socket as wire
from classify.handler import handler

from tests.functions.peers import peer
from tests.functions.worlds import PICTURE, Context, Reply, Runtime, probabilities

GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n{"probabilities":[1.0],"classes":["a"]}       '


def code_of(seconds: float = 20.0) -> str:
    value = handler(PICTURE, Context(seconds))
    return str(value.get("error", {"code": "ok"})["code"])


def signature_of(call: tuple[str, dict[str, str], bytes], token: str | None) -> str:
    """The signature that what has arrived should have."""
    path, headers, body = call
    names = re.findall(r"SignedHeaders=([^,]+)", headers["authorization"])[0].split(";")
    request = AWSRequest("POST", f"http://unused{path}", {name: headers[name] for name in names}, body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials("AKIAEXAMPLE", "example", token), "sagemaker", "eu-central-1")
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


@pytest.mark.parametrize("token", [None, "a session's token"])
def test_what_arrives_is_what_was_signed(runtime: Runtime, environment: pytest.MonkeyPatch, token: str | None) -> None:
    if token:
        environment.setenv("AWS_SESSION_TOKEN", token)
    code_of()
    [call] = runtime.calls
    authorization = call[1]["authorization"]
    assert authorization.endswith(f"Signature={signature_of(call, token)}")
    assert "/eu-central-1/sagemaker/aws4_request" in authorization
    signed = {"content-type", "host", "x-amz-date"} | ({"x-amz-security-token"} if token else set())
    assert signed <= set(re.findall(r"SignedHeaders=([^,]+)", authorization)[0].split(";"))
    assert call[1].get("x-amz-security-token") == token


def test_each_attempt_is_signed_for_its_own_moment(
    runtime: Runtime, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(datetime.datetime(2026, 11, 21, 12, 0, second) for second in range(9))
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: next(times))
    late = {"message": "Signature expired: 20261121T115000Z is now earlier than 20261121T115500Z"}
    runtime.replies = [Reply(403, late, "InvalidSignatureException"), probabilities(1.0)]
    assert code_of() == "ok"
    assert [headers["x-amz-date"] for _, headers, _ in runtime.calls] == ["20261121T120000Z", "20261121T120001Z"]


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_without_credentials_it_is_an_internal_error(
    runtime: Runtime, environment: pytest.MonkeyPatch, missing: str
) -> None:
    environment.delenv(missing)
    assert code_of() == "internal_error"
    assert runtime.calls == []


@pytest.fixture
def secure(environment: pytest.MonkeyPatch, certificate: Path) -> Iterator[ssl.SSLContext]:
    """AWS's own address in place of a configured one, and a server's context that can prove that name."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    environment.setenv("SSL_CERT_FILE", str(certificate))
    wire.tls.cache_clear()
    yield tls
    wire.tls.cache_clear()


def pretend(environment: pytest.MonkeyPatch) -> list[Any]:
    """Every connection goes to the peer; where it should have gone is told."""
    asked: list[Any] = []
    real, port = socket.create_connection, int(os.environ["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"].rpartition(":")[2])

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        return real(("127.0.0.1", port), timeout)

    environment.setattr("socket.create_connection", connect)
    environment.delenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME")
    return asked


def test_aws_itself_is_called_over_tls_by_its_name(environment: pytest.MonkeyPatch, secure: ssl.SSLContext) -> None:
    with peer(environment, [GOOD, GOOD], tls=secure) as counts:
        asked = pretend(environment)
        assert [code_of(), code_of()] == ["ok", "ok"]
    assert asked == [("runtime.sagemaker.eu-central-1.amazonaws.com", 443)]
    assert counts == [2]


def test_a_server_that_cannot_prove_its_name_gets_nothing(
    environment: pytest.MonkeyPatch, secure: ssl.SSLContext, pauses: list[float]
) -> None:
    environment.setenv("AWS_REGION", "eu-west-1")
    with peer(environment, *[[GOOD]] * 4, tls=secure) as counts:
        pretend(environment)
        assert code_of() == "endpoint_unavailable"
    assert sum(counts) == 0
