"""Pictures, URLs and sites that mean harm or are broken: each gets an answer of the table, and none a 500."""

import json
import struct
import zlib
from typing import Any

import pytest
from classify.handler import handler, respond
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.errors import Refused
from inference.images import decode
from tests.functions.worlds import (
    HOST,
    PNG,
    Context,
    Internet,
    Reply,
    Runtime,
    Site,
    base64_of,
    page,
    picture,
    probabilities,
)

GOOD = probabilities(0.1, 0.7, 0.2)
REFUSALS = {"not_an_image", "unsupported_image", "too_large"}


class Decoding(Runtime):
    """Decodes as the inference server does, and answers as SageMaker passes its answers on."""

    def reply(self) -> Reply:
        try:
            decode(self.calls[-1][2], 50_000_000)
        except Refused as refused:
            return Reply(424, {"OriginalStatusCode": refused.status, "Message": str(refused)}, "ModelError")
        return GOOD


@pytest.fixture
def decoding(environment: pytest.MonkeyPatch) -> Any:
    world = Decoding()
    with world.up() as url:
        environment.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", url)
        yield world


def code_of(body: bytes) -> str:
    error = handler({"image": base64_of(body)}, Context()).get("error", {"code": "ok", "status": 200})
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
def test_a_broken_picture_is_refused(decoding: Decoding, name: str) -> None:
    assert code_of(BAD[name]) in REFUSALS


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.lists(st.tuples(st.integers(0, 800), st.binary(max_size=4)), max_size=4))
def test_any_change_of_a_picture_is_answered_or_refused(
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
def test_a_hostile_url_is_refused_without_a_connection(runtime: Runtime, internet: Internet, url: str) -> None:
    internet.names |= {"localhost": [["127.0.0.1"]], "169.254.169.254.nip.io": [["169.254.169.254"]]}
    inner = ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "0.0.0.0", "::")
    internet.names |= {host: [[host]] for host in inner}
    error = respond({"url": url}, Context(), internet.fetcher().fetch)["error"]
    assert (error["code"], error["status"]) in {("url_refused", 403), ("fetch_failed", 502)}
    assert internet.dialed == []
    assert runtime.calls == []


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
        (raw(b"HTTP/1.1 200\r\nContent-Length: -5\r\n\r\n" + PNG), {"ok"}),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + PNG), {"ok"}),
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
    runtime: Runtime, site: Site, internet: Internet, answer: Any, codes: set[str]
) -> None:
    internet.names["169.254.169.254"] = [["169.254.169.254"]]
    site.pages["*"] = answer
    value = respond({"url": f"https://{HOST}/dog.png"}, Context(), internet.fetcher().fetch)
    assert value.get("error", {"code": "ok"})["code"] in codes, json.dumps(value)
