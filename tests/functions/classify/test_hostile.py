"""Events, images, URLs, sites and endpoints that mean harm or are broken: each gets a documented answer."""

import json
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classify.errors import INTERNAL, OUTCOMES
from classify.handler import handler
from inference.errors import Refused
from inference.images import decode
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
    http,
    page,
    picture,
    probabilities,
    unhurried,
)

GOOD = probabilities(0.1, 0.7, 0.2)
REFUSALS = {"not_an_image", "unsupported_image", "too_large"}


class Decoding(Endpoint):
    """Decodes as the inference server does, and answers as SageMaker passes its answers on."""

    def reply(self) -> Reply:
        try:
            decode(self.calls[-1][2], 50_000_000)
        except Refused as refused:
            return Reply(424, {"OriginalStatusCode": refused.status, "Message": str(refused)}, "ModelError")
        return GOOD


@pytest.fixture
def decoding(environment: pytest.MonkeyPatch) -> Any:
    fake = Decoding()
    with fake.up() as url:
        environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        yield fake


def code_of(body: bytes) -> str:
    error = ask({"image": base64_of(body)}).get("error", {"code": "ok", "status": 200})
    assert error["status"] not in (500, 502, 503), error
    return str(error["code"])


def chunk(kind: bytes, data: bytes = b"", size: int | None = None) -> bytes:
    """Of a PNG."""
    claimed = len(data) if size is None else size
    return struct.pack(">I", claimed) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return PNG[:8] + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


END = chunk(b"IEND")
KINDS = {kind: picture(kind, size=24) for kind in ("JPEG", "PNG", "GIF", "WEBP")}
BAD = {
    **{f"a fifth of a {kind}": body[: len(body) // 5] for kind, body in KINDS.items()},
    **{f"{kind} without its end": body[:-30] for kind, body in KINDS.items()},
    **{f"{kind} of zeros": body[:16] + bytes(len(body)) for kind, body in KINDS.items()},
    "only a JPEG's first bytes": b"\xff\xd8\xff",
    "a JPEG of markers": b"\xff\xd8" + b"\xff\xe0\x00\x02" * 5000,
    "a JPEG that says 65535 squared": KINDS["JPEG"].replace(struct.pack(">HH", 24, 24), b"\xff\xff\xff\xff", 1),
    "a PNG without rows": header(8, 8) + END,
    "a PNG of no size": header(0, 0) + chunk(b"IDAT", zlib.compress(b"")) + END,
    "a PNG of two thousand million squared": header(2**31 - 1, 2**31 - 1) + END,
    "a PNG of many pixels in few bytes": header(30_000, 30_000) + chunk(b"IDAT", zlib.compress(bytes(900_000))) + END,
    "a PNG with an unknown depth": header(8, 8, 7, 5) + chunk(b"IDAT", zlib.compress(bytes(900))) + END,
    "a PNG with a chunk that is not there": header(8, 8) + chunk(b"IDAT", b"", 2**31 - 1),
    "a PNG whose text unpacks to much": header(8, 8) + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000))),
    "a GIF of no size": b"GIF89a" + bytes(7) + b";",
    "a GIF without a picture": b"GIF89a\xff\xff\xff\xff\x00\x00\x00;",
    "a WebP that says too much": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\x7f" + bytes(20),
    "a script after a GIF's first bytes": b"GIF89a/*" + bytes(8) + b"*/=1;alert(1)",
}


@pytest.mark.parametrize("name", BAD)
def test_a_broken_image_is_refused(decoding: Decoding, name: str) -> None:
    assert code_of(BAD[name]) in REFUSALS


@unhurried
@given(st.sampled_from(sorted(KINDS)), st.lists(st.tuples(st.integers(0, 800), st.binary(max_size=4)), max_size=4))
def test_any_change_of_an_image_is_answered_or_refused(
    decoding: Decoding, kind: str, changes: list[tuple[int, bytes]]
) -> None:
    body = KINDS[kind]
    for at, data in changes:
        body = body[:at] + data + body[at + len(data) :]
    assert code_of(body) in REFUSALS | {"ok"}


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/iam/security-credentials/",
        "https://169.254.169.254/latest/api/token",
        "https://[fd00:ec2::254]/latest/meta-data/",
        "https://[::ffff:169.254.169.254]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://169.254.170.2/v2/credentials",
        "https://metadata.google.internal/computeMetadata/v1/",
        "https://169.254.169.254.nip.io/",
        "https://localhost/",
        "https://localhost.localdomain/",
        "https://127.0.0.1.:443/",
        "https://0/",
        "https://0.0.0.0/",
        "https://[::]/",
        "https://2852039166/",
        "https://0xa9fea9fe/",
        "https://0251.0376.0251.0376/",
        "https://169。254。169。254/",
        "https://pictures.example%00.evil.example/",
        "https://pictures.example%2f@169.254.169.254/",
        "https://169.254.169.254#@pictures.example/",
        "https://169.254.169.254?@pictures.example/",
        "https://pictures.example:443@169.254.169.254/",
        "https://pictures.example:0/",
        "https://pictures.example:-1/",
        "https://pictures.example:４４３/",  # noqa: RUF001 full-width digits
        "https://pictures。example／x",  # noqa: RUF001
        "https://[v1.x]/",
        "https://[::1%25lo]/",
        "https://\u202epictures.example/",
        "https://\x00/",
        "https://a.b\t.c/",
        "https:\\\\pictures.example\\x",
        "https://" + "a." * 5000,
        "https://" + "ä" * 300 + ".example/",
        "https://xn--/",
        "https://-.example/",
        "https://*.example/",
        "data:image/png;base64,iVBORw0KGgo=",
        "javascript:alert(1)",
        "blob:https://pictures.example/x",
        "jar:https://pictures.example/x!/y",
        "dict://127.0.0.1:11211/",
        "file://localhost/proc/self/environ",
        "unix:///var/run/docker.sock",
        "\ud800",
        " ",
        "s3://pictures-bucket/photos/dog.png",
    ],
)
def test_a_hostile_url_is_refused_without_a_connection(endpoint: Endpoint, internet: Internet, url: str) -> None:
    internet.names |= {"localhost": [["127.0.0.1"]], "169.254.169.254.nip.io": [["169.254.169.254"]]}
    inner = ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "0.0.0.0", "::")
    internet.names |= {host: [[host]] for host in inner}
    error = ask({"url": url})["error"]
    assert (error["code"], error["status"]) in {("url_refused", 403), ("fetch_failed", 502)}
    assert internet.dialed == []
    assert endpoint.calls == []


