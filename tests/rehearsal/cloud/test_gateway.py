"""Who may call the embedded AWS: a program that holds the secret of a key, and neither a web page nor anybody else."""

import http.client
import io
import zipfile
from datetime import timedelta
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
import botocore.auth  # type: ignore[import-untyped]
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.compat import get_current_datetime  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]

from kennel.rehearsal.cloud import clients
from tests.rehearsal.cloud.world import World, refusal

READER = "arn:aws:iam::123456789012:role/reader"


@pytest.fixture(scope="module")
def world(empty_world: World) -> World:
    s3 = empty_world.cloud.client("s3")
    for bucket in ("data", "private"):
        s3.create_bucket(Bucket=bucket)
        s3.put_object(Bucket=bucket, Key="a", Body=b"the object")
    everything = {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::data", "arn:aws:s3:::data/*"]}
    empty_world.role("reader", everything)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("h.py", "")
    empty_world.cloud.client("lambda").create_function(
        FunctionName="classify",
        Runtime="python3.13",
        Role=READER,
        Handler="h.h",
        Code={"ZipFile": packed.getvalue()},
    )
    return empty_world


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()


def send(world: World, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """Send a request as it stands; `Host` names the server unless given."""
    place = urlsplit(world.cloud.url)
    connection = http.client.HTTPConnection("127.0.0.1", place.port or 0, timeout=60)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in {"Host": place.netloc, "Content-Length": str(len(body)), **named}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    try:
        return Answer(connection.getresponse())
    finally:
        connection.close()


def sign(
    world: World, method: str, path: str, service: str, body: bytes = b"", role: str | None = None, **headers: str
) -> dict[str, str]:
    """Return the headers of a request with its signature by the administrator or a role, as boto3 signs."""
    keys = world.cloud.environment(role)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    named = {"Host": urlsplit(world.cloud.url).netloc} | {key.replace("_", "-"): one for key, one in headers.items()}
    request = AWSRequest(method, f"http://localhost{path}", named, body)
    signer = S3SigV4Auth if service == "s3" and "X_Amz_Content_Sha256" not in headers else SigV4Auth
    signer(Credentials(*map(keys.get, names)), service, "us-east-1").add_auth(request)
    return dict(request.headers.items())


INVOKE = ("POST", "/2015-03-31/functions/classify/invocations")


def test_each_run_has_a_key_of_its_own(world: World) -> None:
    first = world.cloud.environment()
    clients.use_server(world.cloud.url)
    second = world.cloud.environment()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert first[name] != second[name]
    assert len(second["AWS_SECRET_ACCESS_KEY"]) == 40
    old = boto3.client("s3", endpoint_url=world.cloud.url, **arguments(first))
    assert refusal(old.list_buckets)[0] == "InvalidAccessKeyId"


def arguments(environment: dict[str, str]) -> dict[str, str]:
    """The arguments of boto3.client that say the same."""
    names = {f"aws_{name}": f"AWS_{name.upper()}" for name in ("access_key_id", "secret_access_key", "session_token")}
    found = {name: environment[variable] for name, variable in names.items() if variable in environment}
    return {**found, "region_name": "us-east-1"}


@pytest.mark.parametrize("role", [None, READER])
@pytest.mark.parametrize(
    ("service", "operation", "code"),
    [
        ("s3", "list_buckets", "SignatureDoesNotMatch"),
        ("sts", "get_caller_identity", "SignatureDoesNotMatch"),
        ("lambda", "list_functions", "InvalidSignatureException"),
        ("cloudformation", "list_stacks", "SignatureDoesNotMatch"),
        ("sagemaker", "list_models", "InvalidSignatureException"),
    ],
)
def test_a_key_without_its_secret_opens_nothing(
    world: World, role: str | None, service: str, operation: str, code: str
) -> None:
    wrong = {**world.cloud.environment(role), "AWS_SECRET_ACCESS_KEY": "guessed"}
    client = boto3.client(service, endpoint_url=world.cloud.url, **arguments(wrong))
    assert refusal(getattr(client, operation))[0] == code


@pytest.mark.parametrize("role", [None, READER])
@pytest.mark.parametrize("key", ["b", "a b/ü+=&?#%.txt", "a//b", "/a", "a/../b", "a/./b", "~!*'()", "a%20b", "a;b:c@d"])
def test_an_object_of_any_name_is_written_and_read(world: World, key: str, role: str | None) -> None:
    s3 = world.cloud.client("s3", role)
    metadata = {"under_score": "a  b", "dash-ed": "c"}
    s3.put_object(Bucket="data", Key=key, Body=b"{}", Metadata=metadata, ContentType="text/plain; charset=utf-8")
    found = s3.get_object(Bucket="data", Key=key, ResponseContentType="x/y")
    assert (found["Body"].read(), found["Metadata"]) == (b"{}", metadata)
    assert [one["Key"] for one in s3.list_objects_v2(Bucket="data", Prefix=key)["Contents"]] == [key]
    s3.delete_object(Bucket="data", Key=key)


def test_a_large_object_goes_up_in_parts_and_down_in_ranges(world: World) -> None:
    s3, body = world.cloud.client("s3", READER), bytes(range(256)) * 2**16
    s3.upload_fileobj(io.BytesIO(body), "data", "large")
    received = io.BytesIO()
    s3.download_fileobj("data", "large", received)
    assert received.getvalue() == body


SUMMED = b"3\r\nabc\r\n3\r\ndef\r\n0\r\nx-amz-checksum-crc32:S7Skng==\r\n\r\n"  # aws-chunked, with a checksum after it


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("UNSIGNED-PAYLOAD", b"abcdef"),
        ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", SUMMED),
    ],
)
def test_a_body_that_is_not_hashed_is_taken_as_s3_takes_it(world: World, form: str, body: bytes) -> None:
    more = {"X_Amz_Content_Sha256": form}
    if body is SUMMED:
        more |= {"X_Amz_Trailer": "x-amz-checksum-crc32", "X_Amz_Decoded_Content_Length": "6"}
        more |= {"Content_Encoding": "aws-chunked"}
    answer = send(world, "PUT", "/data/streamed", body, **sign(world, "PUT", "/data/streamed", "s3", body, **more))
    assert answer.status == 200, answer.body
    found = world.cloud.client("s3").get_object(Bucket="data", Key="streamed")
    assert found["Body"].read() == b"abcdef"


def test_what_was_changed_after_it_was_signed_is_refused(world: World) -> None:
    good = sign(world, "PUT", "/data/changed?x=1", "s3", b"good", X_Amz_Meta_A="b")
    changes: list[tuple[str, str, bytes, dict[str, str]]] = [
        ("POST", "/data/changed?x=1", b"good", {}),
        ("PUT", "/data/other?x=1", b"good", {}),
        ("PUT", "/private/changed?x=1", b"good", {}),
        ("PUT", "/data/changed?x=2", b"good", {}),
        ("PUT", "/data/changed?x=1&acl", b"good", {}),
        ("PUT", "/data/changed?x=1", b"evil", {}),
        ("PUT", "/data/changed?x=1", b"good", {"X-Amz-Meta-A": "c"}),
        ("PUT", "/data/changed?x=1", b"good", {"X-Amz-Copy-Source": "private/a"}),
        ("PUT", "/data/changed?x=1", b"evil", {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}),
    ]
    for method, path, body, more in changes:
        assert send(world, method, path, body, **{**good, **more}).status in (400, 403), (method, path, more)
    assert world.cloud.client("s3").list_objects_v2(Bucket="data", Prefix="changed")["KeyCount"] == 0
    assert send(world, "PUT", "/data/changed?x=1", b"good", **good).status == 200


def test_a_call_whose_body_was_changed_does_nothing(world: World) -> None:
    good = sign(world, *INVOKE, "lambda", b"{}")
    assert send(world, *INVOKE, b'{"a": 1}', **good).status == 403
    assert world.calls == []
    assert send(world, *INVOKE, b"{}", **good).status == 200
    assert len(world.calls) == 1
    world.calls.clear()


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_signature_of_another_time_is_refused(world: World, monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    monkeypatch.setattr(
        botocore.auth, "get_current_datetime", lambda: get_current_datetime() + timedelta(minutes=minutes)
    )
    assert refusal(world.cloud.client("s3").list_buckets)[0] == "RequestTimeTooSkewed"
    code, text = refusal(world.cloud.client("lambda").list_functions)
    assert (code, "Signature expired" in text) == ("InvalidSignatureException", True)


# ---- presigned URLs
def presigned(world: World, operation: str, seconds: int = 60, role: str | None = None, **parameters: str) -> str:
    keys = arguments(world.cloud.environment(role))
    s3 = boto3.client("s3", endpoint_url=world.cloud.url, config=Config(signature_version="s3v4"), **keys)
    url = urlsplit(s3.generate_presigned_url(operation, {"Bucket": "data", **parameters}, seconds))
    return f"{url.path}?{url.query}"


@pytest.mark.parametrize("role", [None, READER])
def test_a_presigned_url_does_what_it_was_signed_for_and_nothing_else(world: World, role: str | None) -> None:
    put = presigned(world, "put_object", role=role, Key="pre signed")
    assert send(world, "PUT", put, b"sent").status == 200
    get = presigned(world, "get_object", role=role, Key="pre signed")
    assert send(world, "GET", get).body == b"sent"
    assert send(world, "DELETE", get).status == 403
    assert send(world, "GET", get.replace("pre%20signed", "a")).status == 403
    assert send(world, "GET", get.replace("/data/", "/private/")).status == 403
    assert send(world, "GET", get + "&versionId=1").status == 403
    assert send(world, "GET", get.replace("Expires=60", "Expires=6000")).status == 403
    assert send(world, "PUT", put, X_Amz_Copy_Source="private/a").status == 403
    assert send(world, "GET", get).body == b"sent"


def test_a_presigned_url_ends_with_its_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: get_current_datetime() - timedelta(seconds=90))
    assert send(world, "GET", presigned(world, "get_object", 60, Key="a")).status == 403
    assert send(world, "GET", presigned(world, "get_object", 120, Key="a")).body == b"the object"


def test_a_presigned_url_reaches_no_other_service(world: World) -> None:
    """moto finds the service of a request without Authorization by its body."""
    form = f"Action=AssumeRoleWithWebIdentity&RoleArn={READER}&RoleSessionName=x&WebIdentityToken=x".encode()
    kind = "application/x-www-form-urlencoded"
    answer = send(world, "PUT", presigned(world, "put_object", role=READER, Key="form"), form, Content_Type=kind)
    assert (answer.status, answer.body) == (200, b"")
    assert world.cloud.client("s3").list_objects_v2(Bucket="data", Prefix="form")["KeyCount"] == 1
    keys = world.cloud.environment(READER)
    request = AWSRequest("GET", f"{world.cloud.url}/private/a")
    token = (keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], keys["AWS_SESSION_TOKEN"])
    SigV4QueryAuth(Credentials(*token), "sts", "us-east-1").add_auth(request)
    url = urlsplit(request.url)
    assert send(world, "GET", f"{url.path}?{url.query}").status == 403


def test_a_role_may_not_take_another_role(world: World) -> None:
    other = world.role("other")
    code, _ = refusal(world.cloud.client("sts", READER).assume_role, RoleArn=other, RoleSessionName="other")
    assert code == "AccessDenied"


# ---- web pages
@pytest.mark.parametrize(
    "host",
    ["evil.example:{port}", "localhost.evil.example:{port}", "127.0.0.1.evil.example", "", "a@localhost"],
)
def test_a_name_that_leads_here_by_dns_rebinding_is_refused(world: World, host: str) -> None:
    host = host.format(port=urlsplit(world.cloud.url).port)
    good = sign(world, *INVOKE, "lambda", b"{}", Host=host)
    assert send(world, *INVOKE, b"{}", **good).status == 403
    assert send(world, "GET", f"http://{host}/data/a").status == 403
    assert world.calls == []


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:{port}", "127.0.0.1:{port}", "[::1]:{port}", "localhost:8000"]
)
def test_this_machine_s_own_names_are_answered(world: World, host: str) -> None:
    host = host.format(port=urlsplit(world.cloud.url).port)
    assert send(world, "GET", "/data/a", b"", **sign(world, "GET", "/data/a", "s3", Host=host)).body == b"the object"


def test_a_bucket_may_stand_in_the_host_s_name(world: World) -> None:
    host = f"data.{urlsplit(world.cloud.url).netloc}"
    for role in (None, READER):
        assert (
            send(world, "GET", "/a", b"", **sign(world, "GET", "/a", "s3", role=role, Host=host)).body == b"the object"
        )
        listed = send(world, "GET", "/?prefix=a", b"", **sign(world, "GET", "/?prefix=a", "s3", role=role, Host=host))
        assert b"<Key>a</Key>" in listed.body
    private = host.replace("data", "private")
    assert send(world, "GET", "/a", b"", **sign(world, "GET", "/a", "s3", role=READER, Host=private)).status == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:{port}", "http://127.0.0.1:1"])
def test_a_web_page_is_refused_even_with_the_key(world: World, origin: str) -> None:
    origin = origin.format(port=urlsplit(world.cloud.url).port)
    answer = send(world, *INVOKE, b"{}", **sign(world, *INVOKE, "lambda", b"{}"), Origin=origin)
    assert answer.status == 403
    assert world.calls == []


@pytest.mark.parametrize("path", ["/", "/data/a", INVOKE[1], "/moto-api/reset"])
@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST", "PUT", "DELETE", "HEAD"])
def test_who_signs_nothing_gets_nothing(world: World, method: str, path: str) -> None:
    form = {"Content_Type": "text/plain"}
    asks = {"Origin": "https://evil.example", "Access_Control_Request_Method": "POST"}
    for headers in (form, form | asks):
        answer = send(world, method, path, b"{}" if method in ("POST", "PUT") else b"", **headers)
        assert answer.status == 403
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    assert world.calls == []
    assert world.cloud.client("s3").head_object(Bucket="data", Key="a")["ContentLength"] == 10


def test_an_answer_is_for_no_other_origin(world: World) -> None:
    for service, path in (("s3", "/data/a"), ("lambda", "/2015-03-31/functions/")):
        answer = send(world, "GET", path, b"", **sign(world, "GET", path, service))
        assert answer.status == 200
        assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("path", ["/moto-api/", "/moto-api/data.json", "/moto-api/config", "/latest/meta-data/iam/"])
def test_pages_of_moto_s_own_are_closed_to_all(world: World, path: str) -> None:
    bucket, rest = path[1:].split("/", 1)
    netloc = urlsplit(world.cloud.url).netloc
    for host, asked in ((netloc, path), (f"{bucket}.{netloc}", f"/{rest}")):
        assert send(world, "GET", asked, b"", **sign(world, "GET", asked, "s3", Host=host)).status == 403


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic YTpi",
        "AWS {key}:c2lnbmF0dXJl",
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential={key}/20200101/us-east-1/s3/aws4_request",
        "AWS4-HMAC-SHA256 Credential={key}/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=",
        "AWS4-HMAC-SHA256 Credential={key}/x, SignedHeaders=host, Signature=" + "0" * 64,
        "AWS4-HMAC-SHA256 Credential={key}/20200101/us-east-1/nonsense/aws4_request, SignedHeaders=host, Signature="
        + "0" * 64,
        "AWS4-ECDSA-P256-SHA256 Credential={key}/20200101/s3/aws4_request, SignedHeaders=host, Signature=" + "0" * 64,
    ],
)
def test_a_signature_that_is_none_is_refused(world: World, authorization: str) -> None:
    key = world.cloud.environment()["AWS_ACCESS_KEY_ID"]
    for moment in ("20200101T000000Z", "20200101", ""):
        given = authorization.format(key=key)
        assert send(world, "GET", "/data/a", Authorization=given, X_Amz_Date=moment).status == 403


def test_half_a_body_does_nothing(world: World) -> None:
    good = sign(world, *INVOKE, "lambda", b"{}")
    place = urlsplit(world.cloud.url)
    connection = http.client.HTTPConnection("127.0.0.1", place.port or 0, timeout=60)
    connection.request(*INVOKE, b"{", {**good, "Content-Length": "2"})
    connection.sock.shutdown(1)
    assert connection.getresponse().status in (400, 403)
    connection.close()
    assert world.calls == []
