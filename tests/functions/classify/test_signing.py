"""Where SageMaker's runtime is called, as boto3 would; what it gets to see: signatures that hold, over proven TLS."""

import datetime
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from botocore.exceptions import EndpointResolutionError  # type: ignore[import-untyped]

from classify import sagemaker_runtime
from classify.sagemaker_runtime import SageMakerRuntime, address
from tests.functions.fakes import Endpoint, Reply, code_of, peer, probabilities

GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 46\r\n\r\n{"probabilities":[1.0],"classes":["a"]}       '
SESSION = boto3.Session()
CONFIGURED = {"AWS_ENDPOINT_URL": "http://two.example"}
FIPS, DUAL_STACK = {"AWS_USE_FIPS_ENDPOINT": "true"}, {"AWS_USE_DUALSTACK_ENDPOINT": "True"}


@pytest.fixture
def bare(environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No region and no URL, whatever the machine's own environment has."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"):
        environment.delenv(name, raising=False)
    return environment


def boto3s(region: str) -> str:
    url: str = SESSION.client("sagemaker-runtime", region_name=region).meta.endpoint_url
    return url.rstrip("/")


@pytest.mark.parametrize(
    ("region", "variables"),
    [
        *((region, {}) for region in ("eu-central-1", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "eu-central-9")),
        *((region, FIPS) for region in ("us-east-1", "cn-north-1", "us-gov-west-1", "us-iso-east-1")),
        *((region, DUAL_STACK) for region in ("eu-central-1", "cn-north-1")),
        ("us-east-1", FIPS | DUAL_STACK),
        ("us-gov-west-1", FIPS | DUAL_STACK),
        ("eu-central-1", {"AWS_USE_FIPS_ENDPOINT": "false"}),
        ("eu-central-1", {"AWS_ENDPOINT_URL": "http://127.0.0.1:5000/"}),
        ("eu-central-1", {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "https://one.example/base"}),
        ("eu-central-1", {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": "http://one.example"} | CONFIGURED),
        ("eu-central-1", {"AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME": ""} | CONFIGURED),
        ("eu-central-1", {"AWS_ENDPOINT_URL": ""}),
        ("eu-central-1", CONFIGURED | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}),
        ("eu-central-1", CONFIGURED | {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"}),
        ("eu-central-1", {"AWS_ENDPOINT_URL_SAGEMAKER": "http://another-service.example"}),
    ],
)
def test_the_address_is_the_one_that_boto3_finds(
    bare: pytest.MonkeyPatch, region: str, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        bare.setenv(name, value)
    assert address(region) == boto3s(region)


@pytest.mark.parametrize(
    ("region", "variables", "sentence"),
    [
        ("eu-central-1", CONFIGURED | FIPS, "FIPS and custom endpoint are not supported"),
        ("eu-central-1", CONFIGURED | DUAL_STACK, "Dualstack and custom endpoint are not supported"),
    ],
)
def test_settings_that_do_not_go_together_are_refused_in_a_sentence(
    bare: pytest.MonkeyPatch, region: str, variables: dict[str, str], sentence: str
) -> None:
    for name, value in variables.items():
        bare.setenv(name, value)
    with pytest.raises(EndpointResolutionError, match=sentence):
        address(region)


def test_china_has_a_suffix_of_its_own(bare: pytest.MonkeyPatch) -> None:
    assert address("cn-north-1") == "https://runtime.sagemaker.cn-north-1.amazonaws.com.cn"


def test_a_url_beside_the_fips_setting_is_refused_before_a_call(
    endpoint: Endpoint, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    assert code_of() == "internal_error"
    assert "FIPS and custom endpoint are not supported" in capsys.readouterr().out
    assert endpoint.calls == []


def test_a_region_may_be_named_by_either_variable_and_lambdas_own_comes_first(bare: pytest.MonkeyPatch) -> None:
    bare.setenv("AWS_DEFAULT_REGION", "eu-west-2")
    assert SageMakerRuntime().region == "eu-west-2"
    bare.setenv("AWS_REGION", "eu-west-1")
    assert SageMakerRuntime().region == "eu-west-1"


def test_without_a_region_nothing_is_guessed(bare: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyError):
        SageMakerRuntime()


def signature_of(call: tuple[str, dict[str, str], bytes], token: str | None) -> str:
    """The signature that what has arrived should have."""
    path, headers, body = call
    names = re.findall(r"SignedHeaders=([^,]+)", headers["authorization"])[0].split(";")
    request = AWSRequest("POST", f"http://unused{path}", {name: headers[name] for name in names}, body)
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials("AKIAEXAMPLE", "example", token), "sagemaker", "eu-central-1")
    return str(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))


@pytest.mark.parametrize("token", [None, "a session's token"])
def test_what_arrives_is_what_was_signed(
    endpoint: Endpoint, environment: pytest.MonkeyPatch, token: str | None
) -> None:
    if token:
        environment.setenv("AWS_SESSION_TOKEN", token)
    code_of()
    [call] = endpoint.calls
    authorization = call[1]["authorization"]
    assert authorization.endswith(f"Signature={signature_of(call, token)}")
    assert "/eu-central-1/sagemaker/aws4_request" in authorization
    signed = {"content-type", "host", "x-amz-date"} | ({"x-amz-security-token"} if token else set())
    assert signed <= set(re.findall(r"SignedHeaders=([^,]+)", authorization)[0].split(";"))
    assert call[1].get("x-amz-security-token") == token


def test_each_attempt_is_signed_for_its_own_moment(
    endpoint: Endpoint, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(datetime.datetime(2026, 11, 21, 12, 0, second) for second in range(9))
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: next(times))
    late = {"message": "Signature expired: 20261121T115000Z is now earlier than 20261121T115500Z"}
    endpoint.replies = [Reply(403, late, "InvalidSignatureException"), probabilities(1.0)]
    assert code_of() == "ok"
    assert [headers["x-amz-date"] for _, headers, _ in endpoint.calls] == ["20261121T120000Z", "20261121T120001Z"]


@pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_without_credentials_it_is_an_internal_error(
    endpoint: Endpoint, environment: pytest.MonkeyPatch, missing: str
) -> None:
    environment.delenv(missing)
    assert code_of() == "internal_error"
    assert endpoint.calls == []


@pytest.fixture
def trusted(environment: pytest.MonkeyPatch, certificate: Path) -> Iterator[None]:
    """The tests' authority is the one that the machine believes."""
    environment.setenv("SSL_CERT_FILE", str(certificate))
    sagemaker_runtime.tls_context.cache_clear()
    yield
    sagemaker_runtime.tls_context.cache_clear()


def pretend(environment: pytest.MonkeyPatch, port: int) -> list[Any]:
    """Every connection goes to the port; where it should have gone is told."""
    dialled: list[Any] = []
    real = socket.create_connection

    def connect(address: tuple[str, int], *_: Any, **__: Any) -> socket.socket:
        dialled.append(address)
        return real(("127.0.0.1", port))

    environment.setattr("urllib3.util.connection.create_connection", connect)
    environment.delenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME")
    return dialled


@pytest.mark.usefixtures("trusted")
def test_aws_itself_is_called_over_tls_by_its_name(environment: pytest.MonkeyPatch, server_tls: ssl.SSLContext) -> None:
    with peer(environment, [GOOD, GOOD], tls=server_tls) as counts:
        dialled = pretend(environment, counts.port)
        assert [code_of(), code_of()] == ["ok", "ok"]
    assert dialled == [("runtime.sagemaker.eu-central-1.amazonaws.com", 443)]
    assert counts == [2]


@pytest.mark.usefixtures("trusted")
def test_a_server_that_cannot_prove_its_name_gets_nothing(
    environment: pytest.MonkeyPatch, server_tls: ssl.SSLContext, pauses: list[float]
) -> None:
    environment.setenv("AWS_REGION", "eu-west-1")
    with peer(environment, *[[GOOD]] * 4, tls=server_tls) as counts:
        pretend(environment, counts.port)
        assert code_of() == "endpoint_unavailable"
    assert sum(counts) == 0


def test_a_server_of_an_unknown_authority_gets_nothing(
    environment: pytest.MonkeyPatch, server_tls: ssl.SSLContext, pauses: list[float]
) -> None:
    with peer(environment, *[[GOOD]] * 4, tls=server_tls) as counts:
        pretend(environment, counts.port)
        assert code_of() == "endpoint_unavailable"
    assert sum(counts) == 0