def raw(answer: bytes) -> Any:
    return lambda sock, _: sock.sendall(answer)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        (page(b""), {"not_an_image"}),
        (page(b"<html>sign in</html>"), {"not_an_image"}),
        (page(b"<svg onload='alert(1)'/>"), {"unsupported_image"}),
        (raw(b"HTTP/1.1 99999 Odd\r\n\r\n"), {"fetch_failed"}),
        (raw(b"HTTP/1.1 -200 Odd\r\n\r\n"), {"fetch_failed"}),
        (raw(b"HTTP/9.9 200 OK\r\n\r\n"), {"fetch_failed"}),
        (raw(b"HTTP/1.1 200\r\nContent-Length: -5\r\n\r\n" + PNG), {"fetch_failed"}),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + PNG), {"fetch_failed"}),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n" + PNG), {"fetch_failed"}),
        (raw(b"HTTP/1.1 200 OK\r\n\xff\xfe: \xff\r\n\r\n" + PNG), {"ok"}),
        (raw(CHUNKED + b"-1\r\n" + PNG), {"fetch_failed"}),
        (raw(CHUNKED + b"zz\r\n" + PNG), {"fetch_failed"}),
        (raw(CHUNKED + b"f" * 400 + b"\r\n" + PNG), {"fetch_failed"}),
        (raw(CHUNKED + b"ffffffffffffffff\r\n" + PNG), {"fetch_failed"}),
        (page(b"", "302 Found", "Location: https://[::"), {"url_refused"}),
        (page(b"", "302 Found", "Location: \xff\xfe"), {"url_refused", "fetch_failed"}),
        (page(b"", "302 Found", "Location: /dog.png"), {"fetch_failed"}),
        (page(b"", "302 Found", "Location: https://169.254.169.254/"), {"url_refused"}),
    ],
)
def test_a_site_that_talks_nonsense_gets_no_500(
    endpoint: Endpoint, site: Site, internet: Internet, answer: Any, codes: set[str]
) -> None:
    internet.names["169.254.169.254"] = [["169.254.169.254"]]
    site.pages["*"] = answer
    value = ask({"url": f"https://{HOST}/dog.png"})
    assert value.get("error", {"code": "ok"})["code"] in codes, json.dumps(value)


DOCUMENTED = {outcome.code: outcome for outcome in (*OUTCOMES.values(), INTERNAL)}
ANSWER = ["known", "label", "model", "predictions", "probabilities", "request_id", "threshold", "timings", "verdict"]

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


def look_at(event: Any) -> str:
    """The code of an answer whose two forms agree."""
    value = handler(event, Context())
    answer = json.loads(value["body"]) if "statusCode" in value else json.loads(json.dumps(value))
    code, status = "ok", 200
    if "error" in answer:
        code, status = answer["error"]["code"], answer["error"]["status"]
        assert DOCUMENTED[code].status == status
    assert sorted(answer) == (["error", "request_id"] if "error" in answer else ANSWER)
    if "statusCode" in value:
        assert value["statusCode"] == status
        assert ("retry-after" in value["headers"]) == (code != "ok" and DOCUMENTED[code].retry_after is not None)
    return str(code)


@unhurried
@given(anything | direct | through_api)
def test_whatever_is_sent_gets_a_documented_answer_that_is_no_500(endpoint: Endpoint, event: Any) -> None:
    assert look_at(event) in {"ok", "invalid_request", "not_an_image", "too_large", "url_refused", "s3_refused"}


@unhurried
@given(replies, st.sampled_from([IMAGE, http(PNG, "image/png")]))
def test_whatever_the_endpoint_says_becomes_a_documented_answer(
    endpoint: Endpoint, pauses: list[float], reply: Reply, event: Any
) -> None:
    pauses.clear()
    endpoint.calls.clear()
    endpoint.replies = [reply]
    code = look_at(event)
    assert code not in ("invalid_request", "url_refused", "s3_refused", "fetch_failed", "fetch_timeout")
    assert len(endpoint.calls) == (4 if len(pauses) in (2, 3) else 1)


@unhurried
@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.integers(1, 6))
def test_an_answer_names_the_best_classes_in_order(endpoint: Endpoint, weights: list[float], top_k: int) -> None:
    total = sum(weights)
    shares = [weight / total for weight in weights] if total > 0.01 else [1.0]
    endpoint.replies = [probabilities(*shares)]
    answer = ask(IMAGE | {"top_k": top_k})
    named = [entry["probability"] for entry in answer["predictions"]]
    assert named == sorted(shares, reverse=True)[:top_k]
    assert answer["label"] == answer["predictions"][0]["label"]
